"""Resuming: `_find` the newest valid checkpoint, `_restore` its states into objects; `_retry` repeats failed reads."""
