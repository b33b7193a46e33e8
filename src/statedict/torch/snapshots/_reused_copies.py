"""Copy a state into an earlier copy of it, for asynchronous saves.

Training waits for this copy. Between two saves of the same objects only values change, so one pass over the state, column by
column, checks that it has the form that the copy was made for; then the tensors are overwritten where they are, and the
other values are replaced (benchmarks/stall.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain, compress
from math import prod
from operator import attrgetter, is_not
from typing import Any, NamedTuple

import torch

from statedict.state import StateDict, collector_paused, row_copies

from ..tensors._copy_pairs import ORDINARY, POINTER, addresses, is_watched
from ..tensors._kinds import Kind, Kinds, kinds_of
from ._shared_memory import overlap

# Bytes. Tensors up to this size are copied as rows of bytes.
ROW = 4096
_OFFSET, _IS_NESTED = torch.Tensor.storage_offset, attrgetter("is_nested")
# Keys that are the same if they are equal and have the same type. (0.0 and -0.0 are not.)
_KEYS = frozenset({str, int, bool, bytes, type(None)})
# Values that cannot change, so that the copy can contain them; and so can tuples of them.
FIXED = frozenset({int, float, bool, str, type(None)})
_CONTAINERS = frozenset({dict, OrderedDict, StateDict, list})
_WITH_METADATA = frozenset({OrderedDict, StateDict})


class StateForm(NamedTuple):
    """The form of a state, which stays the same while training goes on.

    Attributes:
        containers, sizes: the types of the containers, and how many values each has, level by level.
        key_types, keys: of all mappings. An OrderedDict or StateDict with `_metadata` adds its position.
        values: the types of all values.
    """

    containers: list[type]
    sizes: list[int]
    key_types: list[type]
    keys: list[Any]
    values: list[type]


class StateContents(NamedTuple):
    """The containers of a state (of a StateDict: its dict of values), and all values in them, level by level."""

    containers: list[Any]
    values: list[Any]


def read(tree: Any) -> tuple[StateForm, StateContents] | None:
    """Return the form and the contents of a state; None if a container occurs twice, or is of another type.

    >>> form, contents = read({"step": 3, "betas": [0.9, 0.999]})
    >>> contents.values, form.sizes
    ([3, [0.9, 0.999], 0.9, 0.999], [2, 2])
    """
    form, contents = StateForm([], [], [], [], []), StateContents([], [])
    level = [tree]
    while level:
        if not _CONTAINERS.issuperset(map(type, level)):
            return None
        here = [each._values if type(each) is StateDict else each for each in level]
        keys = [*chain.from_iterable(each for each in here if type(each) is not list)]
        values = [*chain.from_iterable(each if type(each) is list else each.values() for each in here)]
        inner = [] if _CONTAINERS.isdisjoint(map(type, values)) else [v for v in values if type(v) in _CONTAINERS]
        if not _WITH_METADATA.isdisjoint(map(type, level)):
            for position, each in enumerate(level):
                if getattr(each, "_metadata", None) is not None:
                    keys.append(position)
                    inner.append(each._metadata)
        contents.containers.extend(here)
        contents.values.extend(values)
        form.containers.extend(map(type, level))
        form.sizes.extend(map(len, here))
        form.key_types.extend(map(type, keys))
        form.keys.extend(keys)
        level = inner
        if len(set(map(id, contents.containers))) < len(contents.containers):
            return None
    form.values.extend(map(type, contents.values))
    return form, contents


class Memory:
    """A copy of a state that can be overwritten with a later state of the same form; made by `remember`.

    Attributes:
        tensors: the tensors of the copy.
    """

    def __init__(self, form: StateForm, of_live: StateContents, of_copy: StateContents, kinds: Kinds) -> None:
        self._form = form
        self._are_tensors = [kind in ORDINARY for kind in form.values]
        self._are_plain = [kind in FIXED or kind is tuple for kind in form.values]
        live = list(compress(of_live.values, self._are_tensors))
        # A tensor that occurs several times is copied once, to its first occurrence.
        self._ties = _ties(live)
        self.tensors = _firsts(list(compress(of_copy.values, self._are_tensors)), self._ties)
        live = _firsts(live, self._ties)
        self._plain = list(compress(of_live.values, self._are_plain))
        self._slots = list(compress(_slots(of_copy.containers), self._are_plain))
        self._sizes = _sizes(kinds)
        self._has_same_layout = _layout_check(live, kinds)
        self._are_small = [0 < size <= ROW for size in self._sizes]
        self._are_large = [size > ROW for size in self._sizes]
        self._large = list(compress(self.tensors, self._are_large))
        self._sources: list[int] = []
        self._copy_rows: Callable[[], None] = lambda: None

    def refill(self, tree: Any) -> bool:
        """Overwrite the copy with a state; if this has another form, change nothing and return False."""
        with collector_paused(), torch.inference_mode(False), torch.no_grad():
            found = read(tree)
            if found is None or found[0] != self._form or is_watched():
                return False
            live = list(compress(found[1].values, self._are_tensors))
            plain = list(compress(found[1].values, self._are_plain))
            changed = list(compress(range(len(plain)), map(is_not, plain, self._plain)))
            if not all(map(_is_fixed, map(plain.__getitem__, changed))):
                return False
            # Without ties, `_prepare` finds a tensor that occurs twice: it overlaps itself.
            if self._ties and _ties(live) != self._ties:
                return False
            live = _firsts(live, self._ties)
            if not self._has_same_layout(live) or not self._prepare(live):
                return False
            self._copy(live)
            for n in changed:
                container, key = self._slots[n]
                container[key] = plain[n]
            self._plain = plain
            return True

    def _prepare(self, live: Sequence[torch.Tensor]) -> bool:
        """Prepare to copy from where the tensors are; return False if they share memory now."""
        sources = list(map(POINTER, live))
        if sources == self._sources:
            return True
        if not _are_apart(live, sources, self._sizes):
            return False
        columns = (sources, addresses(self.tensors), self._sizes)
        self._copy_rows = row_copies(*(list(compress(column, self._are_small)) for column in columns))
        self._sources = sources
        return True

    def _copy(self, live: Sequence[torch.Tensor]) -> None:
        self._copy_rows()
        if self._large:
            torch._foreach_copy_(self._large, list(compress(live, self._are_large)))


def remember(tree: Any, copy: Any) -> Memory | None:
    """Return the copy of a state as memory for later ones.

    None if the state has other values than tensors and plain ones, or a tensor that has gaps or shares memory.
    """
    of_live, of_copy = read(tree), read(copy)
    if of_live is None or of_copy is None:
        return None
    (form, live), (form_of_copy, copied) = of_live, of_copy
    if form[:-1] != form_of_copy[:-1] or not _KEYS.issuperset(form.key_types):
        return None
    if not all(kind in ORDINARY or kind in _CONTAINERS or _is_fixed(v) for kind, v in zip(form.values, live.values)):
        return None
    tensors, made = ([v for v in each.values if type(v) in ORDINARY] for each in (live, copied))
    ties = _ties(tensors)
    tensors, made = _firsts(tensors, ties), _firsts(made, ties)
    kinds, kinds_made = kinds_of(tensors), kinds_of(made)
    if kinds is None or kinds_made is None or not all(map(_is_dense, kinds.kinds)):
        return None
    # A tensor that overlaps itself can also fill its memory; its copy does not overlap, and has other strides.
    if _strides(kinds_made) != _strides(kinds):
        return None
    if not _are_apart(tensors, addresses(tensors), _sizes(kinds)):
        return None
    with torch.inference_mode(False), torch.no_grad():
        return Memory(form, live, copied, kinds)


def _layout_check(tensors: Sequence[torch.Tensor], kinds: Kinds) -> Callable[[Sequence[torch.Tensor]], bool]:
    """Return a function that compares the types, dtypes, shapes and strides of other tensors with those of `tensors`.

    The guards of torch.compile do that in C++, in a quarter of the time of `kinds_of`, but are not public. They would end
    the process at a nested tensor, which has no strides.
    """
    try:
        guards = torch._C._dynamo.guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    except (AttributeError, TypeError):
        return lambda others: kinds_of(others) == kinds
    return lambda others: not any(map(_IS_NESTED, others)) and bool(guards.check(*others))


def _is_fixed(value: Any) -> bool:
    return FIXED.issuperset(map(type, value)) if type(value) is tuple else type(value) in FIXED


def _ties(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Return for each tensor the index of its first occurrence; an empty list if none occurs twice."""
    ids = list(map(id, tensors))
    if len(set(ids)) == len(ids):
        return []
    firsts: dict[int, int] = {}
    return [firsts.setdefault(each, n) for n, each in enumerate(ids)]


