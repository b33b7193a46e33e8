"""StateDict: a dict with the usual methods, and operations on names that read nothing."""

import pickle
from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict import KeyMap
from statedict.errors import CollisionError, NotAStateError, UnknownNameError
from statedict.state import Leaf, StateDict, Storage, contiguous, dtype

names = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


class Counting:
    """A Source that counts how often it is read: a fake file."""

    def __init__(self, content=b"\0" * 64):
        self.content, self.reads, self.verified = content, 0, 0

    def read_into(self, reads, *, verify=True):
        self.reads += 1
        self.verified += verify
        for _, start, into in reads:
            into[:] = self.content[start : start + len(into)]

    def verify(self, storages):
        self.verified += 1

    def view(self, storage, *, writable=False):
        return None


@pytest.fixture
def source():
    return Counting(np.arange(16, dtype="<f4").tobytes())


@pytest.fixture
def lazy(source):
    storage = Storage(source, "s", 64)
    f4 = dtype("float32")
    return StateDict(
        {"a.w": Leaf(contiguous(f4, (2, 2)), storage), "b.w": Leaf(contiguous(f4, (2,), 2), storage), "step": 3},
        {"": {"version": 1}, "a": {"version": 2}, "b": {"version": 1}, "act": {"version": 1}},
        backend="numpy",
    )


def arrays(*keys):
    return StateDict({key: np.full(2, i) for i, key in enumerate(keys)}, backend="numpy")


def test_it_keeps_order_and_answers_as_a_dict():
    """Iteration is insertion order; get, pop, del, in and len are a dict's."""
    state = arrays("b", "a")
    assert list(state) == ["b", "a"]
    assert state.get("nothing") is None
    state["c"] = 1
    assert state.pop("c") == 1
    del state["b"]
    assert list(state) == ["a"]
    assert "b" not in state


def test_union_and_update_take_the_later_value():
    """`|`, `|=` and update follow dict; both sides may be plain dicts."""
    left, right = StateDict({"a": 1, "b": 1}), {"b": 2, "c": 2}
    assert dict(left | right) == {"a": 1, "b": 2, "c": 2}
    assert dict(right | left) == {"b": 1, "c": 2, "a": 1}
    left.update(right)
    assert dict(left) == {"a": 1, "b": 2, "c": 2}


def test_copies_are_shallow_and_independent():
    """A copy has the same values and its own names."""
    state = arrays("a")
    copied = state.copy()
    copied["b"] = 1
    assert list(state) == ["a"]
    assert copied["a"] is state["a"]


def test_an_unknown_name_says_what_was_near():
    """A missing name is a KeyError that names the nearest one."""
    with pytest.raises(KeyError, match=r"'encoder\.wieght' is not in the state dict; did you mean 'encoder\.weight'\?"):
        arrays("encoder.weight")["encoder.wieght"]
    with pytest.raises(UnknownNameError):
        del arrays("a")["b"]


@pytest.mark.parametrize("make", [lambda: StateDict({3: 1}), lambda: StateDict().__setitem__(3, 1)])
def test_names_are_strings(make):
    """A name that is not a string is refused at once, with the name and its type."""
    with pytest.raises(NotAStateError, match=r"names in a state dict must be strings.*3.*int"):
        make()


def test_it_pickles_as_an_ordered_dict(lazy):
    """A pickle names no class of this library and keeps `_metadata`."""
    raw = pickle.dumps(StateDict({"a": 1}, {"": {"version": 1}}))
    assert b"statedict" not in raw
    back = pickle.loads(raw)
    assert type(back) is OrderedDict
    assert back._metadata == {"": {"version": 1}}


def test_specs_cost_no_read(lazy, source):
    """Spec, ties, size and every method of the algebra read nothing."""
    assert lazy.spec("a.w").shape == (2, 2)
    assert lazy.tied == [("a.w", "b.w")]
    lazy.select("a").with_prefix("x").rename(str.upper).to("float16").drop("z")
    assert lazy.nbytes == 24
    assert source.reads == 0


def test_reading_a_leaf_verifies_it_and_keeps_ties(lazy, source):
    """The first access reads once, after its checksum; tied names show one memory."""
    lazy["a.w"][1, 0] = 70
    assert lazy["b.w"][0] == 70
    assert (source.reads, source.verified) == (1, 1)
    assert lazy["a.w"] is lazy["a.w"]


def test_casts_happen_when_read(lazy, source):
    """`to` is lazy: the spec has the new dtype, and the bytes are read and cast later."""
    half = lazy.to("float16", only="a")
    assert half.spec("a.w").dtype.name == "float16"
    assert half.spec("b.w").dtype.name == "float32"
    assert source.reads == 0
    assert np.float16 == half["a.w"].dtype
    np.testing.assert_array_equal([[0, 1], [2, 3]], half["a.w"])


