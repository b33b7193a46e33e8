"""Call a module with other arrays than its own, so that it is a function of its parameters, for `jax.grad`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from statedict.errors import UnknownNameError
from statedict.state import nearest

from ._module import Module
from ._variable import Variable, raw


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Return `module(*args, **kwargs)`, computed with these arrays instead of its parameters and buffers.

    Args:
        parameter_and_buffer_dicts: names to arrays, or several such mappings, whose names must differ.
        args: a tuple of arguments, or a single argument that is not a tuple.
        tie_weights: an array given for one name of a tied parameter is used for all its names. Two different arrays
            raise ValueError.
        strict: raise RuntimeError unless every parameter and buffer is given.

    After the call the module has its own arrays again; given arrays, and traced arrays that the call stored in a Buffer, are
    removed. Buffers that were not given and that the call changes in place, such as BatchNorm's in training, stay changed,
    as in PyTorch. Do not call it from several threads with the same module.

        grads = jax.grad(lambda params: loss(functional_call(model, params, (x,)), y))(params)

    >>> layer = nn.Linear(2, 1)
    >>> parameters = {"weight": np.array([[1.0, 2.0]]), "bias": np.zeros(1)}
    >>> np.asarray(nn.functional_call(layer, parameters, np.ones((1, 2)))).tolist()
    [[3.0]]
    """
    given = _joined(parameter_and_buffer_dicts)
    places = _places(module)
    for name in given:
        if name not in places:
            raise UnknownNameError(name, among="the module", near=nearest(name, places, 3))
    if strict and len(given) < len(places):
        missing = [name for name in places if name not in given]
        raise RuntimeError(f"Missing key(s): {', '.join(map(repr, missing))}.")
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    restores = [_saved(*place) for place in places.values()]
    try:
        _put(given, places, tie_weights)
        return module(*arguments, **(kwargs or {}))
    finally:
        for restore in restores:
            restore()


Place = tuple[dict[str, Any], str]


def _joined(dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in [dicts] if isinstance(dicts, Mapping) else dicts:
        repeated = joined.keys() & part.keys()
        if repeated:
            raise ValueError(
                f"{sorted(repeated)[0]} appears in multiple dictionaries; behavior of functional call is ambiguous"
            )
        joined.update(part)
    return joined


def _places(module: Module) -> dict[str, Place]:
    """Return where each parameter and buffer is registered, under all its names."""
    places: dict[str, Place] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for store in (owner._parameters, owner._buffers):
            for name, member in store.items():
                if member is not None:
                    places[f"{path}.{name}" if path else name] = (store, name)
    return places


def _saved(store: dict[str, Any], name: str) -> Callable[[], None]:
    member = store[name]
    data = raw(member)

    def restore() -> None:
        store[name] = member
        if isinstance(member, Variable):
            member.data = data

    return restore


def _put(given: Mapping[str, Any], places: Mapping[str, Place], tie_weights: bool) -> None:
    taken: dict[int, tuple[str, Any]] = {}
    for name, array in given.items():
        store, key = places[name]
        member = store[key]
        if not isinstance(member, Variable):
            store[key] = raw(array)
        elif tie_weights:
            first, other = taken.setdefault(id(member), (name, array))
            if other is not array:
                raise ValueError(
                    f"functional_call got multiple values for keys [{first!r}, {name!r}], which are tied. Consider using "
                    "tie_weights=False"
                )
            member.data = raw(array)
        else:
            store[key] = member._holding(raw(array))
