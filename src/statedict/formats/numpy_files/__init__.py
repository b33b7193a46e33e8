"""`.npy` and `.npz` files: `_npy_header` describes one array, `_read` and `_write` handle the files, `_literal` parses
the header.
"""
