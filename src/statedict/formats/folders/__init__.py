"""Folders that are one checkpoint: a file, or a folder, for each root.

A reader of a framework's folder lists which file has which root, and `_roots` opens them and joins their trees. `_roles`
knows the usual names of files beside the weights (`optimizer.pt`, `rng_state_0.pth` …). `_steps` finds the newest
checkpoint of a folder that has one for each step. `_fsdp`, `_lightning`, `_megatron` and `_megatron_ranks` know the folders
of these frameworks.
"""
