"""A run in an object store: `_run` implements the protocol of `training/_run.py`, and `_draft` a checkpoint being written.

    s3://bucket/runs/a/                 the URL given to the manager
      .run                              the index: which folders are checkpoints, which are pinned, and who saves here
      step-0000001200-TOKEN/            the files of one attempt to save a step; each attempt has its own TOKEN
        manifest.json  model.pt  …      as in a directory

A store has no renames and no locks. Therefore `.run` is the only object that is ever overwritten, always with a
conditional request (`_index`), and every change of the run is one such request:

- *A checkpoint becomes visible* when the index names its folder, whose files were uploaded before. If the index has changed
  meanwhile, the request is refused; it is made again if this manager still owns the run.
- *A manager owns the run* from the moment its token is in the index until another manager replaces it (`_lock`). From then
  on every request of the first one is refused, however late it arrives, and its error names the other one.
- *A checkpoint is gone* when the index does not name it any more. Then its files are deleted. A reader that finds files
  missing reads the index again, and takes another checkpoint. A pinned step is never removed: pins are in the same object.
- *No name is used again.* So a deletion that arrives late, from a process that was paused or has died, deletes nothing but
  what it was meant for.
- *Other folders are deleted* by the owner only: it lists the run, then changes the index (`fence`). If that succeeds, it has
  owned the run since before the list, and no request that was sent earlier can make one of those folders a checkpoint.

A list may be out of date; it is only used to find what can be deleted. A response may be lost after the write: then the
index is read back, and the write has succeeded if its content is there.
"""

from ._run import StoreRun

__all__ = ["StoreRun"]
