"""A save of several ranks: each writes its part, and rank 0 completes the checkpoint with one rename.

*Theory of operation.* Every rank runs the same job, in its background thread or in the caller's. They meet twice, over
connections of their own (RankGroup), never over those of the training:

1. Each rank says which save it is about to write, and which items it has (Offer). Rank 0 locks the directory, makes the
   checkpoint's hidden one, and replies who writes what (Task). Each rank then writes its items.
2. Each rank says where its items are, and the checksums of its files (Wrote). Rank 0 then writes what only it has, the
   metadata and the manifest, and renames the directory.

If anything fails on any rank, or its process ends, all ranks raise, and nothing is left behind. What fails before the job,
while the state is copied, is passed to the others in step 1.

With `busy="replace"`, some ranks may have replaced a waiting save by a newer one, and others not yet. Saves are numbered,
and in step 1 the newest number wins: a rank with an older one drops it, and joins with its next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict import _api, files
from statedict.errors import AfterSaveError, SaveError
from statedict.formats.runs import FileFacts

from .. import _random
from .._progress import Meter
from .._ranks import ranks
from ..run_directory import _changes, _names
from . import _save

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan

    from statedict.torch import RankGroup, RankPart, Stored


@dataclass(frozen=True, slots=True)
class Content:
    """What this rank saves.

    Attributes:
        own: what rank 0 writes alone; only its step matters on the other ranks.
        parts: object name → this rank's part of its state.
        random: the state of this rank's random generators, or None.
    """

    own: _save.Content
    parts: Mapping[str, RankPart]
    random: dict[str, Any] | None


class Offer(NamedTuple):
    """What a rank is about to save: the number of the save, its step, and the items of each object."""

    number: int
    step: int
    plans: Mapping[str, SavePlan]


class Task(NamedTuple):
    """What a rank is to write: the items of each object, into the directory `path`; None if `newest` is another save."""

    newest: int
    path: Path | None = None
    plans: Mapping[str, SavePlan] = {}


class Wrote(NamedTuple):
    """What a rank has written: the places of the items of each object, and the facts of each file."""

    stored: Mapping[str, Sequence[Stored]]
    facts: Mapping[str, FileFacts]


class SaveOfRanks:
    """One save, as each rank runs it.

    `hold` locks the run's directory, and `follow_up` does what follows a save; rank 0 calls them.
    """

    def __init__(
        self, directory: Path, group: RankGroup, number: int, *, durable: bool,
        hold: Callable[[], object], follow_up: Callable[[int], object],
    ) -> None:  # fmt: skip
        self._directory = directory
        self._group = group
        self._number = number
        self._durable = durable
        self._hold = hold
        self._follow_up = follow_up
        # Rank 0 only: the directory that is being written, and the metadata of each object.
        self._path: Path | None = None
        self._metadata: Mapping[str, Metadata] = {}

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks, instead of `write`, that this one has nothing to save; raises the error."""
        self._group.agree(error)

    def write(self, content: Content, meter: Meter) -> bool:
        """Write the checkpoint; return False if other ranks have a newer save instead.

        Raises this rank's error, RankError if another rank has failed. AfterSaveError: the checkpoint is complete.
        """
        try:
            task = self._begin(content)
            if task.path is None:
                return False
            self._agree(lambda: self._write_part(content, task), lambda wrote: self._complete(content.own, wrote, meter))
        except AfterSaveError:
            raise
        except BaseException:
            if self._path is not None:
                with suppress(OSError):
                    _changes.abandon(self._path)
            raise
        return True

    def _agree(self, act: Callable[[], Any], decide: Callable[[list[Any]], Sequence[Any]]) -> Any:
        """Run `act` on every rank, then `decide` with all results on rank 0; return its reply to this rank."""
        result: Any = None
        raised: BaseException | None = None
        try:
            result = act()
        except BaseException as error:  # noqa: BLE001  # the vote raises it, and tells the other ranks
            raised = error
        return self._group.agree(raised, result, decide)[0]

    # step 1

    def _begin(self, content: Content) -> Task:
        def offer() -> Offer:
            return Offer(self._number, content.own.step, {name: part.plan() for name, part in content.parts.items()})

        task: Task = self._agree(offer, self._decided)
        while task.path is None and task.newest == self._number:
            # The others are about to join with it.
            task = self._agree(offer, self._decided)
        return task

    def _decided(self, offers: list[Offer]) -> list[Task]:
        newest = max(offer.number for offer in offers)
        if any(offer.number != newest for offer in offers):
            return [Task(newest)] * len(offers)
        _require_same(offers)
        from statedict.torch import join_plans

        joined = {name: join_plans([offer.plans[name] for offer in offers]) for name in offers[0].plans}
        self._metadata = {name: metadata for name, (_, metadata) in joined.items()}
        self._hold()
        with _changes.translated(self._directory):
            # Retry the deletions that failed in an earlier save.
            _changes.tidy(self._directory)
            self._path = _changes.begin(self._directory, offers[0].step)
        for stem in _names.stems(joined).values():
            (self._path / stem).mkdir()
        return [
            Task(newest, self._path, {name: plans[rank] for name, (plans, _) in joined.items()})
            for rank in range(len(offers))
        ]

    # step 2

    def _write_part(self, content: Content, task: Task) -> Wrote:
        assert task.path is not None
        stored = {}
        written = []
        stems = _names.stems(content.parts)
        rank, _ = ranks()
        for name, part in content.parts.items():
            file = f"__{rank}_0.distcp"
            with _save.named(name, part.values):
                parts, stored[name] = part.parts(task.plans[name], file)
                if parts:
                    files.write(task.path / stems[name] / file, parts, durable=self._flush)
                    written.append(f"{stems[name]}/{file}")
        if content.random is not None:
            written.append(_random.file_of(rank))
            _api.save(content.random, task.path / written[-1], durable=False)
        return Wrote(stored, {file: FileFacts.of(task.path / file) for file in written})

    @property
    def _flush(self) -> files.Durable:
        # Rank 0 may be on another machine, where it cannot flush what this one has cached.
        return "rename" if self._durable else "none"

    def _complete(self, own: _save.Content, wrote: list[Wrote], meter: Meter) -> list[None]:
        from statedict.torch import dump_metadata

        assert self._path is not None
        stems = _names.stems(self._metadata)
        facts = {file: known for each in wrote for file, known in each.facts.items()}
        for name, metadata in self._metadata.items():
            block = dump_metadata(metadata, [place for each in wrote for place in each.stored[name]])
            file = self._path / stems[name] / ".metadata"
            files.write(file, [files.Frame(len(block), lambda block=block: block)], durable="none")  # type: ignore[misc]
        with _changes.translated(self._directory):
            _save.complete(self._directory, self._path, own, _save.Others(stems, facts), meter, durable=self._durable)
        self._follow_up(own.step)
        return [None] * len(wrote)


def _require_same(offers: Sequence[Offer]) -> None:
    first = offers[0]
    for rank, offer in enumerate(offers):
        if offer.step != first.step or offer.plans.keys() != first.plans.keys():
            one, other = (f"step {each.step} with {', '.join(each.plans) or 'no objects'}" for each in (first, offer))
            raise SaveError(
                f"rank 0 saves {one}, and rank {rank} {other}: every rank must make the same saves, of the same objects"
            )
