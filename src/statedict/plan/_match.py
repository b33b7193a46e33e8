"""Make a Plan from the specs of a source and of the slots to fill. Reads no tensor.

The stages, in order: rename; pair equal names; pair names that are equal without wrappers; select; check shapes. Every stage
uses lookup tables and never compares a name with all others, so the time grows linearly with the number of names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from statedict.errors import CollisionError
from statedict.state import DType, Patterns, raw_values
from statedict.state import dtype as find_dtype

from ._plan import Plan
from .names._keymap import KeyMap
from .names._resolve import Resolved
from .names._select import Selection, assign, by_pattern, unmatched_patterns
from .names._wrappers import bare, follow
from .operations._specs import spec_of
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
    """Plan how to fill the slots of `target` from `source`.

    Args:
        source, target: states; only their names, shapes and dtypes are used.
        include, exclude: glob patterns for names of either side (see `names/_select.py`).
        rename: a KeyMap or anything that makes one, applied to the source's names first.
        mismatched: the policy for tensors of a different shape (see `tensors/_policy.py`).
        dtype: cast floating-point tensors to this, one for all or one for each pattern; None leaves them unchanged.
        device: recorded in the steps, one for all or one for each pattern.
        wrappers: whether names that differ only in wrappers (`module.`, `_orig_mod.` …) are considered equal.

    Raises CollisionError if two sources would fill one slot, UnknownNameError if `include` matches nothing, and ValueError
    for an invalid rule or policy.

    >>> import numpy as np
    >>> plan = match({"module.a": np.zeros(2), "module.b": np.zeros(3)}, {"a": np.ones(2), "c": np.ones(1)})
    >>> [(step.sources, step.target) for step in plan.steps], plan.missing, plan.unexpected
    ([(('module.a',), 'a')], ('c',), ('b',))
    """
    given, slots = raw_values(source), raw_values(target)
    asked = {"include": include, "exclude": exclude, "rename": rename, "dtype": dtype, "device": device}
    asked = {name: value for name, value in asked.items() if value is not None}
    asked |= {} if isinstance(mismatched, str) and mismatched == "error" else {"mismatched": mismatched}
    # The names are usually in the same order, and comparing lists is faster than comparing sets.
    same = list(given) == list(slots) or given.keys() == slots.keys()
    if same and not asked:
        # The usual load. Shapes are compared only if the report needs them: the loader compares them as well.
        return Plan(None, slots, given, find_mismatched=lambda: misfits(given, slots))
    offered, notes = _offers(given, KeyMap(rename), wrappers)
    selection = Selection(include, exclude)
    selection.check([*offered, *given, *slots])
    found = assign(offered, slots, selection, wrappers)
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
        notes=(*notes, *found.notes, *unmatched_patterns(patterns, [*given, *offered, *slots])),
        options=asked,
        find_mismatched=lambda: tuple(fitting.misfits),
    )


def _offers(given: Mapping[str, Any], rename: KeyMap, wrappers: bool) -> Resolved:
    """Return the source's tensors under their new names. A rule written for bare names also applies to wrapped ones."""
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
    """Return the patterns in a tuple, or the keys of a mapping."""
    return tuple(given) if isinstance(given, (tuple, Mapping)) else ()


def _dtypes(given: Any) -> Callable[..., DType | None]:
    """Return a function from names to the requested DType; raises ValueError for an unknown one."""
    if isinstance(given, Mapping):
        return by_pattern({pattern: _dtype(dtype) for pattern, dtype in given.items()})
    return by_pattern(None if given is None else _dtype(given))


def _dtype(given: Any) -> DType:
    """Return the DType for a name, or for a torch or NumPy dtype."""
    try:
        return find_dtype(given.__name__ if isinstance(given, type) else str(given))
    except KeyError:
        raise ValueError(f"dtype={given!r} is not a dtype; use a name such as 'bfloat16'") from None
