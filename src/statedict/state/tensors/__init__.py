"""Leaves: what a tensor is before it is read (dtype, spec, storage), tables of them, and how they become arrays."""
