"""Checkpoints in several files: shards with an index, and the directories of torch.distributed.checkpoint.

`_directory` decides which of them a folder contains. `_shards` and `_shards_write` handle sharded files. `_distributed`
reads `.metadata` and checks that the chunks tile each tensor, and `_assemble` joins them (`_ranks`, `_nesting`,
`_file_slice` are its steps). `_open_files` limits how many files of one checkpoint are open.
"""
