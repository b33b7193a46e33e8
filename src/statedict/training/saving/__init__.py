"""Saving: `_ownership` locks the directory, `_save` writes a checkpoint (`_frozen`: in shared shards).

`_background` is the thread of asynchronous saves, `_background_copy` copies the state for it, and `_sigterm` and `_finish`
let it finish before the process ends.
"""
