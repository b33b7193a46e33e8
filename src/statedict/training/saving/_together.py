"""A save of several ranks: each writes its part, and rank 0 completes the checkpoint in one step.

*Theory of operation.* Every rank runs the same job, in its background thread or in the caller's. They meet twice, over
connections of their own (RankConnections), never over those of the training:

1. Each rank says which save it is about to write, and which items it has (Offer). Rank 0 locks the run, begins a draft, and
   replies who writes what (Task). Each rank then writes its items.
2. Each rank says where its items are, and the checksums of its files (Wrote). Rank 0 then writes what only it has, the
   metadata and the manifest, and finishes the draft, which makes the checkpoint visible in one step.

If a rank fails, or its process ends, all ranks raise, and nothing is left behind. An error that occurs before the job, while
the state is copied, is passed to the other ranks in step 1.

An asynchronous save, of which only values have changed since an earlier one, uses the items of that save again (Agreement):
if all ranks offer to use the same, nothing is planned; if some do not, all offer their items.

With `busy="replace"`, some ranks may have replaced a waiting save by a newer one, and others not yet. Saves are numbered,
and in step 1 the newest number wins: a rank with an older one drops it, and joins with its next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict import files
from statedict.errors import AfterSaveError, SaveError
from statedict.formats.runs import FileFacts

from .. import _names, _random
from .._progress import Meter
from .._run import Draft, TrainingRun
from . import _frozen, _save
from ._frozen import Donor

if TYPE_CHECKING:
    from statedict.torch import RankConnections, RankPart, RankState, Stored


# PyTorch's SavePlan and Metadata, and the groups of an optimizer and their names, which only `statedict.torch` knows.
Plan = Any
Groups = Any
GroupNames = Any
Metadata = Any


class Agreement(NamedTuple):
    """The items that the ranks have agreed to write.

    Attributes:
        group, number: the ranks, and the number of their save.
        plans: the items of each object that this rank writes.
        names: of the parameters of each optimizer, by group, if the ranks have different ones.
        metadata: of each object, without the places of its items. Only rank 0 has it.
    """

    group: RankConnections
    number: int
    plans: Mapping[str, Plan]
    names: Mapping[str, GroupNames]
    metadata: Mapping[str, Metadata]


@dataclass(slots=True)
class RankParts:
    """This rank's part of each object, to be written; `agreed`: the agreement of the ranks about these parts, or None."""

    by_object: Mapping[str, RankPart] = field(default_factory=dict)
    agreed: Agreement | None = None


def part_of(state: RankState, before: RankPart | None = None, *, has_same_form: bool = False) -> RankPart:
    """The part of a state: `before`, if it fits. `has_same_form`: the trees of both have the same form."""
    from statedict.torch import RankPart

    if before is not None and has_same_form and before.fits(state):
        return before
    return RankPart(state, None if before is None else before.made)


@dataclass(frozen=True, slots=True)
class RankContent:
    """The content that this rank saves.

    Attributes:
        own: the content that rank 0 writes alone; only its step matters on the other ranks.
        states: object name → this rank's part of its state.
        parts: the same, to be written.
        random: the state of this rank's random generators, or None.
        differing: object name → this rank's state of an object that differs by rank; rank 0 merges those of all.
    """

    own: _save.Content
    states: Mapping[str, RankState]
    parts: RankParts
    random: dict[str, Any] | None
    differing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def uncopied(self) -> RankContent:
        """The content with parts that write the live states."""
        return replace(self, parts=RankParts({name: part_of(state) for name, state in self.states.items()}))


class Offer(NamedTuple):
    """A rank's description of the save that it begins, for rank 0.

    Attributes:
        number, step: of the save.
        agreed: the number of the earlier save whose items it can use again, or None.
        plans: the items of each object; None if they are those of that save.
        copies: the names of values in each object of which every rank has its own.
        groups: the parameter groups of each optimizer; of that save, of those that differ by rank: options may have changed.
        has_frozen: whether some of them are not trained.
    """

    number: int
    step: int
    agreed: int | None
    plans: Mapping[str, Plan]
    copies: Mapping[str, frozenset[str]]
    groups: Mapping[str, Groups]
    has_frozen: bool


