"""Literals of Python without Python's parser; ast.literal_eval is the oracle."""

import ast
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.formats.numpy_files._literal import read_literal

LEAVES = st.booleans() | st.integers(0, 2**63) | st.text("abc<>|=_ 4", max_size=5)
LITERALS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(LITERALS.filter(lambda value: str(value).count("(") + str(value).count("[") + str(value).count("{") <= 8))
def test_what_python_prints_is_read(value):
    """The repr of any value of these types is read as that value."""
    assert read_literal(repr(value)) == value


@pytest.mark.parametrize(
    "text",
    ["(1,)", "(1)", "((1))", "()", "[]", "{}", "[1,]", "{'a': 1,}", ' { "a" :\n1 } ', "(1, 2,)", "'x'", "0", "True"],
)
def test_forms_are_those_of_python(text):
    """Commas, brackets and spaces mean what they mean in Python."""
    assert read_literal(text) == ast.literal_eval(text)


def test_numbers_may_be_those_of_python_2():
    """Long integers of Python 2, with an L, are read."""
    assert read_literal("(10L, 3)") == (10, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not a valid value"),
        ("1 2", "'2' follows the end of the literal"),
        ("(1 2)", "a comma is missing"),
        ("(,)", "',' is not a valid value"),
        ("[1,,2]", "',' is not a valid value"),
        ("[1", "ends before"),
        ("(1]", "a comma is missing"),
        ("{1: 2}", "a key is not a string"),
        ("{'a'}", "a key has no value"),
        ("{'a' 1}", "a key has no value"),
        ("{'a': 1, 'a': 2}", "twice"),
        ("-1", "is not a valid token"),
        ("1.5", "is not a valid token"),
        ("None", "is not a valid token"),
        ("\u0663", "is not a valid token"),
        ("'a\\n'", "is not a valid token"),
        ("__import__('os')", "is not a valid token"),
        ("9" * 21, "follows the end of the literal"),
        ("[" * 9 + "]" * 9, "nested too deeply"),
    ],
)
def test_anything_else_is_refused(text, problem):
    """Operators, names, escapes, floats and deep nesting, which headers do not have, are refused."""
    with pytest.raises(ValueError, match=problem):
        read_literal(text)


def test_no_text_ends_the_process():
    """Texts that make Python's own parser overflow a small stack are refused."""
    texts = ["-" * 9000 + "1", "[" * 5000, "{'a':" * 2000, "(" * 9000 + ")" * 9000, "1," * 5000]
    refused = []

    def read():
        for text in texts:
            try:
                read_literal(text)
            except ValueError:
                refused.append(text)

    before = threading.stack_size(512 << 10)
    thread = threading.Thread(target=read)
    thread.start()
    threading.stack_size(before)
    thread.join()
    assert refused == texts
