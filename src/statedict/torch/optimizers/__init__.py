"""PyTorch optimizers and schedulers: `_read` names the state by parameter, `_write` matches saved state to parameters
(`_match`, `_fit`) and places it (`_place`); `_undo` puts everything back when that fails. `_exact` is PyTorch's
own contract.
"""
