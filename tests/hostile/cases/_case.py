"""A case: a file that somebody could have made, and what reading it must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

# "error": one of our FormatErrors that names the file. "loads": the values. "detected": a ChecksumError when the tensors
# are read. "either": an error or the values. "unsafe": an error, and nothing was run.
Gives = Literal["error", "loads", "detected", "either", "unsafe"]
W = {"w": [1.0, 2.0, 3.0, 4.0]}


class Case(NamedTuple):
    """`build` gives the file's bytes, or, given a folder, makes the file in it and gives its path.

    `values` are what must load, by name, where something must (None: whatever loads is right).
    """

    name: str
    gives: Gives
    what: str
    build: Callable[[], bytes] | Callable[[Path], Path]
    values: Mapping[str, Any] | None = W
    placed: bool = False

    def make(self, folder: Path) -> Path:
        """The case's file, in `folder`."""
        if self.placed:
            return self.build(folder)  # type: ignore[call-arg,return-value]
        path = folder / f"{self.name}.pt"
        path.write_bytes(self.build())  # type: ignore[call-arg,arg-type]
        return path
