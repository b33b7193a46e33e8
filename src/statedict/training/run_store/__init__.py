"""A run in an object store: `_run` implements the protocol of `training/_run.py`, and `_draft` a checkpoint being written.

    s3://bucket/runs/a/               the URL given to the manager
      .writer                         who saves here, and the newest step
      step-0000001200/manifest.json   first a claim: the step is being written; then the manifest, which completes it
      step-0000001200/TOKEN/model.pt  the files; every attempt to write a step has its own TOKEN
      .pins/step-0000001200           an empty object: the step is pinned
      .removing/step-0000001200       the checkpoint is being deleted

There are no renames and no locks in a store, so each change is decided by a conditional write of one object:

- *A checkpoint becomes visible* when its manifest replaces what its writer found there when it began: its own claim, or the
  manifest of an earlier checkpoint of the step. If another writer has changed the object meanwhile, the write is refused.
- *A manager owns the run* from the moment it replaces `.writer` until another manager replaces it. It checks `.writer`
  before and after it completes a checkpoint, so that the later of two managers wins, and the error of the other one
  names it.
- *A checkpoint is gone* when its manifest is deleted, which is done before its files are. A reader that has read the
  manifest finds files missing, looks again, and takes another checkpoint.
- *Files are deleted* only when no manifest can name them any more: everything that another writer could still complete
  is changed first (`_fence`), so that its conditional write is refused, however late it arrives.

A list may be out of date, and a response may be lost after the write. So objects are looked up by their keys where it
matters, and a conditional write that has failed is read back: if the content is there, it has succeeded.
"""

from ._run import StoreRun

__all__ = ["StoreRun"]
