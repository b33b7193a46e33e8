"""KeyMap: rename, and let tensors and metadata follow."""

import warnings
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.errors import CollisionError, NotAStateError
from statedict.plan import KeyMap
from statedict.state import StateDict

GPT2 = """
# a GPT-2 of one library into the names of another
transformer.h.{i}.ln_1.{*p} -> layers.{i}.norm1.{*p}
transformer.h.{i}.attn.c_attn.weight -> layers.{i}.attn.{q,k,v}.weight | transpose | split 0
transformer.h.{i}.attn.c_attn.bias -> layers.{i}.attn.{q,k,v}.bias | split 0
transformer.h.{i}.mlp.c_fc.weight -> layers.{i}.up.weight | transpose

transformer.h.{i}.mlp.c_fc.bias -> layers.{i}.up.bias
transformer.{wte,wpe}.{*p} -> {tokens,positions}.{*p}
"""


@pytest.fixture
def gpt2():
    rng = np.random.default_rng(0)
    shapes = {"transformer.wte.weight": (10, 4), "transformer.wpe.weight": (6, 4)}
    for i in range(2):
        shapes |= {
            f"transformer.h.{i}.ln_1.weight": (4,),
            f"transformer.h.{i}.attn.c_attn.weight": (4, 12),
            f"transformer.h.{i}.attn.c_attn.bias": (12,),
            f"transformer.h.{i}.mlp.c_fc.weight": (4, 16),
            f"transformer.h.{i}.mlp.c_fc.bias": (16,),
        }
    return StateDict({name: rng.normal(size=shape) for name, shape in shapes.items()}, backend="numpy")


def equal(a, b):
    """The same names in any order, and the same elements."""
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_real_map_by_hand(gpt2):
    """A map gives what slicing and transposing by hand gives, and its inverse gives it all back, exactly."""
    key_map = KeyMap(GPT2)
    renamed = key_map.rename(gpt2)
    expected = {"tokens.weight": gpt2["transformer.wte.weight"], "positions.weight": gpt2["transformer.wpe.weight"]}
    for i in range(2):
        old, new = f"transformer.h.{i}.", f"layers.{i}."
        expected[new + "norm1.weight"] = gpt2[old + "ln_1.weight"]
        for n, part in enumerate("qkv"):
            rows = slice(4 * n, 4 * n + 4)
            expected[f"{new}attn.{part}.weight"] = gpt2[old + "attn.c_attn.weight"].T[rows]
            expected[f"{new}attn.{part}.bias"] = gpt2[old + "attn.c_attn.bias"][rows]
        expected[new + "up.weight"] = gpt2[old + "mlp.c_fc.weight"].T
        expected[new + "up.bias"] = gpt2[old + "mlp.c_fc.bias"]
    assert equal(renamed.numpy(), expected)
    back = key_map.inverse.rename(renamed)
    assert equal(back.numpy(), gpt2)
    assert key_map.inverse.inverse is key_map


def test_values_that_are_only_renamed_pass_untouched(gpt2):
    """A value without operations stays the same object."""
    renamed = KeyMap(GPT2).rename(gpt2)
    assert renamed["layers.1.norm1.weight"] is gpt2["transformer.h.1.ln_1.weight"]


def test_experts_stack_in_natural_order():
    """As many experts as there are become one tensor, the tenth after the ninth, and one becomes as many."""
    experts = {f"layers.0.experts.{e}.w": np.full((2,), e) for e in range(12)}
    shuffled = StateDict({name: experts[name] for name in sorted(experts)}, backend="numpy")
    key_map = KeyMap("layers.{i}.experts.{e}.w -> layers.{i}.experts.w | stack 0")
    stacked = key_map.rename(shuffled)
    assert stacked["layers.0.experts.w"][:, 0].tolist() == list(range(12))
    assert equal(key_map.inverse.rename(stacked).numpy(), experts)


def test_one_becomes_as_many_as_it_is_long_at_that_point():
    """An open placeholder on the right counts the parts of the tensor as the operations before made it."""
    state = StateDict({"w": np.arange(6).reshape(3, 2)}, backend="numpy")
    key_map = KeyMap("w -> w.{e} | transpose | unstack 0")
    assert {name: part.tolist() for name, part in key_map.rename(state).items()} == {"w.0": [0, 2, 4], "w.1": [1, 3, 5]}
    assert equal(key_map.inverse.rename(key_map.rename(state)), state)


