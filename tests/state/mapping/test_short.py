"""Values of a file as short text."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from statedict.state import Short, StateDict


def test_shared_parts_are_written_a_few_times_only():
    """A mapping that holds another twice, sixty deep, is a few hundred characters, not 2^60."""
    value = OrderedDict(a=1)
    for _ in range(60):
        value = OrderedDict(a=value, b=value)
    assert len(Short().repr(value)) < 10_000


def test_deep_mappings_need_no_stack():
    """A small thread shortens what the mappings' own `repr` would overflow it with."""
    value = OrderedDict()
    for _ in range(20_000):
        value = OrderedDict(a=value)
    found = []
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=lambda: found.append(Short().repr(value)))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found[0].startswith("OrderedDict({'a': OrderedDict(")
    while value:  # freed from the outside in
        value = value.popitem()[1]


def test_subclasses_keep_their_names():
    """Lists and mappings of other classes are shortened too; a StateDict makes no array of what it holds."""

    class Numbers(list):
        pass

    short = Short()
    assert short.repr(Numbers(range(20))) == "Numbers([0, 1, 2, 3, 4, 5, ...])"
    assert short.repr(StateDict({"epoch": np.int64(3)})) == "StateDict({'epoch': np.int64(3)})"


def test_integers_may_have_any_length():
    """An integer too long for Python to print is shown by its number of digits."""
    assert Short().repr([1 << 40_000]) == "[<an integer of 40,001 bits>]"
