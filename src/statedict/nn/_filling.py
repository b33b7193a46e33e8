"""Fill parameters and buffers from a state: decide about each, then write. Error texts are PyTorch's.

Values may be arrays of any library, or leaves that have not been read. Leaves are read after all decisions and before
anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from statedict.state import (
    Leaf,
    cast_array,
    cast_kind,
    contiguous,
    leaf_of,
    library,
    materialize,
    read_array,
    value_range,
)
from statedict.tree import Cast, Fit, Rules, Slots, differing_ties, lossy, not_a_tensor, wrong_size

from . import _arrays
from ._arrivals import arrivals, arrive
from ._parameter import Buffer, Parameter
from ._variable import Variable, is_array, raw


class _MisfitError(Exception):
    """A value does not fit; the text says why. Caught for each parameter and buffer in turn."""


def fit_exact(slots: Slots) -> Fit:
    """Return a Fit whose `act` fills the slots one by one; each slot that cannot be filled gives a line of text."""
    failed: set[int] = set()

    def act() -> list[str]:
        texts = []
        for index in range(len(slots.keys)):
            try:
                value = _read_all([_checked(slots, index)], verify=True)[0]
                _place(slots, index, value) if slots.assign else _write(slots, index, value)
            except _MisfitError as misfit:
                failed.add(index)
                texts.append(str(misfit))
        return texts

    return Fit(act, failed=failed)


def fit_sound(slots: Slots, rules: Rules) -> Fit:
    """Return a Fit that has changed nothing yet; its `act` fills all remaining slots, or raises and changes nothing."""
    values: dict[int, Any] = {}

    def act() -> Sequence[str]:
        indices = [index for index in values if index not in fit.failed]
        arriving = {} if slots.assign else arrivals((i, slots.keys[i], slots.current[i], values[i]) for i in indices)
        rest = [index for index in indices if index not in arriving]
        arrays = _read_all([values[index] for index in rest], verify=rules.verify)
        if not slots.assign:
            arrays = _apart(arrays, slots.current)
        arrive(arriving.values(), verify=rules.verify)
        for index, array in zip(rest, arrays):
            _place(slots, index, array) if slots.assign else _write(slots, index, array)
        return ()

    fit = Fit(act)
    for index, key in enumerate(slots.keys):
        try:
            value = _checked(slots, index)
            if not slots.assign:
                _judge_cast(key, slots.current[index], value, rules, fit)
            _check_tie(slots, index, value)
            values[index] = value
        except _MisfitError as misfit:
            fit.refuse({index: str(misfit)})
    return fit


def _checked(slots: Slots, index: int) -> Any:
    """Return the value as an array or a Leaf of the right shape; raises _MisfitError."""
    key, current, value = slots.keys[index], slots.current[index], raw(slots.values[index])
    if isinstance(raw(current), np.ndarray) and is_array(value) and not isinstance(value, np.ndarray):
        # An array of another library is read in place.
        found_leaf = leaf_of(value)
        value = read_array(found_leaf) if isinstance(found_leaf, Leaf) else found_leaf
    if not isinstance(value, Leaf) and (not is_array(value) or leaf_of(value) is None):
        raise _MisfitError(not_a_tensor(key, slots.values[index]))
    if not slots.assign and not isinstance(current, Variable) and not _arrays.is_writable(current):
        raise _MisfitError(
            f'While copying the parameter named "{key}", its array is not writable ({type(current).__name__}). '
            "Register it as a Buffer, whose array can be replaced, or load with assign=True."
        )
    found, wanted = _shape(value), tuple(raw(current).shape)
    if wanted == () and found == (1,):
        # PyTorch 0.3 saved scalars as vectors of one element.
        return _first(value)
    if found != wanted:
        raise _MisfitError(wrong_size(key, _size(found), _size(wanted)))
    return value


def _judge_cast(key: str, current: Any, value: Any, rules: Rules, fit: Fit) -> None:
    found = value.spec.dtype if isinstance(value, Leaf) else _arrays.dtype_of(value.dtype)
    wanted = _arrays.dtype_of(raw(current).dtype)
    kind = cast_kind(found, wanted, lambda: value_range(_as_numpy(value), found))
    if kind is None:
        return
    cast = Cast(key, found.name, wanted.name, kind)
    fit.casts.append(cast)
    if kind in rules.refused:
        raise _MisfitError(lossy(cast))


def _check_tie(slots: Slots, index: int, value: Any) -> None:
    """Refuse two different values for one tied parameter. `slots.ties` lasts for the whole load."""
    current = slots.current[index]
    key, theirs = slots.ties.setdefault(("value", id(current)), (slots.keys[index], value))
    if key != slots.keys[index] and not _same(theirs, value):
        raise _MisfitError(differing_ties(key, slots.keys[index]))


def _same(a: Any, b: Any) -> bool:
    if a is b or (isinstance(a, Leaf) and isinstance(b, Leaf) and a.identity == b.identity):
        return True
    one, two = _as_numpy(a), _as_numpy(b)
    # Compare bits, so that NaN equals itself.
    return bool(one.dtype == two.dtype and one.tobytes() == two.tobytes())


def _read_all(values: list[Any], *, verify: bool) -> list[Any]:
    leaves = [value for value in values if isinstance(value, Leaf)]
    if not leaves:
        return values
    arrays = iter(materialize(leaves, library("numpy"), verify=verify))
    return [next(arrays) if isinstance(value, Leaf) else value for value in values]


def _apart(arrays: list[Any], places: list[Any]) -> list[Any]:
    """Return the arrays; those that share memory with the model are copied, because that memory is about to be written."""
    targets = {_address(raw(place)) for place in places} - {0}
    return [array.copy() if _address(array) in targets else array for array in arrays]


def _address(array: Any) -> int:
    if not isinstance(array, np.ndarray) or not array.size:
        return 0
    while isinstance(array.base, np.ndarray):
        array = array.base
    return int(array.ctypes.data)


def _write(slots: Slots, index: int, value: Any) -> None:
    """Copy the elements into the registered array; an array that is not writable is replaced."""
    current = slots.current[index]
    array = raw(current)
    value = _like(array, value)
    if type(array) is np.ndarray and array.flags.writeable:
        np.copyto(array, value if value.dtype == array.dtype else cast_array(value, _arrays.dtype_of(array.dtype)))
        return
    value = _arrays.cast(value, _arrays.dtype_of(array.dtype))
    if _arrays.is_writable(array):
        _arrays.put(array, value)
    else:
        current.data = value


def _place(slots: Slots, index: int, value: Any) -> None:
    """Register the array itself, as the same kind: a Parameter with its requires_grad, a Buffer, or a plain array."""
    current, (module, name) = slots.current[index], slots.places[index]
    # One shared object remains one object.
    new = slots.ties.get(("placed", id(current)))
    if new is None:
        new = value
        if isinstance(current, Parameter):
            new = Parameter(value, current.requires_grad)
        elif isinstance(current, Buffer):
            new = Buffer(value, persistent=current.persistent)
        slots.ties["placed", id(current)] = new
    setattr(module, name, new)


def as_own(array: Any, value: Any) -> Any:
    """Return the value (an array of any library, or a leaf) as a new array of the library and device of `array`."""
    return _arrays.asarray(array, _as_numpy(value).copy())


def _like(array: Any, value: Any) -> Any:
    """Return the value as an array of the library and device of `array`."""
    if type(array) is np.ndarray:
        return _as_numpy(value)
    if type(array) is type(value):
        return value
    return _arrays.asarray(array, _as_numpy(value))


def _as_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    found = leaf_of(value)
    return read_array(found) if isinstance(found, Leaf) else _arrays.as_numpy(value)


def _shape(value: Any) -> tuple[int, ...]:
    return value.spec.shape if isinstance(value, Leaf) else tuple(value.shape)


def _size(shape: tuple[int, ...]) -> str:
    return f"torch.Size({list(shape)})"


def _first(value: Any) -> Any:
    if isinstance(value, Leaf):
        return Leaf(contiguous(value.spec.dtype, (), value.spec.offset), value.storage, value.traits)
    return _arrays.namespace(value).reshape(value, ())
