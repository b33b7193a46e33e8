"""What an open file contains: the Checkpoint that every reader returns.

`_walk` lists the tensors of the tree, `_roots` finds its state dicts (also those of pickled modules),
`_choose_root` selects the one that a caller means, and `_verify` implements `Checkpoint.verify` for formats whose
tensors are byte ranges of the file. `_allowed` decides which classes a reader may instantiate.
"""
