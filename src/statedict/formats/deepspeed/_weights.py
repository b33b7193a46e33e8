"""The weights of a model: those that the optimizer has in fp32, buffers, frozen and shared parameters.

The names and values are those that DeepSpeed's `zero_to_fp32.py` gives. It leaves out what the optimizer does not have and
the file does not list: with ZeRO 1, frozen parameters. Here these are added as the file has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from statedict.state import Casts, Leaf, dtype

from ._model_states import ModelStates


def weights(states: ModelStates, trained: Mapping[str, Leaf], frozen: Mapping[str, Leaf]) -> OrderedDict[str, Any]:
    """Return the state dict of the model: `trained` parameters, which the optimizer has, and everything else.

    It has the order of the model's own state dict.
    """
    values: dict[str, Any] = {**_buffers(states), **frozen, **trained}
    shared = states.first.get("shared_params")
    for name, owner in shared.items() if isinstance(shared, dict) else ():
        if type(name) is str and type(owner) is str and owner in values:
            values[name] = values[owner]
    if states.has_module and not states.is_partitioned:
        values = {**{name: value for name, value in states.module.items() if name not in values}, **values}
    order = {name: number for number, name in enumerate(states.module)}
    state: OrderedDict[str, Any] = OrderedDict(sorted(values.items(), key=lambda item: order.get(item[0], len(order))))
    metadata = getattr(states.module, "_metadata", None)
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined]
    return state


def _buffers(states: ModelStates) -> dict[str, Any]:
    """Return the buffers, floating-point ones in fp32."""
    names = states.first.get("buffer_names")
    kept = [name for name in names if type(name) is str and name in states.module] if isinstance(names, list) else []
    casts, single = Casts(), dtype("float32")
    values = {name: states.module[name] for name in kept}
    return {
        name: casts.leaf(value, single) if isinstance(value, Leaf) and value.spec.dtype.kind == "float" else value
        for name, value in values.items()
    }
