"""PyTorch modules: `_host` is the Host of the tree engine, with two ways to load.

`_load_exact` follows PyTorch's contract. `_load_sound` follows ours: it checks what `_fits`, makes a `_backup`, and
reads files straight into the tensors (`_read_into`, small tensors in `_stages`).
"""
