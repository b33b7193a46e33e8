"""The files that `torch.save`, `torch.jit.save` and `torch.export.save` write, in current and older versions.

`_read` and `_write` handle today's zip archives; `_storages` finds their storages. `_legacy` and `_tar` are the older
formats, `_torchscript` is `torch.jit.save`, `_exported` (with `_payloads`) is `torch.export.save`, and `_bare_pickle` is a
pickle from `pickle.dump`.

`_loadable` reads a pickle again before it is saved, so that nothing is saved that could not be loaded.
"""
