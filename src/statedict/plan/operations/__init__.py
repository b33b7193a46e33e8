"""What a rule can do to a tensor: `_views` (transpose, slice, split …), `_joins` (cat, stack), `_reshape`, and
`_operation`, which applies them to specs and to leaves. `_facts` are the questions that planning asks of any
value: its shape and dtype.
"""
