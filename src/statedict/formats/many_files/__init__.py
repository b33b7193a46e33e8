"""Checkpoints in several files: shards with an index, and the directories of torch.distributed.checkpoint.

`_weights` chooses the file of weights in a folder. `_shards` and `_shards_write` handle sharded files.

`_distributed` opens a folder with `.metadata`, which `_metadata` reads (`_metadata_of_ranks` joins that of several ranks,
`_stored_files` looks at the files, `_megatron_flat` knows tensors that were stored flat). `_assemble` makes tensors of their
chunks, `_nesting` the tree of the flat names, and `_training` gives optimizers and the model their usual form.

`_parts` opens the files that several ranks wrote, and `_join_ranks` joins what is in them. `_llama` knows how
Meta divides the tensors of a Llama among its files.
"""
