"""PyTorch modules: the `_host` that the tree engine walks, and the two ways to load.

`_load_exact` is PyTorch's own contract, `_load_sound` is ours: it checks what `_fits`, keeps a `_backup`, reads large
tensors in place (`_read_into`) and small ones through `_staging`.
"""
