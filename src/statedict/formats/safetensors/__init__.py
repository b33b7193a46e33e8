"""safetensors files: `_header` is parsed and checked, `_read` and `_write` use it, and `_signature` keeps checksums and
ties in the metadata.
"""
