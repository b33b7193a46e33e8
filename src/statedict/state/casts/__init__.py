"""Leaves that are computed when they are read, and casts to another dtype."""
