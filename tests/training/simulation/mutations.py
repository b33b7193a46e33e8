"""Mistakes in the protocol that the simulation must find: each replaces a real function by one with a mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from statedict.errors import ConflictError
from statedict.files import Part, System, total_of, write_summed
from statedict.formats import runs
from statedict.formats.runs import MANIFEST, FileFacts, name_of
from statedict.training._keep import Saved, expired
from statedict.training.resuming import _find
from statedict.training.run_directory import _changes, _layout, _pins
from statedict.training.run_store import _draft, _index, _run
from statedict.training.run_store import _lock as _store_lock
from statedict.training.saving import _saver
from statedict.training.saving._background import Background
from statedict.training.saving._saver import Saver

Replaced = tuple[Any, str, Any]


def commit_before_flush() -> list[Replaced]:
    """The checkpoint gets its name before its files are flushed."""
    finish = _changes.finish

    def late(directory: Path, written: Path, step: int, *, durable: bool) -> None:
        finish(directory, written, step, durable=False)
        if durable:
            _changes._sync_all(directory / name_of(step))
            _changes.sync(directory)

    return [(_changes, "finish", late)]


def prune_before_commit() -> list[Replaced]:
    """Old checkpoints are deleted before the new one, for which they make room, is there."""
    write = Saver._write

    def early(self: Saver, content: Any, *arguments: Any) -> None:
        new = Saved(content.step, Path(), {}, datetime.now(UTC), 0)
        older = [each for each in self._run.saved() if each.step != content.step]
        for each in expired(sorted([*older, new], key=lambda saved: saved.step), self._options.keep):
            if each is not new:
                self._run.remove(each.path)
        write(self, content, *arguments)

    return [(Saver, "_write", early)]


def manifest_first() -> list[Replaced]:
    """The manifest is put in place before the files that it lists."""

    def finish(directory: Path, written: Path, step: int, *, durable: bool) -> None:
        _changes._sync_all(written)
        final = directory / name_of(step)
        final.mkdir(exist_ok=True)
        for path in sorted(written.iterdir(), key=lambda path: path.name != MANIFEST):
            path.rename(final / path.name)
            _changes.sync(final)
            _changes.sync(directory)
        written.rmdir()

    return [(_changes, "finish", finish)]


def directory_not_flushed() -> list[Replaced]:
    """The run's directory is not flushed after a checkpoint got its name."""
    finish = _changes.finish

    def forgetful(directory: Path, written: Path, step: int, *, durable: bool) -> None:
        if durable:
            _changes._sync_all(written)
        finish(directory, written, step, durable=False)

    return [(_changes, "finish", forgetful)]


def deleted_in_place() -> list[Replaced]:
    """A checkpoint is deleted without being renamed first."""

    def remove(directory: Path, path: Path) -> bool:
        _changes._delete(path)
        return True

    return [(_changes, "remove", remove)]


def pin_not_checked_again() -> list[Replaced]:
    """Pruning does not look for a pin again after it has renamed the checkpoint."""

    def remove(directory: Path, path: Path) -> bool:
        trash = directory / f"{_layout.TRASH}{path.name}-00000000"
        path.rename(trash)
        _changes.sync(directory)
        _changes._delete(trash)
        return True

    return [(_changes, "remove", remove)]


def pin_not_flushed() -> list[Replaced]:
    """A pin is not flushed to the disk."""

    def pin(directory: Path, step: int) -> None:
        file = _pins.file_of(directory, step)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        if not (directory / name_of(step)).is_dir():
            _changes.unpin(directory, step)
            raise _changes.UnknownNameError(str(step), among=f"the steps of {directory}")

    return [(_changes, "pin", pin)]


def lock_ignored() -> list[Replaced]:
    """Two processes save in one directory."""

    def lock(self: System, fd: int, *, wait: bool) -> None:
        pass

    return [(System, "lock", lock)]


def tidied_without_lock() -> list[Replaced]:
    """Every resume deletes what interrupted saves have left, without the lock: also saves that are running."""
    find = _find.find

    def tidy(run: Any, ownership: Any) -> _find.Found:
        run.tidy()
        return find(run, ownership)

    return [(_find, "find", tidy)]


def tidied_without_flush() -> list[Replaced]:
    """A new owner builds on what it finds, without flushing the names that a dead process has left."""
    sync, hold = _changes.sync, _find.Ownership.hold

    def unflushed(self: Any, **options: Any) -> None:
        _changes.sync = lambda directory: None if directory == self._run.at else sync(directory)
        try:
            hold(self, **options)
        finally:
            _changes.sync = sync

    return [(_find.Ownership, "hold", unflushed)]


def not_compared_again() -> list[Replaced]:
    """A reader does not look again whether it has read one version."""
    return [(_find, "is_replaced", lambda run, path, manifest: False)]


def replaced_is_lost() -> list[Replaced]:
    """What was set aside while a step was replaced is neither read nor restored."""

    def steps(directory: Path) -> dict[int, str]:
        return _layout.runs.own_steps(entry.name for entry in directory.iterdir()) if directory.is_dir() else {}

    return [(_layout, "_steps", steps)]


# in an object store


