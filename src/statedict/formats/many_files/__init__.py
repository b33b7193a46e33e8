"""Checkpoints of several files: shards with an index, and the directories of torch.distributed.checkpoint.

`_directory` decides which of them a folder holds. `_shards` and `_shards_write` are the sharded files. `_distributed`
reads `.metadata`, `_tiles` checks that the pieces cover each tensor, and `_assemble` puts them together (`_ranks`,
`_nest`, `_window` are its steps). `_open_files` keeps the files of one checkpoint open.
"""
