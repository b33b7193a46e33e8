"""Find roots: the state dicts in the content of a file, each with its path.

A *root* is one of:

- a mapping with string keys in which at least half of the values are tensors and no value is a state itself (except the
  extra state of a module), or which has the `_metadata` of PyTorch's `state_dict`; it may be of an unknown class, as far
  as the file lists its items;
- a module that was saved whole;
- an optimizer state: a mapping with `state` and `param_groups`;
- an empty mapping that is the file itself.

Paths join the keys with `/`; `""` is the file itself. The search does not descend into a root.

`_choose_root` decides which root a caller's `root=` selects.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from statedict.state import Compound, Leaf, Opaque, StateDict, leaf_of, library_of, raw_values

from ...errors import FormatError
from .._pickle import Pair
from ..storages._describe import step_of

T = TypeVar("T")

# What a module's `get_extra_state` returned, in the module's state.
EXTRA_STATE = "_extra_state"
# The parts of a checkpoint are within a few levels; deeper trees are user data.
DEEPEST = 6


def find_roots(tree: Any) -> dict[str, StateDict]:
    """Return every root of a tree by its path, in order.

    >>> weights = {"0.weight": np.ones(2), "0.bias": np.ones(1)}
    >>> list(find_roots({"epoch": 3, "model": weights, "ema": {"state_dict": weights}}))
    ['model', 'ema/state_dict']
    """
    if isinstance(tree, Mapping) and not tree and not isinstance(tree, StateDict):
        return {"": StateDict()}
    roots: dict[str, StateDict] = {}
    for path, state in search(tree, _as_root):
        roots.setdefault(path, state)
    return roots


def is_optimizer(state: Any) -> bool:
    """Return whether a root, or a candidate for one, is an optimizer state."""
    return isinstance(state, Mapping) and "param_groups" in state


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor of any library, loaded or not."""
    return isinstance(value, (Leaf, Compound)) or library_of(value) is not None