def test_what_is_not_complete_is_left_alone():
    """A join that lacks a tensor is skipped, and a warning names the tensor."""
    state = {"0.q.w": np.ones(1), "0.k.w": np.ones(1), "1.q.w": np.ones(1), "1.k.w": np.ones(1), "1.v.w": np.ones(1)}
    with pytest.warns(UserWarning, match="was not applied to 0.q.w, 0.k.w: '0.v.w' is missing"):
        renamed = KeyMap("{i}.{q,k,v}.w -> {i}.qkv.w | cat 0").rename(state)
    assert list(renamed) == ["0.q.w", "0.k.w", "1.qkv.w"]
    with pytest.warns(UserWarning, match=r"'e\.1\.w' is missing"):
        assert "e.2.w" in KeyMap("e.{n}.w -> e.w | stack 0").rename({"e.0.w": np.ones(1), "e.2.w": np.ones(1)})


def test_metadata_follows():
    """The metadata of a module follows its tensors; if it becomes several modules, each gets it."""
    metadata = OrderedDict({"": {"version": 1}, "0": {}, "0.qkv": {"version": 7}, "norm": {"version": 2}})
    state = StateDict({"0.qkv.weight": np.zeros((6, 2)), "norm.weight": np.ones(2)}, metadata)
    renamed = KeyMap(["0.qkv.weight -> a.{q,k,v}.weight | split 0", "norm -> n.inner"]).rename(state)
    assert renamed._metadata["n.inner"] == {"version": 2}
    assert {path for path, entry in renamed._metadata.items() if entry == {"version": 7}} == {"a.q", "a.k", "a.v"}
    assert state._metadata == metadata
    assert KeyMap("a -> b").rename({"a": 1})._metadata is None


def test_a_rule_without_holes_is_a_name_or_a_module():
    """`old -> new` renames this name and all names below it, not those that merely begin with it."""
    key_map = KeyMap("encoder -> backbone")
    assert [key_map(n) for n in ("encoder", "encoder.0.w", "encoders.w", "x.encoder")] == [
        "backbone",
        "backbone.0.w",
        "encoders.w",
        "x.encoder",
    ]


@pytest.mark.parametrize(
    "rules",
    [["a.{*p} -> x.{*p}", "a.b -> y"], ["a.{i} -> x.{i}", "a.b -> y", "/a.b/ -> z"], [{"a.b": "x.b"}, "a.{*p} -> y"]],
)
def test_the_first_rule_that_fits_counts(rules):
    """The first matching rule applies, whatever its kind."""
    assert KeyMap(rules)("a.b") == "x.b"


def test_everything_that_makes_a_map():
    """Text, lists, mappings, functions and other maps are rules."""
    key_map = KeyMap(["a -> b", {"c": "d"}, KeyMap("e -> f"), str.upper, r"/(g)/ -> \1\1"])
    assert [key_map(name) for name in "aceh"] == ["b", "d", "f", "H"]
    assert len(key_map) == 5
    assert KeyMap(None)("x") == "x"
    assert KeyMap({"h.{i}.{a,b}": "l.{i}.{c,d}", "x, y": "z"})("h.3.b") == "l.3.d"
    assert KeyMap(r"/(g)(.*)/ -> \2\1")("gh") == "hg"
    assert "str.upper" in str(key_map)


def test_a_function_must_give_a_name():
    """A function that returns nothing is an error that says so."""
    with pytest.raises(NotAStateError, match="must return a string for 'a', not None"):
        KeyMap(lambda name: None)("a")


def test_collisions_name_both_sources():
    """Two sources for one name are an error, whether one or both were renamed."""
    with pytest.raises(CollisionError) as caught:
        KeyMap("a -> b").rename({"a": 1, "b": 2})
    assert (caught.value.name, caught.value.sources) == ("b", ("a", "b"))
    with pytest.raises(CollisionError, match=r"'x\.0' and 'y\.0' would both become 'z\.0'"):
        KeyMap("{x,y}.{i} -> {z,z}.{i}").rename({"x.0": 1, "y.0": 2})


def test_a_rule_that_fits_nothing_warns_with_the_nearest_name():
    """A rule that matches nothing gives a warning with the nearest name."""
    with pytest.warns(
        UserWarning, match=r"'encodr.{\*p} -> x.{\*p}' does not match any name; the nearest is 'encoder.weight'"
    ):
        KeyMap("encodr.{*p} -> x.{*p}").rename({"encoder.weight": 1})


