"""Checkpoints in several files: shards with an index, and the directories of torch.distributed.checkpoint.

`_weights` chooses the file of weights in a folder. `_shards` and `_shards_write` handle sharded files. `_distributed`
reads `.metadata` and checks that the chunks tile each tensor, and `_assemble` joins them (`_ranks`, `_stored_files`,
`_flattened`, `_nesting` and `_training` are its steps). `_parts` joins the files of several ranks.
"""
