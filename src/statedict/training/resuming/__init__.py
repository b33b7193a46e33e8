"""Resuming: `_choose` says which checkpoint, `_find` finds the newest valid one, `_restore` loads its states into objects.

`_resume` does all of this, again if the checkpoint turns out to be damaged; `_retry` repeats failed reads.
"""
