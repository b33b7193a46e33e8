"""Measure how long saving and loading take, with this library and others: `python -m benchmarks`."""