def test_a_value_that_is_not_a_tensor_has_no_spec(lazy):
    """Asking for the spec of a plain value is an error that names its type."""
    with pytest.raises(TypeError, match="'step' is an int"):
        lazy.spec("step")
    assert lazy.leaf("step") is None


def test_metadata_follows_selection(lazy):
    """Entries of modules without any remaining name are removed; modules without names stay."""
    assert list(lazy.select("a")._metadata) == ["", "a", "act"]
    assert list(lazy.drop("a.*")._metadata) == ["", "b", "act"]


def test_metadata_follows_prefix_and_sub(lazy):
    """`with_prefix` and `sub` move metadata with the names, and undo each other."""
    moved = lazy.with_prefix("model.")
    assert list(moved._metadata) == ["model", "model.a", "model.b", "model.act"]
    assert lazy._metadata == moved.sub("model")._metadata
    assert list(lazy) == list(moved.sub("model"))
    assert lazy.sub("a")._metadata == {"": {"version": 2}}


def test_metadata_follows_renames(lazy):
    """A module's entry goes where its names went, and a nameless child with its parent."""
    state = StateDict(
        {"enc.0.w": 1, "enc.0.b": 1, "out.w": 1},
        {"": 0, "enc": 1, "enc.0": 2, "enc.1": 3, "out": 4},
    )
    renamed = state.rename(lambda name: name.replace("enc.", "encoder.layers."))
    assert renamed._metadata == {"": 0, "encoder.layers": 1, "encoder.layers.0": 2, "encoder.layers.1": 3, "out": 4}
    assert list(renamed) == ["encoder.layers.0.w", "encoder.layers.0.b", "out.w"]


def test_a_collision_names_both_sources():
    """Two names for one raise, and nothing is lost silently."""
    with pytest.raises(CollisionError, match=r"'a' and 'b' would both become 'x'"):
        arrays("a", "b").rename({"a": "x", "b": "x"})


def test_sub_of_nothing_is_an_error():
    """A path without any name below it is an error that names the nearest path."""
    with pytest.raises(UnknownNameError, match="did you mean 'encoder'"):
        arrays("encoder.weight").sub("encodr")


def test_live_arrays_know_their_ties():
    """Views of one array are tied, and their specs have the offset in it."""
    base = np.arange(10.0)
    state = StateDict({"all": base, "odd": base[1::2], "other": np.arange(10.0)})
    assert state.tied == [("all", "odd")]
    assert state.spec("odd")[1:] == ((5,), (2,), 1)


@given(st.dictionaries(names, st.integers(), max_size=8), st.lists(names, max_size=3))
def test_select_and_drop_partition(values, patterns):
    """Every entry is in exactly one of select(p) and drop(p), in order."""
    state = StateDict(values)
    chosen, rest = state.select(*patterns), state.drop(*patterns)
    assert set(values) == set(chosen) | set(rest)
    assert not set(chosen) & set(rest)
    assert [n for n in values if n in chosen] == list(chosen)


@given(st.dictionaries(names, st.integers(), min_size=1, max_size=8))
def test_rename_and_its_inverse_are_the_identity(values):
    """rename(f).rename(f⁻¹) gives the names and metadata back."""
    forward = {name: f"new.{i}.{name}" for i, name in enumerate(values)}
    state = StateDict(values, {"": 1})
    back = state.rename(forward).rename({new: old for old, new in forward.items()})
    assert list(state.items()) == list(back.items())


def test_a_fingerprint_is_of_content_not_of_storage():
    """A fingerprint depends on elements, dtypes and names, not on strides, ties or order."""
    a = np.arange(6, dtype="f4").reshape(2, 3)
    print_of = StateDict({"x": a, "y": a}).fingerprint()
    assert print_of == StateDict({"y": a.copy(), "x": np.asfortranarray(a)}).fingerprint()
    assert print_of != StateDict({"x": a, "y": a + 1}).fingerprint()
    assert print_of != StateDict({"x": a, "y": a.astype("f8")}).fingerprint()
    assert print_of != StateDict({"x": a, "z": a}).fingerprint()


def test_a_deep_copy_is_a_state():
    """`copy.deepcopy` gives a StateDict of its own arrays, with `_metadata`."""
    state = StateDict({"w": np.ones(2)}, {"": {"version": 1}})
    copied = deepcopy(state)
    copied["w"][:] = 0
    assert (type(copied), copied._metadata, state["w"].tolist()) == (StateDict, state._metadata, [1, 1])


