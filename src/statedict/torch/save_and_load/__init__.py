"""`torch.save` and `torch.load` over this engine, with PyTorch's contract.

`_save` chooses the archive or the legacy format. `_load` reads plain files with the engine's reader (`_load_plain`)
and all others with an unpickler that follows the policy of `weights_only` (`_load_policy`, `_load_restricted`).
"""
