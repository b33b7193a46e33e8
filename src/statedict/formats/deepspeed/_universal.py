"""Read a universal checkpoint, which DeepSpeed's `ds_to_universal.py` makes for any number of ranks.

    zero/NAME/fp32.pt                     a parameter: {"param": tensor, "cat_dim": 0}, or only a flat tensor (of ZeRO 3)
    zero/NAME/exp_avg.pt, …, step.pt      its optimizer state
    zero/optimizer_state.pt               the parameter groups and other facts
    mp_rank_00_model_states.pt            as in the checkpoint that it was made from, with the module or its shapes

The tensors that the optimizer does not have are also in `zero`, but in fp32 whatever their dtype: these are read from the
module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from math import prod
from typing import Any

from statedict.files import Folder
from statedict.state import Absent, Leaf

from ...errors import FormatError
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint
from ..storages._describe import shown
from ._files import MODEL, DeepSpeedFiles
from ._model_states import ModelStates, model_states
from ._optimizer import copied, named_groups
from ._partitions import BASE_3, STEP, facts_in, on_cpu, param_groups, reshaped, vector
from ._places import Shape
from ._weights import weights

ZERO, WEIGHTS, SUFFIX, PARAM = "zero", "fp32", ".pt", "param"
STATE = f"{ZERO}/optimizer_state.pt"
MOST_GROUPS = 1 << 31


def read_universal(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a universal checkpoint's folder.

    The files of weights are opened, because only they have the shapes; those of optimizer states when they are read.
    """
    inside = folder.folder(ZERO)
    files = {name: [file for file in inside.folder(name).files if file.endswith(SUFFIX)] for name in inside.folders}
    names = [_file(name, WEIGHTS) for name, each in files.items() if f"{WEIGHTS}{SUFFIX}" in each]
    opened = DeepSpeedFiles(folder, [*filter(MODEL.fullmatch, folder.files), STATE, *names], limits)
    every = [model_states(opened, mp) for mp in opened.mp_ranks()]
    states, groups = every[0], _joined_shapes(every)
    saved = opened.mapping(STATE) if STATE in opened.checkpoints else {}

    shapes = {name: shape for group in groups for name, shape in group.items()}
    own = {name for name, each in files.items() if len(each) > 1 or name not in states.module}
    trained = {name: _weights(opened, name, shapes.get(name)) for name in sorted({*own, *shapes})}
    state = {name: _entry(opened, name, files.get(name, ()), weight) for name, weight in trained.items()}
    for name, file in _lacking(groups, files):
        state[name][file.removesuffix(SUFFIX)] = Absent(name, folder.path_of(f"{ZERO}/{name}/{file}"))
    for number, group in enumerate(groups):
        for name in group:
            state[name].update(_steps(saved, number))
    listed = param_groups(saved, MOST_GROUPS, folder.path_of(STATE)) if saved else None
    tree: dict[str, Any] = {
        "model": weights(states, trained, states.frozen(len(states.files))),
        "optimizer": {
            "state": {name: entry for name, entry in state.items() if entry},
            "param_groups": named_groups(listed, [list(group) for group in groups]),
        },
    }
    if len(every) == 1 and states.has_module and not states.is_partitioned:
        tree["module"] = states.module
    leaves = [*trained.values(), *(value for entry in state.values() for value in entry.values())]
    missing = [f"{leaf.file} is missing or damaged" for leaf in leaves if isinstance(leaf, Absent)]
    return opened.checkpoint({**tree, **facts_in(saved), **states.facts, **tree}, [], missing)


def _joined_shapes(every: Iterable[ModelStates]) -> list[dict[str, Shape]]:
    """Return the shapes of the parameters of each group in all files, which may be of stages of a pipeline."""
    by_file = [states.shapes() or [] for states in every]
    return [
        {name: shape for group in groups for name, shape in group.items()}
        for groups in zip_longest(*by_file, fillvalue={})
    ]


def _lacking(groups: Iterable[Iterable[str]], files: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield the parameters without a file of the optimizer that others of their group have, and the file."""
    for group in groups:
        present = {name: {*files[name]} - {f"{WEIGHTS}{SUFFIX}"} for name in group if name in files}
        for name, own in present.items():
            yield from ((name, file) for file in sorted(set().union(*present.values()) - own))


def _file(name: str, key: str) -> str:
    return f"{ZERO}/{name}/{key}{SUFFIX}"


def _weights(opened: DeepSpeedFiles, name: str, shape: Shape | None) -> Leaf:
    """Return the weights of a parameter; if they are missing, a leaf that says so."""
    file = _file(name, WEIGHTS)
    return _tensor(opened, file, shape) if file in opened.checkpoints else Absent(name, opened.folder.path_of(file))


def _entry(opened: DeepSpeedFiles, name: str, files: Iterable[str], trained: Leaf) -> dict[str, Any]:
    """Return the optimizer's state of a parameter. Its tensors have the shape and dtype of the weights."""
    keys = [file.removesuffix(SUFFIX) for file in files if file != f"{WEIGHTS}{SUFFIX}"]
    if isinstance(trained, Absent):
        return {key: Absent(name, opened.folder.path_of(_file(name, key))) for key in keys}
    entry: dict[str, Any] = {}
    for key in keys:
        file, spec = _file(name, key), trained.spec
        if key == STEP:
            entry[key] = copied(opened.open(file).object)
        else:
            entry[key] = opened.later(file, spec, partial(_tensor, opened, file, spec.shape))
    return entry


def _tensor(opened: DeepSpeedFiles, file: str, shape: Shape | None) -> Leaf:
    """Return the tensor in a file; a flat one, which was made from ZeRO 3, gets the shape of the parameter."""
    content, path = opened.open(file).object, opened.folder.path_of(file)
    found = content.get(PARAM) if isinstance(content, dict) else content
    if not isinstance(found, Leaf):
        raise FormatError(f"expected the tensor of a parameter, found {shown(found)}", file=path)
    if found is not content or shape is None:
        return on_cpu(found)
    flat = vector(found, path, PARAM)
    if flat.spec.numel != prod(shape):
        raise FormatError(f"it has {flat.spec.numel:,} elements, but its shape is {list(shape)}", file=path)
    return reshaped(flat, 0, shape)


def _steps(saved: Mapping[Any, Any], group: int) -> dict[str, Any]:
    """Return the number of steps of a group; those made from ZeRO 3 have it with the optimizer of the first rank."""
    optimizer = saved.get(BASE_3)
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    entry = state.get(group) if isinstance(state, dict) else None
    return {STEP: copied(entry[STEP])} if isinstance(entry, dict) and STEP in entry else {}