class Task(NamedTuple):
    """Rank 0's answer to an Offer: the items that the rank writes into the draft `key`.

    The other fields are empty if `newest` is another save, or if all ranks must offer their items.

    `plans` are the items of each object; None if they are those of the save that all have offered to use again. `names` are
    those of the Agreement. `donor` is the checkpoint whose frozen files can be shared.
    """

    newest: int
    key: str = ""
    plans: Mapping[str, Plan] | None = None
    names: Mapping[str, GroupNames] | None = None
    donor: Donor = Donor()


class Wrote(NamedTuple):
    """A rank's result: the items and files that it has written.

    Attributes:
        stored: the places of the items of each object.
        facts: the facts of each file.
        shards: the digests of the frozen files, as in the Manifest.
        differing: as in RankContent.
    """

    stored: Mapping[str, Sequence[Stored]]
    facts: Mapping[str, FileFacts]
    shards: Mapping[str, Mapping[str, str]]
    differing: Mapping[str, Mapping[str, Any]]


class SaveOfRanks:
    """One save, as each rank runs it.

    `hold` locks the run's directory, and `follow_up` deletes older checkpoints and calls `after_save`; rank 0 calls them.
    """

    def __init__(
        self, run: TrainingRun, group: RankConnections, number: int, *, durable: bool,
        hold: Callable[[], object], follow_up: Callable[[int], object],
    ) -> None:  # fmt: skip
        self._run = run
        self._group = group
        self._number = number
        self._durable = durable
        self._hold = hold
        self._follow_up = follow_up
        # Rank 0 only: the draft that it has begun, and the metadata of each object.
        self._begun: Draft | None = None
        self._metadata: Mapping[str, Metadata] = {}

    def fail(self, error: BaseException) -> None:
        """Called instead of `write`: tell the other ranks that this one has failed; raises the error."""
        self._group.agree(error)

    def write(self, content: RankContent, meter: Meter) -> bool:
        """Write the checkpoint; return False if other ranks have a newer save instead.

        Raises this rank's error, RankError if another rank has failed. AfterSaveError: the checkpoint is complete.
        """
        try:
            task = self._begin(content)
            if not task.key:
                return False
            draft = self._begun or self._run.draft(task.key, durable=self._durable)
            agreed = self._agreement(content.parts, task)
            self._agree(
                lambda: self._write_part(draft, content, agreed, task.donor),
                lambda wrote: self._complete(draft, content.own, agreed.metadata, wrote, meter),
            )
        except AfterSaveError:
            raise
        except BaseException:
            if self._begun is not None:
                with suppress(OSError):
                    self._begun.abandon()
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

    def _begin(self, content: RankContent) -> Task:
        parts = content.parts
        if parts.agreed is not None and parts.agreed.group is not self._group:
            parts.agreed = None
        decide = partial(self._decided, parts)
        task: Task = self._agree(lambda: self._offer(content), decide)
        while not task.key and task.newest == self._number:
            # The others are about to join with it, or cannot use the same items again.
            parts.agreed = None
            task = self._agree(lambda: self._offer(content), decide)
        return task

    def _offer(self, content: RankContent) -> Offer:
        parts, agreed = content.parts.by_object, content.parts.agreed
        plans = {name: part.plan() if agreed is None else None for name, part in parts.items()}
        copies = {name: part.copies for name, part in parts.items() if agreed is None}
        groups = {name: part.groups for name, part in parts.items() if agreed is None or name in agreed.names}
        has_frozen = any(part.frozen for part in parts.values())
        number = None if agreed is None else agreed.number
        return Offer(self._number, content.own.step, number, plans, copies, groups, has_frozen)

    def _decided(self, parts: RankParts, offers: list[Offer]) -> list[Task]:
        newest = max(offer.number for offer in offers)
        if any(offer.number != newest for offer in offers):
            return [Task(newest)] * len(offers)
        _require_same(offers)
        if len({offer.agreed for offer in offers}) > 1:
            return [Task(newest)] * len(offers)
        plans = [None] * len(offers) if parts.agreed else self._planned(offers)
        names = _names_of_groups([offer.groups for offer in offers])
        self._hold()
        with self._run.translated():
            # Retry the deletions that failed in an earlier save.
            self._run.tidy()
            self._begun = self._run.begin(offers[0].step, durable=self._durable)
            donor = _save.donor_of(self._run) if any(offer.has_frozen for offer in offers) else Donor()
        return [Task(newest, self._begun.key, of_rank, names, donor) for of_rank in plans]

    def _planned(self, offers: list[Offer]) -> list[dict[str, Plan]]:
        """Plan what each rank writes."""
        from statedict.torch import join_plans

        joined = {
            name: join_plans([offer.plans[name] for offer in offers], [offer.copies[name] for offer in offers])
            for name in offers[0].plans
        }
        self._metadata = {name: metadata for name, (_, metadata) in joined.items()}
        return [{name: plans[rank] for name, (plans, _) in joined.items()} for rank in range(len(offers))]

    def _agreement(self, parts: RankParts, task: Task) -> Agreement:
        if task.plans is not None:
            parts.agreed = Agreement(self._group, self._number, task.plans, task.names or {}, self._metadata)
        assert parts.agreed is not None, "all ranks have offered to use it"
        return parts.agreed

    # step 2

    def _write_part(self, draft: Draft, content: RankContent, agreed: Agreement, donor: Donor) -> Wrote:
        plans, rank = agreed.plans, self._group.rank
        stems = _names.stems(plans)
        stored: dict[str, list[Stored]] = {name: [] for name in plans}
        shards: dict[str, dict[str, str]] = {}
        for name, part in content.parts.by_object.items():
            with _save.named(name, part.tree):
                made = part.files(plans[name], rank, _frozen.WORTH_SHARING, agreed.names.get(name))
            for file in made:
                stored[name] += file.stored
                target = f"{stems[name]}/{file.name}"
                if file.is_frozen:
                    digest = shards.setdefault(name, {})[target] = _frozen.digest_of(file)
                    if _frozen.share(donor, digest, draft, target):
                        continue
                draft.write(target, file.parts)
        if content.random is not None:
            _save.write_state(content.random, draft, _random.file_of(rank))
        return Wrote(stored, draft.uploaded, shards, content.differing)

    def _complete(
        self, draft: Draft, own: _save.Content, metadata: Mapping[str, Metadata], wrote: list[Wrote], meter: Meter
    ) -> list[None]:
        from statedict.torch import METADATA, dump_metadata

        stems = _names.stems(metadata)
        with self._run.translated():
            for name, of_object in metadata.items():
                block = dump_metadata(of_object, [place for each in wrote for place in each.stored[name]])
                draft.write(f"{stems[name]}/{METADATA}", [files.Frame(len(block), partial(bytes, block))])
            others = _save.Others(stems, [each.facts for each in wrote], _merged([each.shards for each in wrote]))
            own = replace(own, states={**own.states, **_merged([each.differing for each in wrote])})
            _save.complete(self._run, draft, own, others, meter)
        self._follow_up(own.step)
        return [None] * len(wrote)


def _merged(of_ranks: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Merge mappings by name; those of a name have different keys on each rank."""
    found: dict[str, dict[str, Any]] = {}
    for of_rank in of_ranks:
        for name, entries in of_rank.items():
            found.setdefault(name, {}).update(entries)
    return found


def _names_of_groups(of_ranks: Sequence[Mapping[str, Groups]]) -> dict[str, GroupNames]:
    """Return the names of the parameters of each optimizer, by group, if the ranks have different ones."""
    from statedict.torch import join_groups

    joined = {name: join_groups([groups[name] for groups in of_ranks]) for name in of_ranks[0]}
    return {name: names for name, names in joined.items() if names is not None}


def _require_same(offers: Sequence[Offer]) -> None:
    first = offers[0]
    for rank, offer in enumerate(offers):
        if offer.step != first.step or offer.plans.keys() != first.plans.keys():
            one, other = (f"step {each.step} with {', '.join(each.plans) or 'no objects'}" for each in (first, offer))
            raise SaveError(
                f"rank 0 saves {one}, and rank {rank} {other}: every rank must make the same saves, of the same objects"
            )
