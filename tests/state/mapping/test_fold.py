"""Folding: many names on few lines, and none lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.state import fold

FOLDS = [
    (["a.0.w", "a.1.w", "a.2.w"], ["a.{0…2}.w"]),
    (["a.0.w", "a.1.w"], ["a.{0,1}.w"]),
    (["a.3.w"], ["a.3.w"]),
    (["a.0.w", "a.1.w", "a.2.w", "a.3.w", "a.5.w"], ["a.{0…3,5}.w"]),
    ([f"a.{i}.b.{j}.w" for i in range(3) for j in range(4)], ["a.{0…2}.b.{0…3}.w"]),
    (["a.0.0", "a.0.1", "a.1.0"], ["a.0.{0,1}", "a.1.0"]),
    (["a.10.w", "a.9.w", "a.8.w"], ["a.{8…10}.w"]),
    (["a.00.w", "a.01.w"], ["a.00.w", "a.01.w"]),
    (["b", "a.0.x", "a.0.y", "a.1.x"], ["b", "a.{0,1}.x", "a.0.y"]),
    (["0", "1", "2"], ["{0…2}"]),
    ([f"a.{i}.w" for i in range(0, 400, 3)], ["a.{0,3,6,9,…+130}.w"]),
    (["layer1.w", "layer2.w"], ["layer1.w", "layer2.w"]),
    ([], []),
]


@pytest.mark.parametrize(("names", "texts"), FOLDS)
def test_folded_text(names, texts):
    """Names that differ in their indices only are one line; runs, gaps and several indices read as a person writes."""
    assert texts == [group.text for group in fold(names)]


def test_natural_order():
    """The names of a group come in natural order, 9 before 10."""
    assert next(fold(["a.10", "a.9", "a.8"])).names == ("a.8", "a.9", "a.10")


def test_key_keeps_apart():
    """Names with different keys are never folded together."""
    shapes = {"a.0": 1, "a.1": 1, "a.2": 2}
    assert [group.text for group in fold(shapes, key=shapes.get)] == ["a.{0,1}", "a.2"]


names = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "11", "x1"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(names, unique=True, max_size=40))
def test_every_name_in_exactly_one_group(some):
    """Folding loses no name and repeats none."""
    folded = [name for group in fold(some) for name in group.names]
    assert sorted(some) == sorted(folded)
    texts = [group.text for group in fold(some)]
    assert len(texts) == len(set(texts))


def test_hostile_names():
    """A name of thousands of numbers, or a number of thousands of digits, is handled as a long name."""
    long = [".".join(["1"] * 5000), ".".join(["2"] * 5000), "9" * 6000]
    assert sorted(long) == sorted(name for group in fold(long) for name in group.names)