def manifest_uploaded_first() -> list[Replaced]:
    """The manifest is written before the files that it lists are uploaded."""
    finish = _draft.StoreDraft.finish

    def write(self: _draft.StoreDraft, name: str, parts: Sequence[Part]) -> None:
        stream = BytesIO()
        self.uploaded[name] = FileFacts(total_of(parts), write_summed(stream, parts))
        self.contents = {**getattr(self, "contents", {}), name: stream.getvalue()}

    def early(self: _draft.StoreDraft, manifest: Any) -> None:
        finish(self, manifest)
        for name, content in getattr(self, "contents", {}).items():
            self._run.bucket.upload(f"{self.key}/{name}", [content])

    return [(_draft.StoreDraft, "write", write), (_draft.StoreDraft, "finish", early)]


def put_without_condition() -> list[Replaced]:
    """The index is written whoever else has written it meanwhile."""

    def put(bucket: Any, key: str, data: bytes, *, if_match: str | None) -> str:
        return bucket.put(key, data)

    return [(_index, "put_surely", put)]


def index_goes_back() -> list[Replaced]:
    """If the index has changed meanwhile, it is replaced by an edit of the version that was known before."""

    def change(self: _index.StoredIndex, edit: Callable[[Any], Any], *, always: bool = False) -> Any:
        new = replace(edit(self.latest), number=self.latest.number + 1)
        while True:
            try:
                self._known = new, _index.put_surely(self._bucket, runs.INDEX, new.dump(), if_match=self._read()[1])
                return new
            except ConflictError:
                continue

    return [(_index.StoredIndex, "change", change)]


def late_writer_not_fenced() -> list[Replaced]:
    """The files of an unfinished checkpoint are deleted while a request to complete it may be on its way."""
    return [(_store_lock.StoreLock, "fence", lambda self: self.checked(self._index.read()))]


def listed_after_fence() -> list[Replaced]:
    """The run is listed for leftovers after the look at who owns it: the list may show files of its next owner."""

    def tidy(self: _run.StoreRun) -> None:
        kept = {*self._held().fence().folders.values(), *self._drafts}
        keys = [entry.key for entry in self.bucket.list()]
        self.bucket.delete([key for key in keys if "/" in key and key.partition("/")[0] not in kept])

    return [(_run.StoreRun, "tidy", tidy)]


def name_used_again() -> list[Replaced]:
    """The folder of a save has the first number that is free, so it may have the name of one that is being deleted."""

    def begin(self: _run.StoreRun, step: int, *, durable: bool) -> _draft.StoreDraft:
        taken = {entry.key.partition("/")[0] for entry in self.bucket.list(name_of(step))}
        key = next(name for n in count() if (name := f"{name_of(step)}-{n:016x}") not in taken)
        self._drafts.add(key)
        return _draft.StoreDraft(self, key)

    return [(_run.StoreRun, "begin", begin)]


def files_deleted_first() -> list[Replaced]:
    """The files of a checkpoint are deleted before the index stops to name it."""
    remove = _run.StoreRun.remove

    def early(self: _run.StoreRun, place: Any) -> bool:
        self._delete(place.rpartition("/")[2])
        return remove(self, place)

    return [(_run.StoreRun, "remove", early)]


def pin_not_looked_up() -> list[Replaced]:
    """A checkpoint is deleted without a look whether it was pinned after the list."""

    def remove(self: _run.StoreRun, place: Any) -> bool:
        folder = place.rpartition("/")[2]
        self._index.change(
            lambda now: replace(now, folders={step: each for step, each in now.folders.items() if each != folder})
        )
        self._delete(folder)
        return True

    return [(_run.StoreRun, "remove", remove)]


def not_tidied() -> list[Replaced]:
    """What interrupted saves and deletions have left is not deleted."""
    return [(_run.StoreRun, "tidy", lambda self: None)]


def live_state_saved() -> list[Replaced]:
    """A save in the background writes the live state, which training changes, instead of a copy."""
    return [(_saver, "copied", lambda content, memory: (content, memory))]


def not_waited_for() -> list[Replaced]:
    """A second save does not wait for the one in the background, and replaces it if that has not begun."""
    return [(Background, "wait", Background.raise_error)]


def _by_name(*mutations: Callable[[], list[Replaced]]) -> dict[str, Callable[[], list[Replaced]]]:
    return {mutation.__name__: mutation for mutation in mutations}


# World → the mistakes that can be made in it.
MUTATIONS = {
    "disk": _by_name(
        commit_before_flush,
        prune_before_commit,
        manifest_first,
        directory_not_flushed,
        deleted_in_place,
        pin_not_checked_again,
        pin_not_flushed,
        lock_ignored,
        tidied_without_lock,
        tidied_without_flush,
        not_compared_again,
        replaced_is_lost,
        live_state_saved,
        not_waited_for,
    ),
    "store": _by_name(
        prune_before_commit,
        not_compared_again,
        manifest_uploaded_first,
        put_without_condition,
        late_writer_not_fenced,
        files_deleted_first,
        pin_not_looked_up,
        index_goes_back,
        listed_after_fence,
        name_used_again,
        not_tidied,
        live_state_saved,
        not_waited_for,
    ),
}


@contextmanager
def mutated(name: str, world: str = "disk") -> Iterator[None]:
    """Make a mistake until the block ends."""
    replaced = MUTATIONS[world][name]()
    before = [getattr(where, attribute) for where, attribute, _ in replaced]
    for where, attribute, mutant in replaced:
        setattr(where, attribute, mutant)
    try:
        yield
    finally:
        for (where, attribute, _), real in zip(replaced, before):
            setattr(where, attribute, real)
