"""Plain values: JSON gives them back exactly, or they are not plain."""

import enum
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.formats.runs._json_values import DEEPEST, LONGEST, from_json, survives, to_json


class Kind(int, enum.Enum):
    ONE = 1


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def cycle():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(1, 0.1, float("nan"), float("inf"), "x", None, True, 10**400, "\ud800"),
        *([1, [2]], {"a": {"b": [True]}}, {"float": "hello"}, {"float": "float32"}, {"float": 1.5}),
        nested(DEEPEST - 1),
    ],
    ids=repr,
)
def test_what_json_gives_back_survives(value):
    """Plain values lie in the manifest as they are, odd ones too."""
    assert survives(value)
    assert repr(from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        *((1,), {1: 2}, {"a": (1,)}, {1, 2}, b"x", object(), {"float": "nan"}, {"a": {"float": "-inf"}}),
        *(10**5000, np.float64(1), np.int64(1), {np.str_("a"): 1}, Kind.ONE, {None: 1}, "\ud800\udc00"),
        *("x" * LONGEST, nested(DEEPEST + 1), nested(100_000), cycle()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_would_change_does_not(value):
    """Tuples, other keys and other objects would come back as something else; long and deep values lie elsewhere."""
    assert not survives(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["nan", "inf", "float"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.just("float"), inner, max_size=3)
        | st.tuples(inner)
    ),
)


@given(values)
def test_a_value_that_survives_is_given_back(value):
    """from_json(json(to_json(v))) is v, types included, wherever `survives` says so."""
    if survives(value):
        assert repr(from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))) == repr(value)
