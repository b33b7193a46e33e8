"""`.npy` and `.npz` files: `_npy_header` describes one array, `_read` and `_write` are the files, `_literal` parses
the header.
"""
