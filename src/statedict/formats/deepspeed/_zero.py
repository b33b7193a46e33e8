"""Read the folder of one step that DeepSpeed's `save_checkpoint` wrote (`global_step500`), with ZeRO 0, 1, 2 or 3.

    mp_rank_00_model_states.pt                      the module, shapes and facts; with ZeRO 3 one for each rank,
    zero_pp_rank_0_mp_rank_00_model_states.pt       whose parameters are empty
    zero_pp_rank_0_mp_rank_00_optim_states.pt       the rank's part of the fp32 weights and of the optimizer (bf16_zero_…)
    layer_00-model_states.pt                        a layer of a pipeline, whose stages are the mp_ranks
    layer_0_expert_0_mp_rank_00_model_states.pt     an expert of a mixture of experts
    expp_rank_0_mp_rank_00_optim_states.pt          the optimizer of experts, without ZeRO

The roots are `model` (the fp32 weights), `module` (the weights that the model trains with), `optimizer`, and one for each
other value in the files (`lr_scheduler` becomes `scheduler`).

The files of several mp_ranks are stages of a pipeline, which are joined, if they have different parameters. Otherwise they
are slices for tensor parallelism, and nothing in the files says how to join these: each mp_rank is a root of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import Any, NamedTuple

from statedict.files import Folder
from statedict.state import Leaf

from ...errors import FormatError
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint
from ._files import EXPERT, EXPERT_OPTIMIZER, LAYER, MODEL, OPTIMIZER, DeepSpeedFiles
from ._model_states import ModelStates, model_states
from ._optimizer import joined_optimizers, optimizer
from ._partitions import Partition, read_partition
from ._places import Shape, places
from ._weights import weights

PATTERNS = (MODEL, OPTIMIZER, LAYER, EXPERT, EXPERT_OPTIMIZER)
# Prefix of the names of parameters that layers of a pipeline share.
TIED = "tied_modules."
EXPERTS = "experts have the weights that they train with: their fp32 weights and optimizer are not joined"


class MpRank(NamedTuple):
    """The content of the files of one mp_rank.

    Attributes:
        tree: its roots.
        names: the parameters that it has; those of a pipeline's stage without ZeRO are not known.
        missing: what is missing.
    """

    mp: str
    states: ModelStates
    tree: dict[str, Any]
    names: set[str]
    notes: list[str]
    missing: list[str]


def read_zero(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of the folder of one step."""
    names = [name for name in folder.files if any(pattern.fullmatch(name) for pattern in PATTERNS)]
    opened = DeepSpeedFiles(folder, names, limits)
    parts = [_read_mp_rank(opened, mp) for mp in opened.mp_ranks()]
    tree, notes = _tree(parts)
    for match, content in opened.matching(EXPERT_OPTIMIZER):
        tree[match["root"]] = content
    missing = [*_missing_mp_ranks(parts), *(text for part in parts for text in part.missing)]
    return opened.checkpoint(tree, [*notes, *(note for part in parts for note in part.notes)], missing)


def _missing_mp_ranks(parts: list[MpRank]) -> list[str]:
    count, found = parts[0].states.mp_world_size, {int(part.mp) for part in parts}
    if len(found) >= count:
        return []
    first = next(number for number in range(count) if number not in found)
    return [f"{count - len(found):,} of {count:,} mp_ranks are missing: there is no file of mp_rank_{first:02d}"]


def _tree(parts: list[MpRank]) -> tuple[dict[str, Any], list[str]]:
    """Return the tree of all mp_ranks, and notes on how they were joined."""
    if len(parts) == 1 and (parts[0].states.mp_world_size == 1 or not parts[0].states.has_module):
        return parts[0].tree, []
    names = [name for part in parts for name in part.names if not name.startswith(TIED)]
    if len(set(names)) == len(names) and len(parts) > 1:
        return _joined_stages(parts), [f"joined from {len(parts)} stages of a pipeline"]
    note = (
        "the mp_ranks have slices of the same parameters (tensor parallelism), and the files do not say how to join them: "
        "each is a root of its own; convert the checkpoint with DeepSpeed's ds_to_universal.py"
    )
    return {f"mp_rank_{part.mp}": part.tree for part in parts}, [note]


def _joined_stages(parts: list[MpRank]) -> dict[str, Any]:
    """Return the tree of a pipeline: each stage has its parameters in fp32, and the layers of all stages."""
    tree = dict(parts[0].tree)
    model = {name: value for part in parts for name, value in part.tree.get("model", {}).items()}
    module = tree.get("module", {})
    if model:
        # A layer that shares its parameters with another has a copy of them, which no parameter is named after.
        shared = any(name.startswith(TIED) for name in model)
        tree["model"] = model if shared else {**module, **model}
    optimizers = {part.states.path: part.tree["optimizer"] for part in parts if "optimizer" in part.tree}
    if optimizers and all(part.names for part in parts):
        tree["optimizer"] = joined_optimizers(optimizers)
    elif optimizers:
        tree["optimizer"] = {f"mp_rank_{part.mp}": part.tree.get("optimizer") for part in parts}
    return tree


