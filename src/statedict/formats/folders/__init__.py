"""Folders that are one checkpoint: a file, or a folder, for each root.

A reader of a framework's folder lists which file has which root, and `_roots` opens them and joins their trees. `_roles`
knows the usual names of files beside the weights (`optimizer.pt`, `rng_state_0.pth` …), `_submodels` the folders of a
pipeline, and `_archives` those archives whose members are such files. `_values` reads the plain values beside them.
`_fsdp`, `_lightning`, `_megatron` and `_megatron_ranks` read what those frameworks save in parts.
"""
