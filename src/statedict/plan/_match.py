"""match: from the specs of a source and of its slots to a Plan. Decides, and reads nothing.

In order: renames; names that are equal; names that are equal but for wrappers; what was selected; what fits. Every stage
looks names up, none compares a name with all others: 100,000 names against 100,000 slots take under a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from statedict.errors import CollisionError
from statedict.state import DType, Patterns, raw_values
from statedict.state import dtype as find_dtype

from ._plan import Plan, Unchanged
from .names._keymap import KeyMap
from .names._resolve import Resolved
from .names._select import Selection, by_pattern, idle
from .names._sort import sort
from .names._wrappers import bare, follow
from .operations._facts import spec_of
from .tensors._fit import Fitting, misfits
from .tensors._policy import Mismatched, chooser
from .tensors._step import Step


def match(
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    rename: Any = None,
    mismatched: Mismatched = "error",
    dtype: Any = None,
    device: Any = None,
    wrappers: bool = True,
) -> Plan:
    """A Plan that fills the slots of `target` from `source`.

    Args:
        source, target: states, of which only names, shapes and dtypes are looked at.
        include, exclude: glob patterns of what takes part, for the names of either side (`_select`).
        rename: a KeyMap or anything that makes one, applied to the source's names first.
        mismatched: what to do with tensors whose shape is not the slot's (`_policy`).
        dtype: for floating-point tensors, one for all or one for each pattern; None leaves them as they are.
        device: carried along in the steps, one for all or one for each pattern.
        wrappers: whether names that differ in wrappers only (`module.`, `_orig_mod.` …) are the same.

    Raises CollisionError where two sources would fill one slot, UnknownNameError where `include` matches nothing, and
    ValueError for rules and policies that cannot be understood.

    >>> import numpy as np
    >>> plan = match({"module.a": np.zeros(2), "module.b": np.zeros(3)}, {"a": np.ones(2), "c": np.ones(1)})
    >>> [(step.sources, step.target) for step in plan.steps], plan.missing, plan.unexpected
    ([(('module.a',), 'a')], ('c',), ('b',))
    """
    given, slots = raw_values(source), raw_values(target)
    asked = {"include": include, "exclude": exclude, "rename": rename, "dtype": dtype, "device": device}
    asked = {name: value for name, value in asked.items() if value is not None}
    asked |= {} if isinstance(mismatched, str) and mismatched == "error" else {"mismatched": mismatched}
    # In one order, mostly: then lists are compared in a quarter of the time.
    same = list(given) == list(slots) or given.keys() == slots.keys()
    if same and not asked:
        # The everyday load. Shapes are compared only if somebody asks: whoever loads compares them too.
        return Plan(Unchanged(given), slots, given, find_mismatched=lambda: misfits(given, slots))
    offered, notes = _offers(given, KeyMap(rename), wrappers)
    selection = Selection(include, exclude)
    selection.check([*offered, *given, *slots])
    found = sort(offered, slots, selection, wrappers)
    fitting = Fitting(given, slots, chooser(mismatched), _dtypes(dtype), by_pattern(device))
    for name, offer in offered.items():
        if name in found.pairs:
            fitting.add(found.pairs[name], name, offer)
    moved = follow(found.unexpected, found.pairs)
    patterns = [
        p for some in (selection.include, selection.exclude, mismatched, dtype, device) for p in _patterns(some)
    ]
    return Plan(
        tuple(fitting.steps),
        slots,
        given,
        missing=tuple(found.missing),
        passed=tuple(Step(moved.get(name, name), offered[name]) for name in found.unexpected),
        excluded=tuple(found.excluded),
        skipped=tuple(fitting.skipped),
        notes=(*notes, *found.notes, *idle(patterns, [*given, *offered, *slots])),
        options=asked,
        find_mismatched=lambda: tuple(fitting.misfits),
    )


def _offers(given: Mapping[str, Any], rename: KeyMap, wrappers: bool) -> Resolved:
    """What the source has once it is renamed. A rule written for bare names is applied to wrapped ones too."""
    if not rename:
        return Resolved({name: name for name in given}, [])
    seen: dict[str, str] = {}
    for name in given:
        without = bare(name) if wrappers else name
        shown = without if without != name and not rename.index.find(name) and rename.index.find(without) else name
        if shown in seen:
            raise CollisionError(shown, (seen[shown], name))
        seen[shown] = name
    return rename.resolve(seen, lambda name: spec_of(given[name]))


def _patterns(given: Any) -> tuple[str, ...]:
    """The patterns of a list of them, or of a mapping from them to anything."""
    return tuple(given) if isinstance(given, (tuple, Mapping)) else ()


def _dtypes(given: Any) -> Callable[..., DType | None]:
    """A function from names to the DType that was asked for; ValueError for one that does not exist."""
    if isinstance(given, Mapping):
        return by_pattern({pattern: _dtype(dtype) for pattern, dtype in given.items()})
    return by_pattern(None if given is None else _dtype(given))


def _dtype(given: Any) -> DType:
    """The DType by its name, or that of a torch or NumPy dtype."""
    try:
        return find_dtype(given.__name__ if isinstance(given, type) else str(given))
    except KeyError:
        raise ValueError(f"dtype={given!r} is no element type; write it as in 'bfloat16'") from None
