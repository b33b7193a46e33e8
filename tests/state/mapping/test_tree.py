"""Trees of values: mapping keeps structure, sharing and cycles, at a cost linear in what they hold."""

from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import FormatError
from statedict.state import Opaque, StateDict, every, independent, leaf_of, map_tree, one_of_each_type, tensors_of

plain = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=3).map(deque)
    ),
)


@given(plain)
def test_mapping_with_the_identity_is_a_copy(tree):
    """Nothing but the containers' identity changes."""
    assert tree == map_tree(tree, lambda value: value)


@given(plain)
def test_each_type_is_found_once(tree):
    """The types found are those of all values, however deep in lists, tuples and dicts; of each type there is one value."""
    found = list(map(type, one_of_each_type(tree)))
    assert set(found) == set(map(type, every(tree)))
    assert len(found) == len(set(found))


def test_shared_parts_stay_shared_and_cycles_stay_cycles():
    """A part that stands twice is copied once; a list that holds itself holds its copy."""
    shared = (1, [2])
    tree = {"a": shared, "b": shared, "loop": []}
    tree["loop"].append(tree)
    copied = map_tree(tree, lambda value: value)
    assert copied["a"] is copied["b"]
    assert copied["loop"][0] is copied
    assert copied["a"][1] is not shared[1]


def test_depth_and_sharing_cost_what_they_hold():
    """A hundred thousand levels, and 2**64 logical items in 64 lists, take linear time."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    map_tree(deep, lambda value: value)
    deep_tuple = ()
    for _ in range(100_000):
        deep_tuple = (deep_tuple,)
    map_tree(deep_tuple, lambda value: value)
    laughs = [1]
    for _ in range(64):
        laughs = [laughs, laughs]
    map_tree(laughs, lambda value: value)


def test_kinds_and_metadata_are_kept():
    """Ordered, default and counting dicts come back as what they were, `_metadata` and all."""
    state = OrderedDict(a=1)
    state._metadata = {"": {"version": 2}}
    groups = defaultdict(list, x=[1])
    opaque = Opaque("m", "C", (1,), {"k": 2})
    opaque.state, opaque.items = {"s": 3}, [4]
    copied = map_tree([state, groups, frozenset({1}), opaque, Counter("aa")], lambda value: value)
    assert type(copied[0]) is OrderedDict
    assert copied[0]._metadata == {"": {"version": 2}}
    assert copied[1].default_factory is list
    assert (copied[3].args, copied[3].kwargs, copied[3].state, copied[3].items) == ((1,), {"k": 2}, {"s": 3}, [4])
    assert Counter("aa") == copied[4]


def test_tensors_are_found_wherever_they_are():
    """Arrays in tuples, dicts and opaque values, each object once."""
    a, b = np.zeros(2), np.ones(3)
    opaque = Opaque("m", "C", ([b],))
    assert [id(a), id(b)] == [id(t) for t in tensors_of({"x": (a, a), "y": opaque, "z": 3})]


def test_a_state_dict_is_a_container():
    """A StateDict in a tree is mapped as a dict is, unread leaves and metadata included."""
    state = StateDict({"w": np.ones(2), "step": 3}, {"": {"version": 1}}, backend="numpy")
    copied = map_tree({"model": state}, lambda value: value)["model"]
    assert type(copied) is StateDict
    assert (list(copied), copied._metadata) == (["w", "step"], {"": {"version": 1}})
    assert copied is not state


def test_a_copy_is_independent_and_keeps_ties():
    """Changing the original changes nothing in the copy; tied arrays are tied in it."""
    base = np.arange(6.0)
    tree = {"a": base[2:], "b": StateDict({"c": base[:4]}, backend="numpy"), "list": [1]}
    copied = independent(tree)
    base[:] = 0
    tree["list"].append(2)
    np.testing.assert_array_equal([2, 3, 4, 5], copied["a"])
    copied["a"][0] = 70
    assert copied["b"]["c"][2] == 70
    assert copied["list"] == [1]


def test_a_copy_reuses_memory_of_the_same_layout():
    """`out` gives its memory where dtypes, shapes and ties agree, and is left alone where they do not."""
    old = independent({"a": np.ones(3)})
    again = independent({"a": np.full(3, 2.0)}, out=old)
    assert again["a"] is old["a"]
    np.testing.assert_array_equal([2, 2, 2], again["a"])
    other = independent({"a": np.ones(4)}, out=old)
    assert other["a"] is not old["a"]
    alias = independent(old, out=old)
    assert alias["a"] is not old["a"]


def test_keys_are_mapped_where_they_are_tensors():
    """A tensor can be a key, alone or in a tuple; keys of plain values are left alone."""
    leaf = leaf_of(np.ones(1))
    tree = {leaf: 1, (leaf, 2): [3], 4: leaf, "x": OrderedDict({leaf: 5})}
    assert tensors_of(tree) == [leaf]
    replaced = map_tree(tree, lambda value: "tensor" if value is leaf else value)
    assert replaced == {"tensor": 1, ("tensor", 2): [3], 4: "tensor", "x": {"tensor": 5}}


@pytest.mark.parametrize("tree", [{("key",): 1}, {"key"}, frozenset({"key"}), [{("key", 1): 2}]])
def test_what_cannot_be_a_key_is_an_error(tree):
    """NumPy arrays cannot be hashed, so a tensor that is a key cannot become one."""
    with pytest.raises(FormatError, match=r"has an array as a key or an item.*backend=.torch."):
        map_tree(tree, lambda value: np.ones(1) if value == "key" else value)
