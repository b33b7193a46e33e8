"""Whether a tensor fits its slot, and how it is adapted: `_fit` decides by the `_policy`, an `_adaptation` changes
the shape (`_interpolate` is one), and a `_step` is the result.
"""
