"""Recipes of tensors that wrap others: plain data, the same after JSON."""

from __future__ import annotations

import json
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.formats._pickle import Size, TorchConstant
from statedict.formats._pickle._recipe import (
    DEEPEST,
    MOST,
    RecipeError,
    classes_of,
    recipe_of,
    roles_of,
    take_apart,
)
from statedict.formats._pickle._recipe_values import compound_from, rebuilding
from statedict.state import DTYPES, Compound, Opaque, leaf_of

np = pytest.importorskip("numpy")
OUTER = (DTYPES["float32"], (2,), (1,), 0, "strided")


def part():
    return leaf_of(np.ones(2, "i1"))


def taken(state, **options):
    return take_apart("mine:Wrapped", OUTER, False, state, **options)


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([*DTYPES.values(), TorchConstant("device", "cuda:1"), TorchConstant("layout", "strided")]),
    st.lists(st.integers(0, 9), max_size=3).map(Size),
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text("$ab", max_size=3), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(values, st.booleans())
def test_a_recipe_is_the_same_after_json(value, flag):
    """What a recipe describes is what it was made of: equal values of equal types, also after it was text."""
    state = {"local": part(), "value": value}
    made = taken({**state, "_is_param": True} if flag else state)
    assert made.traits.parameter is flag
    text = json.dumps(recipe_of(made))
    again = compound_from(json.loads(text), made.parts)
    assert repr(again.facts) == repr(made.facts)
    assert again.traits == made.traits
    found = rebuilding(again, again.parts, "cpu").args[3]
    assert repr(found["value"]) == repr(value)
    assert found["local"] is made.parts["local"]
    assert ("_is_param" in found) is flag


def test_roles_are_attribute_names():
    """Tensors in containers and in inner tensors are named by their path; slots are attributes."""
    inner = taken({"local": part(), "more": [part(), {"x": part()}]})
    made = taken(({"inner": inner}, {"slot": part()}))
    assert list(made.parts) == ["inner.local", "inner.more.0", "inner.more.1.x", "slot"]
    assert roles_of(recipe_of(made)) == list(made.parts)
    call = rebuilding(made, made.parts, "cpu")
    assert call.args[3][0]["inner"].args[3]["more"][0] is made.parts["inner.more.0"]


def test_classes_of_a_recipe():
    """All names in a recipe are known, so that a writer can judge them."""
    state = {"x": part(), "f": Opaque("os", "system"), "e": Opaque("mine", "Kind.Inner", (1,))}
    assert classes_of(taken(state)) == {"mine.Wrapped", "os.system", "mine.Kind.Inner"}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"x": 1}, "no tensors inside"),
        ([], "not a dict of attributes"),
        (({}, {}, {}), "not a dict of attributes"),
        ({"grad": 1}, "'grad' is reserved"),
        ({3: 1}, "'3' is reserved"),
        ({"x": {1}}, "a builtins.set cannot be described"),
        ({"x": 1 << 64}, "more than 64 bits"),
        ({"x": [0] * MOST}, "or too many"),
        ({"a": {"b": part()}, "x": {"a.b": part(), "a": {"b": part()}}}, "would be named 'x.a.b'"),
        ({"x": Compound("sparse_coo", DTYPES["int8"], (1,), {})}, "one of its parts is a sparse_coo tensor"),
        ({"x": Opaque("mine", "f", (), {"key": 1})}, "a mine.f cannot be described"),
        ({"x": Opaque("", "call", ())}, "a class whose name is not valid"),
        ({"x": Opaque("a:b", "f", ())}, "a class whose name is not valid"),
        ({"x": TorchConstant("layout", "_mkldnn")}, "a layout that PyTorch does not have"),
        ({"x": TorchConstant("device", "a b:c")}, "a device that PyTorch does not have"),
        ({"x": "\ud800"}, "cannot be written as UTF-8"),
        ({"x": {"\ud800": 1}}, "cannot be written as UTF-8"),
    ],
)
def test_states_that_are_not_data(state, text):
    """Everything else is refused, with the reason."""
    with pytest.raises(RecipeError, match=text):
        taken(state)


def test_depth_and_repetition_are_limited():
    """A value that contains itself, or a few values many times, is refused: a recipe is a tree."""
    cycle = []
    cycle.append(cycle)
    twice = []
    for _ in range(DEEPEST - 2):
        twice = [twice, twice]
    for value in (cycle, twice):
        with pytest.raises(RecipeError, match="nested too deeply, or too many"):
            taken({"x": part(), "y": value})


def test_devices_of_a_file_that_are_not_devices():
    """The device tag of a storage can be anything; a tensor without a real one is written for the CPU."""
    made = taken({"x": part()})
    assert str(rebuilding(made, made.parts, "my device:x").args[2][6]) == "cpu"
    assert str(rebuilding(made, made.parts, "cuda:1").args[2][6]) == "cuda:1"


def test_charge():
    """Each value of a recipe is paid for."""
    paid = []
    taken({"x": part(), "y": [1, 2, 3]}, charge=paid.append)
    assert len(paid) == 6


def test_infinite_numbers():
    """Numbers that JSON does not have are written as text."""
    found = taken({"x": part(), "y": (inf, -inf, nan)}).facts["state"]["y"]
    assert found == {"$tuple": [{"$float": "inf"}, {"$float": "-inf"}, {"$float": "nan"}]}
