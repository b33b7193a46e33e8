"""A checkpoint that is being written to an object store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from statedict import files
from statedict.formats.runs import FileFacts, Manifest

from .._keep import Place

if TYPE_CHECKING:
    from ._run import StoreRun


class StoreDraft:
    """The files of one attempt to save a step: the objects in the folder `key`, `step-0000001200-TOKEN`."""

    def __init__(self, run: StoreRun, key: str) -> None:
        self.key = key
        self.place: Place = f"{run.name}/{key}"
        self.uploaded: dict[str, FileFacts] = {}
        self._run = run

    def write(self, name: str, parts: Sequence[files.Part]) -> None:
        with files.Upload(self._run.bucket, f"{self.key}/{name}") as stream:
            crc = files.write_summed(stream, parts)
        self.uploaded[name] = FileFacts(files.total_of(parts), crc)

    def share(self, source: Place, file: str, facts: FileFacts, name: str) -> bool:
        """Let the store copy a file of another checkpoint of the run."""
        bucket, target = self._run.bucket, f"{self.key}/{name}"
        try:
            bucket.copy(f"{str(source).removeprefix(f'{self._run.name}/')}/{file}", target)
            if bucket.stat(target).nbytes != facts.nbytes:
                return False
        except OSError:
            # The other checkpoint was deleted, or the store refuses to copy: the bytes are uploaded again.
            return False
        self.uploaded[name] = facts
        return True

    def files(self, uploaded: Iterable[Mapping[str, FileFacts]]) -> dict[str, FileFacts]:
        return dict(sorted(pair for each in uploaded for pair in each.items()))

    def finish(self, manifest: Manifest) -> None:
        self._run.finish(self, manifest)

    def abandon(self) -> None:
        self._run.abandon(self)
