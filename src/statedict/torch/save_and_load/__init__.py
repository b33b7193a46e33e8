"""`torch.save` and `torch.load` with this library's engine, by PyTorch's contract.

`_save` writes the archive, `_save_legacy` the old format; `_save_pickle` pickles the object. `_load` reads files of plain
values with the engine's reader (`_load_plain`), and all others with an unpickler that follows the policy of `weights_only`
(`_load_policy`, `_load_unpicklers`, `_load_guards`).
"""
