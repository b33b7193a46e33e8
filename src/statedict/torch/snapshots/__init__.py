"""Independent copies: `_copy_tree` copies a tree of values, `_copy_tensors` the tensors in it, with their ties;
`_reused_copies` overwrites earlier copies.
"""
