"""The quick path for ordinary tensors gives the same as the machine: leaves, errors and memo."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tests.hostile.build import pickles as p

from statedict.errors import FormatError
from statedict.formats._pickle.reading import _opcodes, _record_syntax
from statedict.formats._pickle.reading import _records as _fast
from statedict.state import Compound, Leaf, Opaque, leaf_of

SHAPES = [(), (3,), (0,), (2, 3), (4, 4), (2, 1, 3), (1, 2, 3, 4), (300,), (70000,), (2,) * 6, (1,) * 7]
DTYPES = ["f4", "f2", "i8", "u1", "?", "c8"]


def state(count: int = 120) -> dict[str, object]:
    made: dict[str, object] = {}
    for number in range(count):
        array = np.zeros(SHAPES[number % len(SHAPES)], DTYPES[number % len(DTYPES)])
        made[f"layers.{number}.weight"] = leaf_of(array)
        if number % 10 == 0:
            made[f"layers.{number}.tied"] = made[f"layers.{number}.weight"]
            made[f"layers.{number}.view"] = leaf_of(array)
        if number % 25 == 0 and array.ndim:
            made[f"layers.{number}.slice"] = leaf_of(array[1:])
            made[f"layers.{number}.more"] = [1, {"x": 2.5, "y": leaf_of(np.ones(2))}]
    return made


def shown(value: object) -> object:
    """A tree as something to compare: tensors by what they are and which storage they lie in."""
    if isinstance(value, Leaf):
        return ("leaf", value.spec, value.traits, value.storage.key[2:], value.storage.location, value.storage.nbytes)
    if isinstance(value, Compound):
        return ("compound", repr(value), shown(value.parts), repr(value.facts))
    if isinstance(value, Opaque):
        return ("opaque", value.path, shown(value.args), shown(value.state), shown(value.items))
    if isinstance(value, dict):
        return ("dict", [(shown(key), shown(each)) for key, each in value.items()])
    return (type(value).__name__, [shown(each) for each in value]) if isinstance(value, (list, tuple)) else repr(value)


def outcome(read, data: bytes, **arguments) -> object:
    """The tree and imports, or the error with its place."""
    try:
        found = read(data, **arguments)
    except FormatError as error:
        return (type(error), str(error), error.offset)
    try:
        return (shown(found.value), found.globals, found.end)
    except RecursionError:  # A mutant may have made a cycle.
        return (found.globals, found.end)


@pytest.fixture(name="slow")
def slow_fixture(monkeypatch):
    """A function that turns the quick path off."""
    return lambda: monkeypatch.setattr(_opcodes, "read_records", lambda machine, at: at)


def test_the_quick_path_is_taken(read, write, monkeypatch):
    """The quick path reads most records of an ordinary file."""
    found = []
    quick = _fast._read
    monkeypatch.setattr(_fast, "_read", lambda m, at: found.append(quick(m, at)) or found[-1])
    read(write(state()))
    assert sum(leaf is not None for leaf, _ in found) > 80


def test_both_paths_read_the_same(read, write, slow, saved):
    """A file is read alike with the quick path and without."""
    files = [write(state()), write([state(40), state(60)]), write({"a": state(), "b": state()})]
    quick = [outcome(read, data) for data in files]
    slow()
    assert quick == [outcome(read, data) for data in files]


def test_both_paths_ask_for_the_same_storages(read, write, slow, storages):
    """The container is asked for the same storages in the same order."""
    data = write(state())
    asked = []
    for _ in range(2):
        callback = storages()
        read(data, storage=callback)
        asked.append(callback.asked)
        slow()
    assert asked[0] == asked[1]


def test_both_paths_read_the_same_of_any_mutant(read, write, slow):
    """Changed bytes give the same values, or the same error at the same byte."""
    generator = random.Random(7)
    whole = write(state(60))
    mutants = []
    for _ in range(400):
        raw = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2))):
            at = generator.randrange(len(raw))
            change = generator.random()
            if change < 0.6:
                raw[at] ^= 1 << generator.randrange(8)
            elif change < 0.8:
                raw[at] = generator.choice(b"KMJhjqrtRQ)(\x85\x86\x87\x88\x89.0N")
            else:
                del raw[at : at + generator.choice((1, 2, 5))]
        mutants.append(bytes(raw))
    quick = [outcome(read, raw) for raw in mutants]
    slow()
    for mutant, found in zip(mutants, quick):
        assert found == outcome(read, mutant)
    assert len({found[0] for found in quick if isinstance(found[0], type)}) >= 2


def slots(count: int) -> bytes:
    """GETs of the last memo slots of a file, in a list."""
    return b"".join(b"j" + slot.to_bytes(4, "little") for slot in range(count))


def test_the_slots_inside_a_record_can_be_asked_for(read, write, slow):
    """A GET of any temporary inside a record gives what the machine would have put there."""
    data = write(state(50))
    end = read(data).end
    top = 256
    while True:  # Count the slots that the file sets.
        try:
            read(data[: end - 1] + b"0" + b"j" + top.to_bytes(4, "little") + b".")
        except FormatError:
            break
        top += 1
    assert top > 300
    asking = data[: end - 1] + b"0](" + slots(top) + b"e."
    quick = outcome(read, asking)
    slow()
    assert quick == outcome(read, asking)


def test_reused_slots_end_the_quick_path(read, write, slow):
    """A file that sets a slot twice is read by the machine from there on, with the same result."""
    first, second = write(state(50)), write(state(70))
    # The second state's pickle, in the same stream, sets the slots of the first again.
    both = first[:-1] + b"0" + second[2:]
    quick = outcome(read, both)
    slow()
    assert quick == outcome(read, both)


def long_record(first: int, key: bytes) -> bytes:
    """The usual record with its slots from `first` on; the slots before it hold what its GETs read."""
    put = [b"q%c" % (first + n) for n in range(7)]
    return (
        b"h\0((h\1h\2X"
        + len(key).to_bytes(4, "little")
        + key
        + put[0]
        + b"h\3K\4t"
        + put[1]
        + b"QK\0K\4\x85"
        + put[2]
        + b"K\1\x85"
        + put[3]
        + b"\x89h\4)R"
        + put[4]
        + b"t"
        + put[5]
        + b"R"
        + put[6]
    )


CONSTANTS = [
    p.name("torch._utils", "_rebuild_tensor_v2"),
    p.text("storage"),
    p.name("torch", "FloatStorage"),
    p.text("cpu"),
    p.name("collections", "OrderedDict"),
]


@pytest.mark.parametrize("early", [None, 8, 0x0101])
def test_slots_out_of_order_end_the_quick_path(read, slow, monkeypatch, early):
    """A slot that was set early is not lost: the quick path is taken only where slots are set in order."""
    quick, taken = _fast._read, []
    monkeypatch.setattr(_fast, "_read", lambda machine, at: taken.append(quick(machine, at)) or taken[-1])
    ahead = b"" if early is None else p.text("early") + b"r" + early.to_bytes(4, "little") + b"0"
    constants = b"".join(each + b"q%c" % slot + b"0" for slot, each in enumerate(CONSTANTS))
    asked = b"".join(b"j" + slot.to_bytes(4, "little") for slot in (5, 8, 11, 12))
    data = b"](" + ahead + constants + long_record(5, b"0") + long_record(12, b"1") + asked + b"e."
    found = outcome(read, data)
    assert any(leaf is not None for leaf, _ in taken) == (early is None)
    slow()
    assert found == outcome(read, data)


def test_memoize_after_records(read, write, slow):
    """MEMOIZE counts the slots inside records too."""
    data = write(state(50))[:-1] + b"\x94" + b"0N."
    quick = outcome(read, data)
    slow()
    assert quick == outcome(read, data)


def test_tokens_mean_what_the_memo_holds(read, write, slow):
    """A record whose device tag is a class, or whose hooks are made from a string, is refused on both paths."""
    data = write({f"w{n}": leaf_of(np.zeros(2, "f4")) for n in range(80)})
    found = _record_syntax.record(False).search(data, len(data) // 2)
    place, hooks = found.span(5), found.span(14)
    assert (place[1] - place[0], hooks[1] - hooks[0]) == (2, 2)
    swapped = [bytearray(data), bytearray(data)]
    swapped[0][place[0] : place[1]] = data[hooks[0] : hooks[1]]
    swapped[1][hooks[0] : hooks[1]] = data[place[0] : place[1]]
    quick = [outcome(read, bytes(raw)) for raw in swapped]
    slow()
    assert quick == [outcome(read, bytes(raw)) for raw in swapped]
    assert all(issubclass(one[0], FormatError) for one in quick)


def test_the_text_form_of_get(read, write, slow):
    """Protocol 0's GET begins a record too."""
    data = write({f"w{n}": leaf_of(np.zeros(2, "f4")) for n in range(80)})
    found = _record_syntax.record(False).search(data, len(data) // 2)
    token = data[found.start() - 2 : found.start()]
    assert token[:1] == b"h"
    text = data[: found.start() - 2] + b"g%d\n" % token[1] + data[found.start() :]
    quick = outcome(read, text)
    slow()
    assert quick == outcome(read, text)
    assert quick[0][0] == "dict"


def test_a_leaf_that_changes_ends_the_quick_path(read, write, slow):
    """A call with the arguments of a record that was read before gives its storage, whatever its tensor has become."""
    saved = write(
        {"s": leaf_of(np.zeros(1, "f4")), "a": leaf_of(np.zeros(1000, "f4")), "b": leaf_of(np.zeros(2, "f4"))}
    )
    arguments, a, b = p.get(20), p.get(21), p.get(29)
    becomes = a + b"(" + b + b"K\0" + p.NONE + p.FALSE + p.NONE + b"tb0"
    again = saved[:-2] + b"u" + becomes + p.text("x") + p.get(2) + arguments + b"Rs."
    value = read(again).value
    assert [value[name].spec.shape for name in "abx"] == [(2,), (2,), (1000,)]
    assert [value[name].storage.location for name in "abx"] == ["cpu"] * 3
    assert value["x"].storage.key != value["a"].storage.key == value["b"].storage.key
    quick = outcome(read, again)
    slow()
    assert quick == outcome(read, again)
