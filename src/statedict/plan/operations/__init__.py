"""Tensor operations of rules: `_views` (transpose, permute, split …), `_joins` (cat, stack), `_reshape`, and `_operation`,
which applies them to specs and to leaves. `_specs` returns the shape, dtype and spec of any value.
"""
