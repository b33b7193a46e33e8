"""The files of a checkpoint of DeepSpeed: their names, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from statedict.files import Folder
from statedict.state import Leaf, Piece, Spec, arguments, join_later, whole_box

from ...errors import FormatError
from .._limits import Limits
from .._pickle import Import
from .._table import read
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..folders._opened import OpenCheckpoints
from ..storages._describe import shown

MODEL = re.compile(r"(?:zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<mp>\d{2,6})_model_states\.pt")
OPTIMIZER = re.compile(
    r"(?P<kind>(?:[bf][fp]16_)?zero)_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<mp>\d{2,6})_optim_states\.pt"
)
LAYER = re.compile(r"layer_(?P<layer>\d{1,6})(?:-model_(?P<mp>\d{1,6}))?-model_states\.pt")
EXPERT = re.compile(r"(?:layer_\d{1,6}_)?expert_\d{1,6}_mp_rank_(?P<mp>\d{2,6})_model_states\.pt")
EXPERT_OPTIMIZER = re.compile(r"(?P<root>expp_rank_\d{1,6})_mp_rank_(?P<mp>\d{2,6})_optim_states\.pt")


class DeepSpeedFiles(OpenCheckpoints):
    """The checkpoints in the files of a folder, by their names."""

    def __init__(self, folder: Folder, names: Iterable[str], limits: Limits) -> None:
        super().__init__()
        self.folder = folder
        self._limits = limits
        self._later: list[str] = []
        for name in names:
            self.add(name, partial(self.open, name))
        self.require_one()

    def open(self, name: str) -> Checkpoint:
        """Return the checkpoint in a file."""
        if name not in self.checkpoints:
            self.checkpoints[name] = read(self.folder.file(name), self._limits)
        return self.checkpoints[name]

    def later(self, name: str, spec: Spec, tensor: Callable[[], Leaf]) -> Leaf:
        """Return the tensor in a file that is opened when it is read: `tensor` opens it, and `spec` is what it should be."""

        def pieces() -> Iterator[Piece]:
            leaf = tensor()
            if leaf.spec.dense() != spec.dense():
                raise FormatError(
                    f"expected a tensor of {spec.dtype} {list(spec.shape)}, found {shown(leaf)}",
                    file=self.folder.path_of(name),
                )
            yield Piece(whole_box(spec.shape), leaf)

        self._later.append(name)
        return join_later(spec, pieces, ("file", self, name))

    def matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], dict[Any, Any]]]:
        """Yield the match and the content of each open file with such a name, in the order of the numbers in it."""
        for name in sorted(self.checkpoints, key=numbers_in):
            match = pattern.fullmatch(name)
            if match is not None:
                yield match, self.mapping(name)

    def mp_ranks(self) -> list[str]:
        """Return the numbers of the mp_ranks that have model states; raise an error if none can be read."""
        found = sorted({match["mp"] for match, _ in self.matching(MODEL)})
        for name, error in self.failed.items():
            if not found and MODEL.fullmatch(name):
                raise error
        if not found:
            raise FormatError(
                "it has no file of model states", file=self.folder.path, hint="fetch it from where it was saved"
            )
        return found

    def mapping(self, name: str) -> dict[Any, Any]:
        """Return the content of an open file; raise FormatError if it is not a dict."""
        content = self.checkpoints[name].object
        if not isinstance(content, dict):
            raise FormatError(f"it contains {arguments.a(content)}, not a dict", file=self.folder.path_of(name))
        return content

    def checkpoint(self, tree: dict[str, Any], notes: Sequence[str], missing: Sequence[str]) -> Checkpoint:
        """Return the Checkpoint of the tree that was made from these files. `missing`: messages about missing files."""
        return Checkpoint(
            self.folder.path,
            "deepspeed",
            tree,
            size=sum(map(self.folder.size, {*self.checkpoints, *self._later})),
            producer=f"DeepSpeed {tree.get('ds_version', '')}".strip(),
            more_globals=self.globals,
            notes=[*notes, *missing],
            checks=lambda: chain((Finding("error", "", text) for text in missing), self.checks()),
            unopened=self.failed,
        )

    def globals(self) -> Iterator[Import]:
        self._open_all()
        return super().globals()

    def checks(self) -> Iterator[Finding]:
        self._open_all()
        return super().checks()

    def _open_all(self) -> None:
        """Open the files that were not needed so far."""
        for name in self._later:
            try:
                self.open(name)
            except (FormatError, OSError) as error:
                self.failed[name] = error


def numbers_in(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them.

    >>> sorted(["rank_10", "rank_9"], key=numbers_in)
    ['rank_9', 'rank_10']
    """
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d{1,9})", name)]
