"""What an opened file holds: the Checkpoint that every reader returns.

`_walk` lists the tensors of the tree, `_roots` finds the state dicts in it (`_whole_module` those of pickled
modules), `_choose_root` picks the one that a caller means, and `_verify` is what formats without checks of their own
use for `Checkpoint.verify`. `_allowed` says of which classes a reader makes instances.
"""
