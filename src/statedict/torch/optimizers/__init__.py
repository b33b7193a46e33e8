"""PyTorch optimizers and schedulers. `_exact` is PyTorch's own contract; the other files are ours.

`_read` names the state by parameter. `_write` matches saved state to parameters (`_match`, `_fit`) and places it (`_place`);
`_rollback` restores everything if that fails.
"""
