"""The policies for tensors of a different shape, by name.

    "error"        report a mismatch (the default)
    "skip"         keep the model's values
    "slice"        load the common part and keep the model's values for the rest: grown or shrunk vocabularies
    "interpolate"  resize position embeddings (`_interpolate`); or "bicubic", "bilinear", "linear"
    "channels"     convert the input channels of a first convolution: "sum" to one, "repeat" (rescaled) to several
    a function     `function(source, target) -> array`, on NumPy arrays; the result has the shape of `target`

A policy applies to all names, or a mapping gives one for each pattern, of which the first matching pattern is used. Only
tensors with a policy are adapted. `"interpolate"` for all names applies only to position embeddings, recognised by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import add
from typing import TYPE_CHECKING, Any, Literal

from statedict.state import Box, DType, Leaf, Spec, computed, region, whole_box

from ..names._select import by_pattern
from ._interpolate import interpolate
from ._step import Adaptation, Policy, working

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Function = Callable[..., Any]
PolicyName = Literal[
    "error", "skip", "slice", "interpolate", "bicubic", "bilinear", "linear", "channels", "sum", "repeat"
]
Mismatched = PolicyName | Policy | Function | Mapping[str, PolicyName | Policy | Function]


def chooser(mismatched: Mismatched) -> Callable[..., Policy]:
    """Return a function from a tensor's names to its policy; raises ValueError for an unknown policy."""
    if isinstance(mismatched, Mapping):
        choose: Callable[..., Policy | None] = by_pattern({pat: _policy(policy) for pat, policy in mismatched.items()})
        return lambda *names: choose(*names) or ERROR
    for_all = _policy(mismatched)
    meant = re.compile(for_all.blanket)
    return lambda *names: for_all if any(map(meant.search, names)) else ERROR


def _policy(given: str | Policy | Function) -> Policy:
    if isinstance(given, Policy):
        return given
    if isinstance(given, str) and given in POLICIES:
        return POLICIES[given]
    if not callable(given):
        known = ", ".join(map(repr, POLICIES))
        raise ValueError(f"mismatched={given!r} is not a policy; use one of {known}, or a function(source, target)")
    name = getattr(given, "__name__", "a function")
    return Policy(name, lambda source, target: _by_function(given, name, target))


def _by_function(function: Function, name: str, target: Spec) -> Adaptation:
    def called(source: Array, kept: Array) -> Array:
        import numpy as np

        return np.asarray(function(source, kept)).astype(target.dtype.numpy)

    return Adaptation(f"made by {name}", target.dense(), called, keeps=True)


def _slice(source: Spec, target: Spec) -> Adaptation | str:
    """Load the common part over the slot's own values."""
    if len(source.shape) != len(target.shape):
        return "'slice' needs the same number of dimensions"
    both = tuple(map(min, source.shape, target.shape))
    corner = tuple(slice(0, size) for size in both)
    if both == target.shape:
        text = f"the first {list(both)} of {list(source.shape)}"
        spec = target.dense()._replace(dtype=source.dtype)
        return Adaptation(text, spec, lambda array: array[corner], within=region)

    def over(array: Array, kept: Array) -> Array:
        return _replaced(array[corner], kept)

    def within(leaf: Leaf, kept: Leaf, box: Box) -> Leaf:
        return region(_overlaid(region(leaf, whole_box(both)), kept), box)

    text = f"{list(both)} of {list(target.shape)} loaded, the rest kept"
    return Adaptation(text, target.dense(), over, keeps=True, within=within)


def _overlaid(first: Leaf, kept: Leaf) -> Leaf:
    """Return `kept` with its first elements along each axis replaced by those of `first`."""

    def within(box: Box) -> Leaf:
        common = map(min, map(add, *box), first.spec.shape)
        starts = tuple(map(min, box.offsets, first.spec.shape))
        part = Box(starts, tuple(stop - start for start, stop in zip(starts, common)))
        return _overlaid(region(first, part), region(kept, box))

    return computed(kept.spec, [first, kept], _replaced, within=within)


def _replaced(array: Array, kept: Array) -> Array:
    whole = kept.copy()
    whole[tuple(slice(size) for size in array.shape)] = array
    return whole


def _channels(kind: str, summed: Callable[[int], bool]) -> Policy:
    """Return a policy for input channels; `summed` decides by the target's number of channels: sum, or repeat."""

    def decide(source: Spec, target: Spec) -> Adaptation | str:
        old, new = source.shape, target.shape
        if len(old) != len(new) or len(old) < 3 or old[:1] + old[2:] != new[:1] + new[2:] or not old[1] * new[1]:
            return f"{kind!r} is only for convolutions that differ in their input channels (dimension 1)"
        spec = target.dense()._replace(dtype=source.dtype)
        if not summed(new[1]):
            text = f"{old[1]} input channels repeated to {new[1]} and scaled by {old[1]}/{new[1]}"
            return Adaptation(text, spec, lambda array: _repeated(array, source.dtype, new[1]))
        if new[1] != 1:
            return f"'sum' gives one input channel, but the model has {new[1]}"
        return Adaptation(f"sum of {old[1]} input channels", spec, lambda array: _summed(array, source.dtype))

    return Policy(kind, decide)


def _summed(array: Array, dtype: DType) -> Array:
    summed: Array = array.astype(working(dtype)).sum(axis=1, keepdims=True)
    return summed.astype(dtype.numpy)


def _repeated(array: Array, dtype: DType, channels: int) -> Array:
    """Repeat the channels, rescaled so that an input repeated over all of them gives the same output as before."""
    import numpy as np

    old = array.shape[1]
    scaled: Array = np.take(array.astype(working(dtype)), np.arange(channels) % old, axis=1) * (old / channels)
    return scaled.astype(dtype.numpy)


ERROR = Policy("error", lambda source, target: "")
SKIP = Policy("skip", lambda source, target: "")
POLICIES: dict[str, Policy] = {
    "error": ERROR,
    "skip": SKIP,
    "slice": Policy("slice", _slice),
    "interpolate": interpolate(),
    "bicubic": interpolate("bicubic"),
    "bilinear": interpolate("bilinear"),
    "linear": interpolate("linear"),
    "channels": _channels("channels", lambda wanted: wanted == 1),
    "sum": _channels("sum", lambda wanted: True),
    "repeat": _channels("repeat", lambda wanted: False),
}
