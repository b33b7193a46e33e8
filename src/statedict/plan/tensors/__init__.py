"""Check whether a tensor fits its slot, and adapt it: `_fit` decides by the `_policy`, an adaptation changes the shape
(as in `_interpolate`), and a `_step` is the result.
"""
