"""A run in an object store: what is there, and the changes to it (see the package's docstring)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from statedict.errors import (
    AfterSaveError,
    FormatError,
    LockedError,
    RunDeniedError,
    RunGoneError,
    StateDictError,
    UnknownNameError,
)
from statedict.files import Bucket, open_bucket
from statedict.formats import runs
from statedict.formats.runs import Manifest, RunIndex

from .._keep import Place, Saved
from .._run import name_of
from ._draft import StoreDraft
from ._index import StoredIndex
from ._lock import StoreLock


class StoreRun:
    """The run behind a URL such as `s3://bucket/runs/a`."""

    removes_unlocked = True

    def __init__(self, url: str, bucket: Bucket | None = None) -> None:
        self.bucket = open_bucket(url) if bucket is None else bucket
        self.name = self.real = self.bucket.url
        self.at: Place = self.name
        self._index = StoredIndex(self.bucket)
        self._lock: StoreLock | None = None
        self._drafts: set[str] = set()
        # Folder → its manifest, which never changes.
        self._manifests: dict[str, Manifest] = {}

    # what is there

    def exists(self) -> bool:
        return self._index.read().number > 0 or bool(self.bucket.list())

    def steps(self) -> dict[int, Place]:
        return {step: f"{self.name}/{folder}" for step, folder in self._index.read().folders.items()}

    def saved(self) -> list[Saved]:
        index = self._index.read()
        for _ in range(runs.ATTEMPTS):
            found = [(f"{self.name}/{folder}", self._valid(folder)) for folder in index.folders.values()]
            before, index = index, index if all(manifest for _, manifest in found) else self._index.read()
            if index.folders == before.folders:
                break
            # A checkpoint was deleted before its manifest was read.
        else:
            raise runs.always_changed(f"{self.name}/{runs.INDEX}")
        self._manifests = {name_of(place): manifest for place, manifest in found if manifest is not None}
        return [
            Saved(m.step, place, m.metrics, m.time, m.nbytes, pinned=m.step in index.pinned)
            for place, m in found
            if m is not None
        ]

    def _valid(self, folder: str) -> Manifest | None:
        with suppress(FormatError):
            return self.manifest(f"{self.name}/{folder}")
        return None

    def manifest(self, place: Place) -> Manifest:
        folder = name_of(place)
        if folder not in self._manifests:
            file = f"{folder}/{runs.MANIFEST}"
            try:
                raw, _ = self.bucket.get(file)
            except FileNotFoundError as error:
                raise runs.missing_manifest(f"{self.name}/{file}") from error
            manifest = runs.parse(raw, f"{self.name}/{file}")
            runs.check_step(manifest, str(place))
            self._manifests[folder] = manifest
        return self._manifests[folder]

    def has(self, place: Place) -> bool:
        return name_of(place) in self._index.read().folders.values()

    # changes

    def lock(self, *, seize: bool) -> StoreLock:
        self._lock = StoreLock(self.name, self._index, seize=seize)
        return self._lock

    def begin(self, step: int, *, durable: bool) -> StoreDraft:
        # Data that a store has accepted is durable.
        key = runs.unique_name(step)
        self._drafts.add(key)
        return StoreDraft(self, key)

    def draft(self, key: str, *, durable: bool) -> StoreDraft:
        return StoreDraft(self, key)

    def finish(self, draft: StoreDraft, manifest: Manifest) -> None:
        """Write the manifest, and the folder into the index; raise LockedError if another manager has taken the run."""
        lock, replaced = self._held(), None
        self.bucket.put(f"{draft.key}/{runs.MANIFEST}", runs.dump(manifest))

        def completed(now: RunIndex) -> RunIndex:
            nonlocal replaced
            before = now.folders.get(manifest.step)
            if before == draft.key:
                return now
            replaced = before
            return replace(lock.checked(now), folders={**now.folders, manifest.step: draft.key})

        self._index.change(completed)
        self._drafts.discard(draft.key)
        self._manifests[draft.key] = manifest
        if replaced is not None:
            self._delete(replaced)

    def abandon(self, draft: StoreDraft) -> None:
        """Delete the files of a draft; if that fails, or another manager has taken the run, `tidy` does so later."""
        self._drafts.discard(draft.key)
        with suppress(LockedError, RunGoneError, OSError):
            # A request to complete it, whose response was lost, may have arrived, or be on its way.
            if draft.key not in self._held().fence().folders.values():
                self._delete(draft.key)

    def remove(self, place: Place) -> bool:
        """Remove a checkpoint from the index, unless it is pinned there; then delete its files."""
        folder = name_of(place)

        def removed(now: RunIndex) -> RunIndex:
            if self._lock is not None:
                self._lock.checked(now)
            left = {step: each for step, each in now.folders.items() if each != folder or step in now.pinned}
            return replace(now, folders=left)

        with self.translated():
            if folder in self._index.change(removed).folders.values():
                return False
        self._delete(folder)
        return True

    def pin(self, step: int) -> None:
        def pinned(now: RunIndex) -> RunIndex:
            if step not in now.folders:
                raise UnknownNameError(str(step), among=f"the steps of {self.name}")
            return replace(now, pinned=now.pinned | {step})

        with self.translated():
            self._index.read()
            self._index.change(pinned)

    def unpin(self, step: int) -> None:
        with self.translated():
            self._index.read()
            self._index.change(lambda now: replace(now, pinned=now.pinned - {step}))

    def set_aside(self, place: Place) -> Place | None:
        # A store cannot rename; the checkpoint stays where it is, and is passed over again.
        return None

    def tidy(self) -> None:
        """Delete the folders that are not checkpoints: what interrupted saves and deletions have left."""
        kept = {*self._index.latest.folders.values(), *self._drafts}
        keys = [entry.key for entry in self.bucket.list()]
        others = [key for key in keys if runs.is_unique_name(_folder_of(key)) and _folder_of(key) not in kept]
        if others:
            # After the list: what was there then, and is not a checkpoint now, cannot become one any more.
            kept.update(self._held().fence().folders.values())
            self.bucket.delete([key for key in others if _folder_of(key) not in kept])

    def _delete(self, folder: str) -> None:
        """Delete the files of a folder that the index does not name; if that fails, `tidy` does so later."""
        manifest = self._manifests.pop(folder, None)
        with suppress(OSError):
            names = None if manifest is None else [f"{folder}/{name}" for name in (runs.MANIFEST, *manifest.files)]
            self.bucket.delete(names or [entry.key for entry in self.bucket.list(f"{folder}/")])

    def _held(self) -> StoreLock:
        """Return the lock; raise RunGoneError if there is none."""
        if self._lock is None:
            raise RunGoneError(self.name)
        return self._lock

    # errors

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except StateDictError:
            raise
        except PermissionError as error:
            raise RunDeniedError(self.name, error.strerror or "permission denied") from error

    @contextmanager
    def after_save(self, step: int, what: str) -> Iterator[None]:
        try:
            yield
        except (LockedError, OSError) as error:
            raise AfterSaveError(self.name, step, what, str(error)) from error
        except Exception as error:
            error.add_note(f"{self.name}: step {step} was saved, but {what} failed")
            raise


def _folder_of(key: str) -> str:
    return key.partition("/")[0]
