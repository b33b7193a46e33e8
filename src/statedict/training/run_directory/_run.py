"""A run in a local directory: `TrainingRun` over the functions of this package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from unicodedata import normalize

from statedict import files
from statedict.files import system
from statedict.formats import runs
from statedict.formats.runs import FileFacts, Manifest

from .._keep import Place, Saved
from .._run import name_of
from . import _changes, _layout
from ._catalogue import Catalogue
from ._lock import Lock


class DirectoryRun:
    """The run in a directory (an absolute path)."""

    def __init__(self, directory: Path) -> None:
        self.at = directory
        self._catalogue = Catalogue(directory)

    @property
    def name(self) -> str:
        return str(self.at)

    @property
    def removes_unlocked(self) -> bool:
        return False

    @property
    def real(self) -> str:
        return os.path.realpath(self.at)

    def exists(self) -> bool:
        return self.at.is_dir()

    def steps(self) -> dict[int, Place]:
        return {**_layout.steps(self.at)}

    def saved(self) -> list[Saved]:
        return self._catalogue.saved()

    def manifest(self, place: Place) -> Manifest:
        manifest = runs.read(Path(place))
        runs.check_step(manifest, str(place))
        return manifest

    def has(self, place: Place) -> bool:
        name = name_of(place)
        # `.old-…` is its step's checkpoint until the step has a directory of its own again; then its files are deleted.
        return Path(place).is_dir() if runs.own_steps([name]) else name in _layout.names(self.at)

    def lock(self, *, seize: bool) -> Lock:
        # The kernel releases the lock of a process that has died.
        _changes.make(self.at)
        lock = Lock(self.at)
        # A process may have died before it could flush its last save, and older ones may be deleted now.
        _changes.sync(self.at)
        return lock

    def begin(self, step: int, *, durable: bool) -> DirectoryDraft:
        return DirectoryDraft(self.at, _changes.begin(self.at, step), durable=durable)

    def draft(self, key: str, *, durable: bool) -> DirectoryDraft:
        return DirectoryDraft(self.at, self.at / key, durable=durable)

    def remove(self, place: Place) -> bool:
        return _changes.remove(self.at, Path(place))

    def pin(self, step: int) -> None:
        _changes.pin(self.at, step)

    def unpin(self, step: int) -> None:
        _changes.unpin(self.at, step)

    def set_aside(self, place: Place) -> Place | None:
        return _changes.set_aside(self.at, Path(place))

    def tidy(self) -> None:
        _changes.tidy(self.at)

    def translated(self) -> AbstractContextManager[None]:
        return _changes.translated(self.at)

    def after_save(self, step: int, what: str) -> AbstractContextManager[None]:
        return _changes.after_save(self.at, step, what)


class DirectoryDraft:
    """A checkpoint in a hidden directory of the run."""

    def __init__(self, directory: Path, path: Path, *, durable: bool) -> None:
        self._directory = directory
        self._durable = durable
        self.place = path
        self.uploaded: dict[str, FileFacts] = {}

    @property
    def key(self) -> str:
        return self.place.name

    def write(self, name: str, parts: Sequence[files.Part]) -> None:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Flushed here, although `finish` flushes the whole checkpoint: the rank that does so may be on another machine, and
        # the disk already has most of the file, because a durable write begins to flush early.
        crc = files.write_summed(path, parts, durable="rename" if self._durable else "none")
        self.uploaded[name] = FileFacts(files.total_of(parts), crc)

    def share(self, source: Place, file: str, facts: FileFacts, name: str) -> bool:
        """Link to a file of another checkpoint, if it is undamaged."""
        target = self.place / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            system.SYSTEM.link(os.path.join(source, file), str(target))
        except OSError:
            # The file system does not support hard links, or the other checkpoint was deleted.
            return False
        if FileFacts.of(target) == facts:
            self.uploaded[name] = facts
            return True
        target.unlink()
        return False

    def files(self, uploaded: Iterable[Mapping[str, FileFacts]]) -> dict[str, FileFacts]:
        known = {name: facts for each in uploaded for name, facts in each.items()}
        # macOS lists the names on some disks (HFS+, SMB) with decomposed letters.
        composed = {normalize("NFC", name): name for name in known}
        listed = relative(self.place)
        names = sorted(name if name in known else composed.get(normalize("NFC", name), name) for name in listed)
        return {name: known.get(name) or FileFacts.of(self.place / name) for name in names}

    def finish(self, manifest: Manifest) -> None:
        block = memoryview(runs.dump(manifest))
        files.write(self.place / runs.MANIFEST, [files.Frame(len(block), lambda: block)], durable="none")
        _changes.finish(self._directory, self.place, manifest.step, durable=self._durable)

    def abandon(self) -> None:
        _changes.abandon(self.place)


def relative(path: Path) -> list[str]:
    """Every file below a directory except the manifest, as a relative path with `/`; links are not followed."""
    found = []
    for folder, _, names in os.walk(path, onerror=_changes.fail):
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return [name for name in found if name != runs.MANIFEST]
