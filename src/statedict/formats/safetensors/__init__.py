"""safetensors files: the `_header` is parsed and checked, `_read` and `_write` use it, and `_checksums` are kept in
its metadata.
"""