def test_a_name_alone_cannot_be_converted():
    """Asking for the new name of a tensor that a rule converts is an error."""
    with pytest.raises(ValueError, match=r"also converts the tensor 'a\.w'"):
        KeyMap("a.w -> b.w | transpose")("a.w")


@pytest.mark.parametrize("value", [3, "text"])
def test_only_tensors_are_converted(value):
    """A rule with operations on a value that is not a tensor is an error."""
    with pytest.raises(ValueError, match="converts strided tensors, but 'a' is not one"):
        KeyMap("a -> b | transpose").rename({"a": value})


def test_operations_that_do_not_fit_name_the_tensor():
    """The rule, the name and the shape are in the error."""
    with pytest.raises(ValueError, match=r"'a -> b \| transpose' cannot be applied to 'a': .*shape \[3\]"):
        KeyMap("a -> b | transpose").rename({"a": np.ones(3)})


TOML = """\
rules = [
    "h.{i}.{*p} -> layers.{i}.{*p}",
    "/a\\\\.\\"(.)/ -> \\\\1",
]
"""


def test_toml():
    """A map is saved as TOML and loaded again, quotes and backslashes included."""
    key_map = KeyMap(["h.{i}.{*p} -> layers.{i}.{*p}", '/a\\."(.)/ -> \\1'])
    assert key_map.to_toml() == TOML
    assert str(KeyMap.from_toml(TOML)) == str(key_map)
    with pytest.raises(ValueError, match="expected a TOML list"):
        KeyMap.from_toml('rules = "a -> b"')


@pytest.mark.parametrize("rule", [str.upper, {"a, b": "c"}, {"a -> b": "c"}, {"a|b": "c|d"}, {" a": "b"}])
def test_what_cannot_be_written_down_is_refused(rule):
    """A function, or a name that the grammar would read differently, cannot be saved."""
    with pytest.raises(ValueError, match="cannot be saved as text"):
        KeyMap(rule).to_toml()


word = st.text("abc", min_size=1, max_size=2)


@st.composite
def maps(draw):
    """Rules with distinct left sides and distinct right sides, and names, some of which fit."""
    lefts = draw(st.lists(word, unique=True, min_size=1, max_size=4))
    rights = draw(st.lists(word.map(str.upper), unique=True, min_size=len(lefts), max_size=len(lefts)))
    tails = [draw(st.sampled_from(["", ".{i}", ".{*p}", ".{i}.{j}", ".{i}.x.{*p}"])) for _ in lefts]
    rules = [f"{old}{tail} -> {new}{tail.replace('x', 'y')}" for old, new, tail in zip(lefts, rights, tails)]
    names = draw(
        st.lists(st.lists(st.sampled_from([*lefts, "x", "0", "1"]), min_size=1, max_size=4).map(".".join), unique=True)
    )
    return KeyMap(rules), names


@settings(max_examples=60)
@given(maps())
def test_rename_then_inverse_is_the_identity(drawn):
    """On random maps and names, the inverse brings every name back, with its value."""
    key_map, names = drawn
    state = {name: n for n, name in enumerate(names)}
    assert key_map.strays(names) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rules that fit none of the names
        assert dict(key_map.inverse.rename(key_map.rename(state))) == state


@settings(max_examples=60)
@given(maps())
def test_the_text_of_a_map_is_the_map(drawn):
    """Printing and TOML both give the same map again."""
    key_map, _ = drawn
    assert KeyMap(str(key_map)) == key_map == KeyMap.from_toml(key_map.to_toml())
    assert hash(KeyMap(str(key_map))) == hash(key_map)


@given(st.lists(st.sampled_from(["a", "b", "c.0", "a.0", "b.0", "b.1", "z.a", "z.b"]), unique=True))
@settings(max_examples=60)
def test_strays_are_exactly_the_names_that_do_not_come_back(names):
    """Where a map is not one to one on some names, `strays` lists just those."""
    key_map = KeyMap(["a.{i} -> b.{i}", "z.{*p} -> {*p}"])
    back = [key_map.inverse(key_map(name)) for name in names]
    assert key_map.strays(names) == [name for name, there in zip(names, back) if name != there]


def test_a_reshape_cannot_be_inverted():
    """A rule that reshapes has no inverse, because it does not say which shape there was."""
    rule = KeyMap("w -> w | reshape 6")
    assert rule.rename({"w": np.arange(6.0).reshape(2, 3)}).numpy()["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert not rule.invertible
    with pytest.raises(ValueError, match="cannot be inverted: 'reshape' loses the original shape"):
        _ = rule.inverse
