"""The files of a checkpoint by their names, opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from statedict.files import Folder

from ...errors import FormatError, LimitError
from .._limits import Limits
from .._table import read
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..folders._roots import _checks, _globals, _problems

MODEL = re.compile(r"(?:zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<mp>\d{2,6})_model_states\.pt")
OPTIMIZER = re.compile(
    r"(?P<kind>(?:[bf][fp]16_)?zero)_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<mp>\d{2,6})_optim_states\.pt"
)
LAYER = re.compile(r"layer_(?P<layer>\d{1,6})(?:-model_(?P<mp>\d{1,6}))?-model_states\.pt")
EXPERT = re.compile(r"(?:layer_\d{1,6}_)?expert_\d{1,6}_mp_rank_(?P<mp>\d{2,6})_model_states\.pt")
EXPERT_OPTIMIZER = re.compile(r"(?P<root>expp_rank_\d{1,6})_mp_rank_(?P<mp>\d{2,6})_optim_states\.pt")


class OpenFiles:
    """The checkpoints in files of a folder.

    Attributes:
        checkpoints: the open ones, by name.
        failed: why the others cannot be opened.
    """

    def __init__(self, folder: Folder, names: Iterable[str], limits: Limits) -> None:
        self.folder = folder
        self.checkpoints: dict[str, Checkpoint] = {}
        self.failed: dict[str, FormatError | OSError] = {}
        for name in names:
            try:
                self.checkpoints[name] = read(folder.file(name), limits)
            except LimitError:
                raise
            except (FormatError, OSError) as error:
                self.failed[name] = error
        if self.failed and not self.checkpoints:
            raise next(iter(self.failed.values()))

    def matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], dict[Any, Any]]]:
        """Yield the match and the content of each open file with such a name, in the order of the numbers in it."""
        for name in sorted(self.checkpoints, key=numbers_in):
            match = pattern.fullmatch(name)
            if match is not None:
                yield match, self.mapping(name)

    def mp_ranks(self) -> list[str]:
        """Return the numbers of the mp_ranks that have model states; raise FormatError if there are none."""
        found = sorted({match["mp"] for match, _ in self.matching(MODEL)})
        if not found:
            raise FormatError(
                "it has no file of model states", file=self.folder.path, hint="fetch it from where it was saved"
            )
        return found

    def mapping(self, name: str) -> dict[Any, Any]:
        content = self.checkpoints[name].object
        if not isinstance(content, dict):
            raise FormatError(f"it contains a {type(content).__name__}, not a dict", file=self.folder.path_of(name))
        return content

    def checkpoint(self, tree: dict[str, Any], notes: Sequence[str], missing: Sequence[str]) -> Checkpoint:
        """Return the Checkpoint of the tree that was made from these files; `missing`: texts that name what is missing."""
        checkpoints = self.checkpoints
        return Checkpoint(
            self.folder.path,
            "deepspeed",
            tree,
            size=sum(each.size for each in checkpoints.values()),
            producer=f"DeepSpeed {tree.get('ds_version', '')}".strip(),
            more_globals=partial(_globals, checkpoints.values()),
            notes=[*notes, *missing],
            checks=lambda: chain(_told(missing), _problems(self.failed), _checks(checkpoints)),
            unopened=self.failed,
        )


def _told(missing: Iterable[str]) -> Iterator[Finding]:
    for text in missing:
        yield Finding("error", "", text)


def numbers_in(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them.

    >>> sorted(["rank_10", "rank_9"], key=numbers_in)
    ['rank_9', 'rank_10']
    """
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d{1,9})", name)]