def test_lists_of_names_and_patterns():
    """`select` and `drop` take patterns and lists of them; `only` takes any iterable of names."""
    state = StateDict({"a.w": 1, "b": 2, "c": 3})
    assert list(state.select(["a", "b"])) == list(state.select("a", "b")) == ["a.w", "b"]
    assert list(state.drop(["a", "b"])) == ["c"]
    assert list(state.only(name for name in ("c", "a.w", "a"))) == ["a.w", "c"]


def test_rules_as_text_rename():
    """`rename` takes what `load_state_dict(rename=)` takes."""
    assert list(StateDict({"a.w": 1, "b": 2}).rename("a.{*p} -> c.{*p}")) == ["c.w", "b"]
    transposed = StateDict({"a.w": np.ones((2, 3))}).rename(KeyMap("a.{*p} -> c.{*p} | transpose"))
    assert transposed["c.w"].shape == (3, 2)


@pytest.mark.parametrize("names", [{"head.wight": "x"}, "head.wight -> x"])
def test_a_name_to_rename_that_does_not_exist_is_reported(names):
    """`rename` warns of a name that does not match, and gives the nearest one."""
    with pytest.warns(UserWarning, match=r"head\.wight.* does not match any name; the nearest is 'head\.weight'"):
        assert list(StateDict({"head.weight": 1}).rename(names)) == ["head.weight"]


@pytest.mark.parametrize(("name", "found"), [("half", "float16"), ("bf16", "bfloat16"), ("double", "float64")])
def test_short_names_of_dtypes(name, found):
    """The usual short names of dtypes are known."""
    assert StateDict({"w": np.ones(1, "f4")}).to(name).spec("w").dtype.name == found


def test_to_casts_only():
    """A device is not a dtype; the error says where devices are chosen."""
    with pytest.raises(ValueError, match=r"'cpu' is not a dtype.*map_location"):
        StateDict({"w": np.ones(1)}).to("cpu")


def test_the_ends_are_those_of_a_dict():
    """`popitem` takes the last entry, as a dict does, or the first; `move_to_end` moves as an OrderedDict does."""
    sd = StateDict({"a": 1, "b": 2, "c": 3})
    assert sd.popitem() == ("c", 3)
    assert sd.popitem(last=False) == ("a", 1)
    sd.popitem()
    with pytest.raises(KeyError, match="the state dict is empty"):
        sd.popitem()
    sd, od = StateDict({"a": 1, "b": 2, "c": 3}), OrderedDict(a=1, b=2, c=3)
    for name, last in [("a", True), ("c", False), ("b", True), ("b", True), ("c", False)]:
        sd.move_to_end(name, last)
        od.move_to_end(name, last)
        assert list(sd.items()) == list(od.items())
    with pytest.raises(UnknownNameError, match="'x' is not in the state dict"):
        sd.move_to_end("x")


@pytest.mark.parametrize("other", [{3: 4}, {None: 1}, {"a": 1, b"b": 2}])
def test_names_are_strings_however_they_come(other):
    """No way of adding entries takes a name that is not a string, and none adds some of them before it refuses."""
    for act in (
        lambda sd: sd | other,
        lambda sd: other | sd,
        lambda sd: sd.__ior__(other),
        lambda sd: sd.update(other),
        lambda sd: sd.update(list(other.items())),
        lambda sd: sd.update([*other.items()]),
        lambda sd: StateDict(other),
        lambda sd: sd.setdefault(next(name for name in other if name != "a"), 1),
    ):
        sd = StateDict({"x": 1})
        with pytest.raises(NotAStateError, match="the names in a state dict must be strings"):
            act(sd)
        assert dict(sd) == {"x": 1}


def test_only_mappings_are_joined():
    """`|` with anything but a mapping is Python's TypeError; `update` and the constructor say what they accept."""
    with pytest.raises(TypeError, match="unsupported operand"):
        StateDict({"a": 1}) | 3
    with pytest.raises(TypeError, match="unsupported operand"):
        3 | StateDict({"a": 1})
    for act in (StateDict, StateDict({"a": 1}).update):
        with pytest.raises(
            NotAStateError, match=r"is made from a mapping or from pairs \(name, value\), not from an int"
        ):
            act(3)


def test_names_of_another_type_are_not_there():
    """Looking up a name that is not text finds nothing, hashable or not."""
    sd = StateDict({"a": 1})
    for name in (3, None, [1], {"a": 1}):
        assert name not in sd
        assert sd.get(name) is None
        for act in (sd.__getitem__, sd.__delitem__, sd.pop, sd.leaf, sd.spec):
            with pytest.raises(UnknownNameError, match="is not in the state dict"):
                act(name)
