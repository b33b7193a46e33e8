"""Resume: find the chosen checkpoint, load it, and begin again if it turns out to be damaged, or was replaced meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from statedict.errors import FormatError, StateDictError

from .. import _distributed
from .._run import TrainingRun
from ..saving._ownership import Ownership
from ._choose import Choice
from ._find import Found, Resumed, is_replaced
from ._restore import FoundCheckpoint, Options
from ._retry import retried

if TYPE_CHECKING:
    from statedict.formats import Limits


@dataclass(frozen=True, slots=True)
class Resuming:
    """A call of `resume`.

    Attributes:
        own, ownership: the manager's run, and its right to change it.
        choice: which checkpoint to resume.
        on_first: calls a function on rank 0, and returns its result on all ranks.
        is_alone: whether there is only one rank.
    """

    own: TrainingRun
    ownership: Ownership
    choice: Choice
    on_first: Callable[[Callable[[], Any]], Any]
    is_alone: bool

    @property
    def run(self) -> TrainingRun:
        """The run to resume from."""
        return self.choice.run or self.own

    def load(
        self, objects: Mapping[str, Any], options: Options, limits: Limits | None, *, random: bool
    ) -> Resumed | None:
        """Load the checkpoint into the objects; return None if the run has no checkpoint yet."""
        # The files of a store are verified while they are loaded, so that each byte is fetched once.
        once = isinstance(self.run.at, str)
        while True:
            found: Found = self.on_first(partial(self.choice.find, self.own, self.ownership, deep=not once))
            if found.path is None or found.manifest is None:
                found.refuse_damaged(self.run.name)
                return None
            read = FoundCheckpoint(found.path, found.manifest, limits, is_verified=not once)
            if once and _distributed.on_any(partial(read.lacks_room, objects)):
                once = False
                continue
            replaced = partial(is_replaced, self.run, found.path, found.manifest)
            try:
                resumed = read.into(objects, options, tuple(found.passed_over), random=random)
            except Exception as error:  # on all ranks if one has failed
                if not (self.is_alone and isinstance(error, (StateDictError, OSError)) and retried(replaced)):
                    damage = (FormatError, FileNotFoundError)
                    if not once or not _distributed.on_any(partial(isinstance, error, damage)):
                        raise
                    # Most probably damaged: look for one whose files have been verified.
                    once = False
            else:
                if not self.on_first(partial(_surely, replaced)):
                    return resumed
            # The training process has deleted this checkpoint meanwhile, or saved its step again: read what is there. Each
            # turn means that it has completed another save while one checkpoint was loaded.


def _surely(is_true: Callable[[], bool]) -> bool:
    """Return whether something is true; False if that cannot be found out at the moment."""
    try:
        return retried(is_true)
    except (OSError, MemoryError):
        return False
