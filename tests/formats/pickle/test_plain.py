"""Plain values come back as pickle.loads gives them, in every protocol."""

from __future__ import annotations

import datetime
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.formats._pickle import emit, parse

UTC = datetime.UTC
VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    -(2**31),
    -(2**31) - 1,
    2**63,
    1 << 2000,
    -(1 << 2047),
    0.0,
    -0.0,
    1.5,
    1e300,
    float("inf"),
    -float("inf"),
    "",
    "a",
    "é\u2028\n\\u0041",
    "\udc80",
    "x" * 300,
    b"",
    b"abc\x80\xff",
    bytearray(b"x"),
    bytearray(),
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    [],
    [1, [2]],
    {},
    {"a": {"b": 1}},
    {1: 2, (3, "x"): 4, None: 5, b"k": 6},
    set(),
    {1},
    frozenset(),
    frozenset({(1, 2)}),
    1j,
    range(1, 9, 2),
    slice(1, None, 2),
    ...,
    NotImplemented,
    OrderedDict(b=1, a=2),
    Counter("hello"),
    defaultdict(list, a=[1]),
    defaultdict(None, a=1),
    deque([1, 2, 3], maxlen=5),
    deque([1]),
    datetime.date(2020, 2, 29),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
    datetime.datetime(1, 1, 1, tzinfo=UTC),
    datetime.datetime(2021, 10, 31, 2, fold=1),
    datetime.time(23, 59, 59, 999999),
    datetime.time(1, fold=1),
    datetime.timedelta(-1, 5, 7),
    datetime.timezone(datetime.timedelta(hours=2), "X"),
    Decimal("1.50"),
    Decimal("-Infinity"),
    Fraction(-3, 7),
    UUID(int=2**127 + 5),
    Path("/a/b"),
    PurePosixPath("x/y"),
    PureWindowsPath("c:\\d"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_a_plain_value_is_what_pickle_gives(read, value):
    """Every plain value, in every protocol, is read as pickle.loads reads it."""
    for protocol in range(6):
        data = pickle.dumps(value, protocol)
        found, expected = read(data), pickle.loads(data)
        assert type(found.value) is type(expected)
        assert repr(found.value) == repr(expected)
        assert found.value == expected
        assert found.end == len(data)
        assert found.dangerous == []


def test_attributes_of_an_ordered_dict_are_kept(read):
    """torch's `_metadata`, an attribute of an OrderedDict, survives."""
    made = OrderedDict(a=1)
    made._metadata = OrderedDict({"": {"version": 2}})
    for protocol in range(6):
        found = read(pickle.dumps(made, protocol)).value
        assert found == made
        assert found._metadata == made._metadata


def test_sharing_and_cycles_are_kept(read):
    """One object in the file is one object in the tree."""
    inner = [1]
    outer = {"a": inner, "b": inner}
    outer["self"] = outer
    for protocol in range(6):
        found = read(pickle.dumps(outer, protocol)).value
        assert found["a"] is found["b"]
        assert found["self"] is found


def test_python_2_strings_are_text_or_bytes(read):
    """A Python 2 `str` is text where it is UTF-8, as torch.load reads it, and bytes elsewhere."""
    assert read(b"U\x03abc.").value == "abc"
    assert read(b"T\x02\0\0\0\xc3\xa9.").value == "é"
    assert read(b"U\x02\xff\xfe.").value == b"\xff\xfe"
    assert read(b"S'a\\n\\x41\\101\\'\\\\'\n.").value == "a\nAA'\\"
    assert read(b'S"it\'s"\n.').value == "it's"


def test_python_2_containers(read):
    """Python 2's OrderedDict, set and xrange are today's."""
    assert read(b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'a'\naI1\naatR.").value == OrderedDict(a=1)
    assert read(b"c__builtin__\nset\n((lI1\naI2\natR.").value == {1, 2}
    assert read(b"c__builtin__\nxrange\n(I0\nI3\nI1\ntR.").value == range(3)
    assert read(b"c__builtin__\nunicode\n.").value.path == "__builtin__.unicode"


keys = (
    st.text(max_size=5)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.tuples(st.integers(), st.text(max_size=3))
    | st.binary(max_size=4)
)
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
)
trees = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4).map(OrderedDict)
        | st.frozensets(keys, max_size=4)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(trees, st.integers(0, 5))
def test_any_tree_is_what_pickle_gives(value, protocol):
    """parse(pickle.dumps(x)) == x, in every protocol."""
    data = pickle.dumps(value, protocol)
    found = parse(data, storage=lambda identity: None)
    assert repr(found.value) == repr(pickle.loads(data))


@settings(max_examples=150)
@given(trees)
def test_a_tree_is_written_as_pickle_writes_it(value):
    """emit(x) is byte for byte pickle.dumps(x, 2), and reads back as x."""
    written = emit(value, lambda leaf: None)
    assert written == pickle.dumps(value, 2)
    assert repr(parse(written, storage=lambda identity: None).value) == repr(pickle.loads(written))