def _read_mp_rank(opened: DeepSpeedFiles, mp: str) -> MpRank:
    """Return what the files of an mp_rank (a model-parallel rank) hold."""
    states = model_states(opened, mp)
    partitions, kind = _partitions(opened, mp)
    if partitions:
        return _with_zero(states, partitions, _missing(opened, partitions, states, kind, mp), mp)
    tree: dict[str, Any] = {}
    missing: list[str] = []
    if states.shapes() is not None:
        missing = [f"the fp32 weights and the optimizer are missing: there is no *_mp_rank_{mp}_optim_states.pt"]
        if states.module and not states.is_partitioned:
            tree["module"] = states.module
    else:
        tree["model"] = states.module
        if states.first.get("optimizer") is not None:
            tree["optimizer"] = states.first["optimizer"]
    names = set(states.module) if states.has_module else set()
    return MpRank(mp, states, {**tree, **states.facts, **tree}, names, [], missing)


def _with_zero(states: ModelStates, partitions: Mapping[int, Partition], missing: list[str], mp: str) -> MpRank:
    """Return what the files of an mp_rank hold, with the weights and the state of a ZeRO optimizer."""
    first, why = partitions[min(partitions)], "; ".join(missing)
    placed = places(_shapes(states, partitions), partitions)
    trained = {
        name: place.leaf(name, {rank: each.weights[place.group] for rank, each in partitions.items()}, first.file, why)
        for name, place in placed.items()
    }
    count = max(first.counts)
    tree: dict[str, Any] = {
        "model": weights(states, trained, states.frozen(count)),
        "optimizer": optimizer(placed, partitions, why),
    }
    if states.module and not states.is_partitioned:
        tree["module"] = states.module
    notes = [EXPERTS] if min(first.counts) < count else []
    return MpRank(mp, states, {**tree, **first.facts, **states.facts, **tree}, set(placed), notes, missing)


def _partitions(opened: DeepSpeedFiles, mp: str) -> tuple[dict[int, Partition], str]:
    """Return what the ranks have of the optimizer of an mp_rank, and how their files' names begin."""
    found: dict[int, Partition] = {}
    kind = "zero"
    for match, content in opened.matching(OPTIMIZER):
        if match["mp"] == mp:
            kind, rank = match["kind"], int(match["rank"])
            if rank in found:
                raise FormatError(
                    f"it and {found[rank].file} are of the same rank", file=opened.folder.path_of(match[0])
                )
            found[rank] = read_partition(content, opened.folder.path_of(match[0]))
    return found, kind


def _missing(
    opened: DeepSpeedFiles, partitions: Mapping[int, Partition], states: ModelStates, kind: str, mp: str
) -> list[str]:
    """Return texts that name the files of ranks which are missing."""
    count = max(partitions[min(partitions)].counts)
    expected = [(f"{kind}_pp_rank_{{}}_mp_rank_{mp}_optim_states.pt", partitions.keys())]
    if states.is_partitioned:
        expected.append((f"zero_pp_rank_{{}}_mp_rank_{mp}_model_states.pt", states.files.keys()))
    texts = []
    for name, found in expected:
        if len(found) < count:
            first = name.format(next(rank for rank in range(count) if rank not in found))
            why = "cannot be read" if first in opened.failed else "is missing"
            texts.append(
                f"{count - len(found):,} of the files of {count:,} ranks are missing or damaged: {first} {why}"
            )
    return texts


def _shapes(states: ModelStates, partitions: Mapping[int, Partition]) -> list[dict[str, Shape]]:
    """Return the shapes of the optimizer's parameters of each group.

    Without ZeRO, the optimizer for bfloat16 says how much of each parameter a rank has, and the module has the shapes.
    """
    shapes = states.shapes()
    if shapes is not None:
        return shapes
    every = [each.mappings for _, each in sorted(partitions.items())]
    found: list[dict[str, Shape]] = []
    for groups in zip(*(mappings or [] for mappings in every)):
        inside: dict[str, Shape] = {}
        for name in chain.from_iterable(groups):
            value = states.module.get(name)
            if not isinstance(value, Leaf):
                raise FormatError("its shape is not in any of the files", file=states.path, member=name)
            if len(partitions) == max(each.counts[0] for each in partitions.values()):
                numel = sum(mapping.get(name, 0) for mapping in groups)
                if numel != prod(value.spec.shape):
                    raise FormatError(f"the ranks have {numel:,} elements of it", file=states.path, member=name)
            inside[name] = value.spec.shape
        found.append(inside)
    return found
