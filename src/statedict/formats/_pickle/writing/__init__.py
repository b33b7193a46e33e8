"""Write pickles byte for byte as `torch.save` does: `_write` walks the tree, `_memo` keeps the memo, and `_entries`,
`_objects`, `_tensors` and `_compounds` write the kinds of values.
"""
