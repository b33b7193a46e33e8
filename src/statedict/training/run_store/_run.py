"""A run in an object store: what is there, and the changes to it (see the package's docstring)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from secrets import token_hex

from statedict.errors import (
    AfterSaveError,
    ConflictError,
    FormatError,
    LockedError,
    RunDeniedError,
    RunGoneError,
    StateDictError,
    UnknownNameError,
)
from statedict.files import ABSENT, Bucket, open_bucket, put_surely, read_all
from statedict.formats import runs
from statedict.formats.runs import Manifest, UnfinishedError

from .._holder import holder
from .._keep import Place, Saved
from .._run import name_of
from ._draft import StoreDraft
from ._listing import PINS, REMOVING, StoredStep, listing, marker
from ._lock import StoreLock, read_writer


class StoreRun:
    """The run behind a URL such as `s3://bucket/runs/a`."""

    def __init__(self, url: str, bucket: Bucket | None = None) -> None:
        self.bucket = open_bucket(url) if bucket is None else bucket
        self.name = self.real = self.bucket.url
        self.at: Place = self.name
        self._lock: StoreLock | None = None
        self._drafts: set[str] = set()
        # Step's name → the ETag of its manifest, and what the manifest says.
        self._known: dict[str, tuple[str, Manifest | FormatError]] = {}

    # what is there

    def exists(self) -> bool:
        return read_writer(self.bucket)[1] != ABSENT or bool(self.bucket.list())

    def steps(self) -> dict[int, Place]:
        found = self._manifests(listing(self.bucket.list()).steps)
        names = runs.own_steps(found)
        return {step: f"{self.name}/{name}" for step, name in names.items()}

    def saved(self) -> list[Saved]:
        now = listing(self.bucket.list())
        found = self._manifests(now.steps)
        listed = [(name, found[name]) for name in runs.own_steps(found).values()]
        return [
            Saved(m.step, f"{self.name}/{name}", m.metrics, m.time, m.nbytes, pinned=name in now.pinned)
            for name, m in listed
            if isinstance(m, Manifest)
        ]

    def manifest(self, place: Place) -> Manifest:
        try:
            found = self._read(name_of(place))[1]
        except FileNotFoundError as error:
            raise runs.missing_manifest(f"{place}/{runs.MANIFEST}") from error
        if isinstance(found, FormatError):
            raise found
        return found

    def has(self, place: Place) -> bool:
        try:
            return not isinstance(self._read(name_of(place))[1], UnfinishedError)
        except FileNotFoundError:
            return False

    def _manifests(self, steps: dict[str, StoredStep]) -> dict[str, Manifest | FormatError]:
        """Return the manifests of all steps but unfinished ones. Those that have not changed are not read again."""
        while True:
            writer, etag = read_writer(self.bucket)
            is_complete = self._read_manifests(steps, writer.newest)
            if is_complete or read_writer(self.bucket)[1] == etag:
                break
            # Checkpoints were deleted and perhaps replaced by newer ones, which this list does not show.
            steps = listing(self.bucket.list()).steps
        return {name: each for name, (_, each) in self._known.items() if not isinstance(each, UnfinishedError)}

    def _read_manifests(self, steps: dict[str, StoredStep], newest: int) -> bool:
        """Read the manifests of listed steps, and of the newest; return whether all were there."""
        found = {}
        # The newest step may be missing in a list that is out of date.
        listed = {each.name: each.etag for each in steps.values() if each.etag}
        names = {*listed, *([runs.name_of(newest)] if newest >= 0 else [])}
        for name in sorted(names):
            entry = self._known.get(name)
            if entry is None or entry[0] != listed.get(name):
                with suppress(FileNotFoundError):
                    found[name] = self._read(name)
            else:
                found[name] = entry
        self._known = found
        return found.keys() == names

    def _read(self, name: str) -> tuple[str, Manifest | FormatError]:
        """Return the ETag of a step's manifest, and the manifest or what is wrong with it."""
        file = f"{self.name}/{_manifest_of(name)}"
        raw, etag = read_all(self.bucket, _manifest_of(name))
        try:
            manifest = runs.parse(raw, file)
            runs.check_step(manifest, f"{self.name}/{name}")
        except FormatError as error:
            return etag, error
        return etag, manifest

    def _exists(self, key: str) -> bool:
        try:
            self.bucket.stat(key)
        except FileNotFoundError:
            return False
        return True

    # changes

    def lock(self, *, seize: bool) -> StoreLock:
        self._lock = StoreLock(self.bucket, seize=seize)
        return self._lock

    def begin(self, step: int) -> StoreDraft:
        """Claim the step, unless it has a checkpoint, which stays until the new one is complete."""
        name, token = runs.name_of(step), token_hex(8)
        etag, now = ABSENT, None
        with suppress(FileNotFoundError):
            etag, now = self._read(name)
        if now is None or isinstance(now, UnfinishedError):
            # A claim that is there was left by a writer that has died, or has lost the run.
            etag = put_surely(self.bucket, _manifest_of(name), runs.claim(holder(), token), if_match=etag)
        key = f"{name}/{token}"
        self._drafts.add(key)
        return StoreDraft(self, key, etag)

    def draft(self, key: str) -> StoreDraft:
        return StoreDraft(self, key)

    def finish(self, draft: StoreDraft, manifest: Manifest) -> None:
        """Write the manifest, if the object under its key has not changed since the draft was begun.

        Raises LockedError if another manager has taken the run.
        """
        lock = self._held()
        key = _manifest_of(draft.step_name)
        try:
            put_surely(self.bucket, key, runs.dump(manifest), if_match=draft.replaces)
        except ConflictError:
            # Probably by a manager that has taken over the run: then this raises an error that names it.
            self._held()
            raise
        self._drafts.discard(draft.key)
        with self.after_save(manifest.step, "recording it as the newest"):
            lock.note_newest(manifest.step)

    def abandon(self, draft: StoreDraft) -> None:
        """Delete the files of a draft; if that fails, or another manager has taken the run, `tidy` does so later."""
        self._drafts.discard(draft.key)
        with suppress(LockedError, OSError):
            self._held()
            found = listing(self.bucket.list(f"{draft.step_name}/")).steps
            step = found.get(draft.step_name, StoredStep(draft.step_name, "", {}))
            self._delete_leftovers(step)

    def remove(self, place: Place) -> bool:
        """Delete a checkpoint: its manifest first, and its files if no pin was set meanwhile.

        The deletion is announced before pins are looked up, and `pin` looks for announcements after it has set one: so
        at least one of them sees the other.
        """
        self._held()
        name = name_of(place)
        self.bucket.put(marker(REMOVING, name), b"")
        if self._exists(marker(PINS, name)):
            self.bucket.delete([marker(REMOVING, name)])
            return False
        self.bucket.delete([_manifest_of(name)])
        # A failed deletion of files must not fail the save: `tidy` tries again.
        with suppress(OSError):
            self._delete_all(listing(self.bucket.list(f"{name}/")).steps.get(name))
            self.bucket.delete([marker(REMOVING, name)])
        return True

    def pin(self, step: int) -> None:
        name = runs.name_of(step)
        with self.translated():
            self.bucket.put(marker(PINS, name), b"")
            removing = self._exists(marker(REMOVING, name))
        if removing or not self.has(f"{self.name}/{name}"):
            self.unpin(step)
            raise UnknownNameError(str(step), among="the steps of the run")

    def unpin(self, step: int) -> None:
        with self.translated():
            self.bucket.delete([marker(PINS, runs.name_of(step))])

    def set_aside(self, place: Place) -> Place | None:
        # A store cannot rename; the checkpoint stays where it is, and is passed over again.
        return None

    def tidy(self) -> None:
        """Delete what interrupted saves and deletions have left, unless another manager could still complete it."""
        now = listing(self.bucket.list())
        for name in now.removing:
            step = now.steps.get(name)
            if not self._exists(_manifest_of(name)):
                self._delete_all(step)
            # Otherwise it was not deleted after all, and the retention policy decides again.
            self.bucket.delete([marker(REMOVING, name)])
        for name, step in now.steps.items():
            etag, known = self._known.get(name, ("", None))
            is_complete = known is not None and not isinstance(known, UnfinishedError) and etag == step.etag
            clean = is_complete and step.files.keys() <= _tokens(known)
            if name not in now.removing and not clean:
                self._delete_leftovers(step)

    def _delete_leftovers(self, step: StoredStep) -> None:
        """Delete the files of a step that its manifest does not name, and its claim if no draft of ours has made it."""
        if any(key.partition("/")[0] == step.name for key in self._drafts):
            return
        try:
            etag, now = self._read(step.name)
        except FileNotFoundError:
            # Whoever wrote the files has lost the claim, and cannot complete the checkpoint.
            self._delete_all(step)
            return
        if isinstance(now, FormatError) and not isinstance(now, UnfinishedError):
            return
        left = [key for token, keys in step.files.items() if token not in _tokens(now) for key in keys]
        if left or isinstance(now, UnfinishedError):
            with suppress(ConflictError):
                self._fence(step.name, etag, now)
                self.bucket.delete(left)

    def _fence(self, name: str, etag: str, now: Manifest | FormatError) -> None:
        """Change the object that other writers of a step would have to replace, so that none of them can complete it."""
        key = _manifest_of(name)
        if isinstance(now, Manifest):
            put_surely(self.bucket, key, runs.dump(replace(now, version=token_hex(8))), if_match=etag)
            return
        put_surely(self.bucket, key, runs.claim(holder(), token_hex(8)), if_match=etag)
        self.bucket.delete([key])

    def _delete_all(self, step: StoredStep | None) -> None:
        if step is not None:
            self.bucket.delete([key for keys in step.files.values() for key in keys])

    def _held(self) -> StoreLock:
        """Return the lock, after looking whether it is still held; raises LockedError, or RunGoneError."""
        if self._lock is None or not self._lock.holds():
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


def _manifest_of(name: str) -> str:
    """Return the key of a step's manifest."""
    return f"{name}/{runs.MANIFEST}"


def _tokens(manifest: Manifest | FormatError | None) -> set[str]:
    """Return which files of a step its manifest names, by their token."""
    return {manifest.within} if isinstance(manifest, Manifest) else set()
