"""Reading and changing `.run`, the index of a run in an object store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from statedict.errors import ConflictError
from statedict.files import ABSENT, Bucket, put_surely
from statedict.formats import runs
from statedict.formats.runs import RunIndex


class StoredIndex:
    """The index of a run, of which the newest known version is kept: a change of it needs one request, if it is current."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: tuple[RunIndex, str] | None = None

    @property
    def latest(self) -> RunIndex:
        """The newest known version."""
        return (self._known or self._read())[0]

    def read(self) -> RunIndex:
        """Read the index. Without one, list the folders of the run, and give the number 0."""
        return self._read()[0]

    def change(self, edit: Callable[[RunIndex], RunIndex], *, always: bool = False) -> RunIndex:
        """Replace the index by `edit(index)`, which may raise an error; return it.

        Does nothing if the two are equal, unless `always`. If another process changes the index meanwhile, tries again.
        After a RemoteError the change may have been made, or may still be made, but not after another change.
        Raises FileChangedError if another process is always first.
        """
        for _ in range(runs.ATTEMPTS):
            is_fresh = self._known is None
            now, etag = self._known or self._read()
            new = edit(now)
            if new != now or always:
                new = replace(new, number=now.number + 1)
                with suppress(ConflictError):
                    self._known = new, put_surely(self._bucket, runs.INDEX, new.dump(), if_match=etag)
                    return new
            elif is_fresh:
                return now
            self._known = None
        raise runs.always_changed(f"{self._bucket.url}/{runs.INDEX}")

    def _read(self) -> tuple[RunIndex, str]:
        """Return the index and its ETag."""
        try:
            raw, etag = self._bucket.get(runs.INDEX)
        except FileNotFoundError:
            self._known = RunIndex(self._listed()), ABSENT
        else:
            self._known = runs.parse_index(raw, f"{self._bucket.url}/{runs.INDEX}"), etag
        return self._known

    def _listed(self) -> dict[int, str]:
        """The newest folder of each step that has a manifest: of a run that was copied here, or has lost its index."""
        written = sorted((entry.modified, entry.key.split("/")) for entry in self._bucket.list())
        folders = [path[0] for _, path in written if path[1:] == [runs.MANIFEST]]
        return {step: folder for name in folders for step, folder in runs.own_steps([name]).items()}
