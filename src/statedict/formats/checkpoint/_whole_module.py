"""The state of a module that was pickled whole. Its classes are not available, but its attributes are.

`torch.save(model)` writes each module as the name of its class and its `__dict__`, which contains what PyTorch's
`state_dict` needs: `_parameters`, `_buffers`, `_non_persistent_buffers_set` and `_modules`. Versions are attributes of
the classes, which are not in the file; those of PyTorch's own classes are listed here by name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from statedict.state import Compound, Leaf, Opaque, StateDict, leaf_of

from ...errors import FormatError

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