def search(tree: Any, found: Callable[[Any], T | None]) -> Iterator[tuple[str, T]]:
    """Yield (path, `found(part)`) for each part of a tree for which `found` returns a value; do not descend into those
    parts.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        made = found(value)
        if made is not None:
            yield "/".join(path), made
        elif id(value) not in seen and len(path) < DEEPEST:
            inside = parts(value)
            if inside:
                seen.add(id(value))
            waiting.extend(((*path, key), part) for key, part in reversed(inside))


def _as_root(value: Any) -> StateDict | None:
    if isinstance(value, StateDict):
        return value
    if is_module(value):
        return state_of_module(value)
    mapping = _mapping(value)
    if mapping is None or not is_state(value):
        return None
    if _is_optimizer(mapping):
        return _flat(mapping)
    metadata = _metadata(value)
    kinds = {type(part) for part in _of_each_type(mapping) if not is_tensor(part)}
    others = (part for name, part in mapping.items() if type(part) in kinds and name.rpartition(".")[2] != EXTRA_STATE)
    if metadata is None and kinds and any(map(holds_state, others)):
        return None
    # The keys are known to be strings.
    return StateDict.adopt(dict(mapping), None if metadata is None else OrderedDict(metadata))


def is_state(value: Any) -> bool:
    """Return whether a value is a state, judged by its direct items."""
    mapping = _mapping(value)
    if mapping is None:
        return False
    if _is_optimizer(mapping):
        return True
    if _metadata(value) is not None:
        return True
    kinds = set(map(type, mapping.values()))
    if kinds == {Leaf}:
        return True
    counts = Counter(map(type, mapping.values()))
    return 0 < len(mapping) <= 2 * sum(counts[type(part)] for part in _of_each_type(mapping) if is_tensor(part))


def _is_optimizer(mapping: Mapping[str, Any]) -> bool:
    return "state" in mapping and "param_groups" in mapping


def _of_each_type(mapping: Mapping[str, Any]) -> list[Any]:
    """Return one value of each type: calling `is_tensor` on every value of a large state is slow."""
    if len(set(map(type, mapping.values()))) == 1:
        return [next(iter(mapping.values()))]
    return list({type(part): part for part in mapping.values()}.values())


def holds_state(value: Any) -> bool:
    """Return whether a value next to tensors is a root itself, so that their container is not: `{"model": …, "loss":
    …}`.
    """
    if is_tensor(value):
        return False
    return is_module(value) or is_state(value)


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """Return the mapping with string keys that a value is, or the items of an instance of an unknown class; else None."""
    if isinstance(value, Opaque):
        pairs = [item for item in value.items if type(item) is Pair]
        return {pair.key: pair.value for pair in pairs} if pairs and all(type(p.key) is str for p in pairs) else None
    if not isinstance(value, Mapping):
        return None
    # Each pass over an OrderedDict takes three times as long as over a dict.
    value = dict(value) if type(value) is OrderedDict else value
    return value if {str}.issuperset(map(type, value)) or all(isinstance(key, str) for key in value) else None


def _metadata(value: Any) -> Mapping[str, Any] | None:
    found = value.attributes().get("_metadata") if isinstance(value, Opaque) else getattr(value, "_metadata", None)
    return found if isinstance(found, Mapping) else None


def _flat(optimizer: Mapping[str, Any]) -> StateDict:
    """Return an optimizer state with its tensors under dotted names: `state.0.exp_avg`."""
    values: dict[str, Any] = {}
    state = optimizer["state"]
    for number, entry in state.items() if isinstance(state, Mapping) else ():
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            values[f"state.{number}.{name}"] = value
    values["param_groups"] = optimizer["param_groups"]
    return StateDict(values)


def parts(value: Any) -> list[tuple[str, Any]]:
    """Return the direct parts of a value, each with its path step; parts without a plain key are left out."""
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        pairs = list(raw_values(value).items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    elif isinstance(value, Opaque):
        items = [item if type(item) is Pair else Pair(index, item) for index, item in enumerate(value.items)]
        pairs = [*value.attributes().items(), *list(enumerate(value.args or ())), *value.kwargs.items(), *items]
    else:
        return []
    return [(step_of(key), part) for key, part in pairs if _is_plain(key)]


def _is_plain(key: Any) -> bool:
    """Return whether a key can be written as text; a parameter used as a key of an optimizer state cannot."""
    return key is None or isinstance(key, (str, int, float, bytes)) or (type(key) is tuple and all(map(_is_plain, key)))


# PyTorch writes version 1 for a class that does not set one; these classes set another (torch 2.13). By class name.
_NORMS = ("BatchNorm", "InstanceNorm", "LazyBatchNorm", "LazyInstanceNorm")
VERSIONS = {"SyncBatchNorm": 2, **{f"{norm}{n}d": 2 for norm in _NORMS for n in (1, 2, 3)}}
# Quantised modules, where different classes share a name: by module below `torch.ao` (formerly `torch`).
QUANTIZED: dict[str, tuple[int, str]] = {
    "nn.quantized.modules.batchnorm": (2, "BatchNorm2d BatchNorm3d"),
    "nn.quantized.modules.normalization": (2, "InstanceNorm1d InstanceNorm2d InstanceNorm3d"),
    "nn.quantized.modules.linear": (3, "Linear LinearPackedParams"),
    "nn.quantized.dynamic.modules.rnn": (2, "RNNBase LSTM GRU"),
    "nn.quantized.dynamic.modules.linear": (4, "Linear"),
    "nn.intrinsic.quantized.modules.bn_relu": (2, "BNReLU2d BNReLU3d"),
    "nn.intrinsic.quantized.modules.linear_relu": (3, "LinearReLU LinearLeakyReLU LinearTanh"),
    "nn.intrinsic.quantized.dynamic.modules.linear_relu": (4, "LinearReLU"),
    "nn.intrinsic.qat.modules.conv_fused": (
        2,
        "ConvBn1d ConvBn2d ConvBn3d ConvBnReLU1d ConvBnReLU2d ConvBnReLU3d",
    ),
    "quantization.observer": (
        3,
        "MinMaxObserver MovingAverageMinMaxObserver PerChannelMinMaxObserver MovingAveragePerChannelMinMaxObserver "
        "HistogramObserver",
    ),
}

# Sixty modules, each contained twice in the next, have 2**60 paths. Real models share a module a few times.
PLACES, TIMES = 1_000, 100


def is_module(value: object) -> bool:
    """Return whether an inert value is a module: it has the three dicts that every module has."""
    if not isinstance(value, Opaque) or value.args is None:
        return False
    attributes = value.attributes()
    return all(isinstance(attributes.get(store), Mapping) for store in ("_parameters", "_buffers", "_modules"))


def state_of_module(module: Opaque) -> StateDict:
    """Return the StateDict of a whole module: names, order and values as its `state_dict` would return them.

    A module used in several places is visited in each, as in PyTorch; one that contains itself is visited once. Old
    pickles, in which every buffer is persistent, are supported. Raises FormatError if the number of visits explodes.
    """
    values: dict[str, Any] = {}
    metadata: OrderedDict[str, Any] = OrderedDict()
    waiting: list[tuple[str, Opaque, frozenset[int]]] = [("", module, frozenset())]
    seen: set[int] = set()
    places = 0
    while waiting:
        prefix, current, above = waiting.pop()
        seen.add(id(current))
        places += 1
        if places > PLACES + TIMES * len(seen):
            raise FormatError(f"{len(seen):,} modules are nested in each other in more than {places - 1:,} places")
        attributes = current.attributes()
        metadata[prefix[:-1]] = {"version": version_of(current)}
        for name, value in _own(attributes):
            values[f"{prefix}{name}"] = value
        inside = above | {id(current)}
        children = [
            (f"{prefix}{name}.", child, inside)
            for name, child in attributes["_modules"].items()
            if is_module(child) and id(child) not in inside
        ]
        waiting.extend(reversed(children))
    return StateDict(values, metadata)


def version_of(module: Opaque) -> int:
    """Return the version for `_metadata`: the module's own `_version`, or that of its class if known."""
    own = module.attributes().get("_version")
    if isinstance(own, int):
        return own
    if module.module.startswith(("torch.nn.modules.", "statedict.nn.")):
        return VERSIONS.get(module.name, 1)
    version, names = QUANTIZED.get(module.module.removeprefix("torch.").removeprefix("ao."), (1, ""))
    return version if module.name in names.split() else 1


def _own(attributes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a module's own parameters and persistent buffers, without those that are None."""
    hidden = attributes.get("_non_persistent_buffers_set") or ()
    stores = [(n, registered_leaf(v)) for n, v in (*attributes["_parameters"].items(), *attributes["_buffers"].items())]
    skip = set(hidden) if isinstance(hidden, (set, frozenset, list, tuple)) else set()
    shown = skip & attributes["_parameters"].keys()
    return [(name, value) for name, value in stores if value is not None and (name not in skip or name in shown)]


def registered_leaf(value: object) -> Leaf | Compound | None:
    """Return the leaf of a registered value; in modules of `statedict.nn` it is an array, or a Parameter or Buffer of
    one.
    """
    if isinstance(value, Opaque) and value.module == "statedict.nn._parameter" and value.args:
        value = value.args[0]
    return leaf_of(value)
