"""The files that `torch.save` and `torch.jit.save` write, and have written.

`_read` and `_write` are the zip archives of today; their storages are found by `_storages`. `_legacy` and `_tar` are
the older formats, `_torchscript` is `torch.jit.save`, and `_bare_pickle` is a pickle that `pickle.dump` wrote.

`_closed` reads what was just pickled once more, so that nothing is saved that could not be loaded.
"""