def _firsts(tensors: list[torch.Tensor], ties: Sequence[int]) -> list[torch.Tensor]:
    return [tensors[n] for n, first in enumerate(ties) if n == first] if ties else tensors


def _slots(containers: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the container and the key of each value."""
    return [(each, key) for each in containers for key in (range(len(each)) if type(each) is list else each)]


def _is_dense(kind: Kind) -> bool:
    """Whether the elements of a tensor fill the memory from the first to the last without gaps."""
    reach = 1 + sum((count - 1) * step for count, step in zip(kind.shape, kind.strides))
    return prod(kind.shape) in (0, reach)


def _are_apart(tensors: Sequence[torch.Tensor], places: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether no two tensors overlap, and each begins at the start of a storage. (The address of a freed storage is 0.)

    Tensors without elements do not matter: a rank may have none of a sharded tensor.
    """
    tensors, places = list(compress(tensors, sizes)), list(compress(places, sizes))
    return 0 not in places and not any(map(_OFFSET, tensors)) and not overlap(places, list(filter(None, sizes)))


def _strides(kinds: Kinds) -> list[tuple[int, ...]]:
    """Return the strides of each tensor. A Parameter and a buffer are of different kinds, and their copies of the same."""
    return [kinds.kinds[n].strides for n in kinds.which]


def _sizes(kinds: Kinds) -> list[int]:
    sizes = [prod(kind.shape) * kind.dtype.itemsize for kind in kinds.kinds]
    return list(map(sizes.__getitem__, kinds.which))
