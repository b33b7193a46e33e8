"""match and its plans: made from specs, executed without a copy, with the same result as by hand."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost import calls, seconds

from statedict.errors import CollisionError, UnknownNameError
from statedict.plan import match
from statedict.state import Leaf, StateDict, Storage, contiguous, dtype


def zeros(**shapes):
    return {name.replace("__", "."): np.zeros(shape, "f4") for name, shape in shapes.items()}


class Unreadable:
    """A Source that must not be asked for bytes."""

    def read_into(self, reads, *, verify=True):
        raise AssertionError("planning read a tensor")

    verify = view = read_into


@pytest.fixture
def unread():
    """Leaves that cannot be read, by name."""

    def make(**shapes):
        storages = {name: Storage(Unreadable(), name, 4096) for name in shapes}
        return {n.replace("__", "."): Leaf(contiguous(dtype("float32"), s), storages[n]) for n, s in shapes.items()}

    return make


def test_planning_and_executing_read_nothing(unread):
    """Every option is decided on specs, and executing only makes leaves."""
    source = unread(module__a__w=(3, 4), module__b__w=(5,), c=(2, 2), gone=(1,))
    target = zeros(a__w=(4, 4), b__w=(5,), d=(2, 2))
    plan = match(
        source,
        target,
        rename="c -> d | transpose",
        exclude="gone",
        mismatched="slice",
        dtype={"b": "float16"},
        device="cpu",
    )
    state = plan.execute(source)
    assert plan.ok
    assert {name: state.spec(name)[:2] for name in state} == {
        "a.w": (dtype("float32"), (4, 4)),
        "b.w": (dtype("float16"), (5,)),
        "d": (dtype("float32"), (2, 2)),
    }
    assert [step.device for step in plan.steps] == ["cpu"] * 3
    assert "3 of 3 tensors filled, 0 problems" in str(plan)


def test_a_state_that_fits_is_given_back_itself():
    """If names are equal and no option is given, the state is returned as it is; mismatches are still found."""
    source = StateDict(zeros(a=(2,), b=(3,)))
    plan = match(source, zeros(b=(3,), a=(2,)))
    assert plan.fills is None
    assert plan.execute(source) is source
    assert [step.target for step in plan.steps] == ["a", "b"]
    misfit = match(source, zeros(a=(2,), b=(4,)))
    assert [tuple(one) for one in misfit.mismatched] == [("b", (3,), (4,), "")]
    assert misfit.execute(source) is source


def test_executing_a_mapping_gives_a_state_dict():
    """The source may be any mapping; what comes out is a StateDict, and the source is untouched."""
    source = OrderedDict({"a": 1})
    source._metadata = OrderedDict({"": {"version": 2}})
    state = match(source, {"a": 0}).execute(source)
    assert (type(state), dict(state), state._metadata) == (StateDict, {"a": 1}, source._metadata)


def test_live_values_pass_untouched():
    """A value without operations stays the same object; names that match nothing are kept."""
    weight, extra, other = np.ones((2, 2)), {"step": 3}, object()
    source = {"module.w": weight, "module._extra_state": extra, "other": other}
    state = match(source, {"w": np.zeros((2, 2)), "_extra_state": None}).execute(source)
    assert state["w"] is weight
    assert state["_extra_state"] is extra
    assert state["other"] is other


def test_missing_unexpected_and_mismatched_are_problems():
    """Problems are listed in words; mismatched tensors are passed on for the loader to refuse."""
    plan = match(zeros(a=(2,), b=(3,), c=(1,)), zeros(a=(2,), b=(4,), d=(1,)))
    assert not plan.ok
    assert [tuple(problem) for problem in plan.problems] == [
        ("missing", "d", "'d' is not in the source"),
        ("unexpected", "c", "'c' is not in the model"),
        ("mismatched", "b", "'b' has shape [3], the model expects [4]"),
    ]
    assert set(plan.execute(plan.given)) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [
        (np.zeros(1), np.zeros(()), True),  # PyTorch takes one element for a scalar …
        (np.zeros(()), np.zeros(1), False),  # … but not the other way round
        ("text", np.zeros(1), False),
        (np.zeros(1), None, True),
        ({"any": 1}, "thing", True),
    ],
)
def test_what_fits(found, wanted, fits):
    """Equal shapes fit, one element fits a scalar, and a slot that is not a tensor takes anything."""
    assert match({"a": found}, {"a": wanted}).ok is fits


def test_a_plan_is_for_what_it_was_made_for():
    """A plan that adapts tensors raises if it is executed on values that are not tensors."""
    plan = match({"a": np.ones(2, "f4")}, {"a": np.ones(2, "f4")}, dtype="float16")
    with pytest.raises(TypeError, match="'a' is no longer a strided tensor, as it was when the plan was made"):
        plan.execute({"a": "text"})
    with pytest.raises(ValueError, match="converts strided tensors, but 'a' is a str"):
        match({"a": np.ones((2, 2))}, {"b": np.ones((2, 2))}, rename="a -> b | transpose").execute({"a": "text"})


# selection


def test_include_and_exclude():
    """What is not selected is neither missing nor unexpected, on either side, and is listed."""
    source = zeros(module__enc__w=(1,), module__enc__b=(1,), module__dec__w=(1,), module__old=(1,))
    target = zeros(enc__w=(1,), enc__b=(1,), enc__x=(1,), dec__w=(1,), head=(1,))
    plan = match(source, target, include="enc", exclude="*.b")
    assert [step.target for step in plan.steps] == ["enc.w"]
    assert plan.missing == ("enc.x",)
    assert plan.unexpected == ()
    assert plan.excluded == ("enc.b", "dec.w", "head", "module.old")
    assert plan.withheld == {"enc.b", "dec.w", "head"}


def test_patterns_fit_any_name_that_a_tensor_has():
    """A pattern may be written for the source's name, the renamed one, or the slot's."""
    source, target = zeros(bert__a=(1,), bert__b=(1,), c=(1,)), zeros(model__a=(1,), model__b=(1,), c=(1,))
    for pattern in ("bert.a", "model.a"):
        plan = match(source, target, rename="bert.{*p} -> model.{*p}", include=pattern)
        assert [step.target for step in plan.steps] == ["model.a"]
        plan = match(source, target, rename="bert.{*p} -> model.{*p}", exclude=pattern)
        assert [step.target for step in plan.steps] == ["model.b", "c"]
        assert plan.excluded == ("model.a",)
        assert plan.ok


def test_exclude_settles_a_collision():
    """What is excluded by its own name fills nothing, so that the other candidate does."""
    plan = match({"_forward_module.a": 1, "_orig_mod.a": 2}, {"a": 0}, exclude="_orig_mod.*")
    assert [step.sources for step in plan.steps] == [("_forward_module.a",)]
    assert plan.excluded == ("_orig_mod.a",)


def test_no_patterns_select_everything():
    """Empty lists of patterns select everything."""
    assert len(match({"a": 1}, {"a": 0}, include=[], exclude=[]).steps) == 1


def test_an_include_that_selects_nothing_raises():
    """Selecting nothing at all is an error."""
    with pytest.raises(
        UnknownNameError, match=r"'encodr' is not in the source or the model; did you mean 'encoder\.w'"
    ):
        match({"encoder.w": 1}, {"encoder.w": 0}, include="encodr")


@pytest.mark.parametrize("option", ["include", "exclude", "mismatched", "dtype", "device"])
def test_a_pattern_that_fits_nothing_is_noted(option):
    """A pattern that matches nothing gives a warning with the nearest name."""
    patterns = (
        ["encoder", "hed"]
        if option in ("include", "exclude")
        else {"hed.*": "skip" if option == "mismatched" else "float16"}
    )
    plan = match(zeros(encoder=(1,), head__w=(1,)), zeros(encoder=(1,), head__w=(1,)), **{option: patterns})
    assert len(plan.notes) == 1
    assert "does not match any name; the nearest is 'head.w'" in plan.notes[0]


@given(
    st.lists(st.sampled_from(["a.x", "a.y", "b.x", "b.y", "c"]), unique=True), st.sampled_from(["a", "*.x", "c", "b.y"])
)
def test_include_and_exclude_part_the_names(names, pattern):
    """Every name is either included or excluded by a pattern, never both."""
    state = dict.fromkeys(names, 1)
    try:
        included = {step.target for step in match(state, state, include=pattern).steps}
    except UnknownNameError:
        included = set()
    excluded = {step.target for step in match(state, state, exclude=pattern).steps}
    assert included | excluded == set(names)
    assert not included & excluded


# renames


def test_renames_see_through_wrappers():
    """A rule written for a bare model is applied to a wrapped checkpoint."""
    plan = match({"module.h.0.w": 1, "module.x": 2}, {"layers.0.w": 0, "x": 0}, rename="h.{*p} -> layers.{*p}")
    assert dict(plan.execute(plan.given)) == {"layers.0.w": 1, "x": 2}
    with pytest.raises(CollisionError):
        match({"module.h.w": 1, "h.w": 2}, {"y.w": 0}, rename="h -> y")


def test_converting_rules_in_a_plan():
    """A fused tensor fills three slots, and three tensors one, as by hand."""
    fused = np.arange(24.0).reshape(12, 2)
    plan = match({"qkv.w": fused}, zeros(q__w=(4, 2), k__w=(4, 2), v__w=(4, 2)), rename="qkv.w -> {q,k,v}.w | split 0")
    parts = plan.execute(plan.given).numpy()
    assert [parts[f"{n}.w"].tolist() for n in "qkv"] == [part.tolist() for part in np.split(fused, 3)]
    back = match(parts, zeros(qkv__w=(12, 2)), rename="{q,k,v}.w -> qkv.w | cat 0")
    assert np.array_equal(back.execute(parts).numpy()["qkv.w"], fused)
    assert "q.w and 2 more -> qkv.w  (cat 0)" in str(back)


def test_converted_tensors_of_no_slot_are_passed_on():
    """A converted part without a slot is unexpected under its new name, and still a tensor."""
    plan = match({"ab": np.arange(4.0)}, zeros(a=(2,)), rename="ab -> a, b | split 0")
    assert plan.unexpected == ("b",)
    assert plan.execute(plan.given).numpy()["b"].tolist() == [2.0, 3.0]


def test_an_idle_rule_is_noted():
    """A rule that fits no name is a warning in the plan, not an error."""
    assert match(zeros(a=(1,)), zeros(a=(1,)), rename="b -> c").notes == ("'b -> c' does not match any name",)


# dtype and device


def test_dtype_by_pattern():
    """Floating-point tensors are cast where a pattern says so, rounded as NumPy rounds; others stay as they are."""
    source = {"a.w": np.array([1.0, 1 + 2**-9], "f4"), "a.n": np.array([3]), "b.w": np.ones(2, "f4")}
    plan = match(source, source, dtype={"a": "bfloat16", "*": np.dtype("float32")})
    state = plan.execute(source)
    assert {name: str(state.spec(name).dtype) for name in state} == {
        "a.w": "bfloat16",
        "a.n": "int64",
        "b.w": "float32",
    }
    assert state["b.w"] is source["b.w"]
    assert state.numpy()["a.w"].astype("f4").tolist() == [1.0, 1.0]
    assert [tuple(cast)[1:] for cast in plan.report().cast] == [
        ("float32", "bfloat16", "rounding"),
        ("bfloat16", "float32", "widening"),
    ]


def test_casts_keep_ties():
    """Two names of one tensor are still one after a cast."""
    shared = np.ones(3, "f4")
    state = match({"a": shared, "b": shared}, {"a": shared, "b": shared}, dtype="float16").execute(
        {"a": shared, "b": shared}
    )
    assert state.tied == [("a", "b")]


def test_an_unknown_dtype_is_refused():
    """The dtype's name is in the error."""
    with pytest.raises(ValueError, match="dtype='float99' is not a dtype"):
        match({}, {}, dtype="float99")


def test_sparse_and_quantised_tensors_pass():
    """Tensors that are not strided are not cast or adapted: they are passed on, or the mismatch says why."""
    torch = pytest.importorskip("torch")
    sparse = torch.ones(3).to_sparse()
    plan = match({"a": sparse, "b": sparse}, {"a": sparse, "b": torch.ones(4)}, dtype="float16", mismatched="slice")
    assert plan.execute(plan.given)["a"] is sparse
    assert [(one.name, one.note) for one in plan.mismatched] == [("b", "only strided tensors can be adapted")]


def test_metadata_follows_the_names():
    """A module's metadata is where its tensors are."""
    metadata = OrderedDict({"": {"version": 1}, "module": {"version": 2}, "module.bn": {"version": 3}})
    source = StateDict({"module.bn.w": 1}, metadata)
    assert match(source, {"bn.w": 0}).execute(source)._metadata == {"": {"version": 2}, "bn": {"version": 3}}


# size


def many(prefix="", name="layers.{}.attn.proj{}.weight", layers=1000):
    return [prefix + name.format(i, j) for i in range(layers) for j in range(100)]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ({}, {}),
        ({"prefix": "module."}, {}),
        ({"prefix": "_orig_mod.", "name": "layers.{}._checkpoint_wrapped_module.attn.proj{}.weight"}, {}),
        ({"prefix": "model.h.", "name": "{}.attn.proj{}.weight"}, {"rename": "model.h.{*p} -> layers.{*p}"}),
    ],
)
def test_planning_is_linear(names, options):
    """Eight times the names take about eight times the work; comparing all with all would take sixty-four times."""

    def planning(layers):
        value = np.zeros(2)
        source, target = dict.fromkeys(many(layers=layers, **names), value), dict.fromkeys(many(layers=layers), value)
        plan = match(source, target, **options)
        assert plan.ok
        assert len(plan.steps) == 100 * layers
        return lambda: match(source, target, **options)

    assert calls(planning(80)) <= 12 * calls(planning(10))
    assert seconds(planning(240), 2) <= 30 * seconds(planning(30))


def test_reporting_names_that_match_nothing_is_linear():
    """30,000 missing and as many unexpected names are planned, reported and printed without comparing all with all."""

    def report(layers):
        source = dict.fromkeys(many("x.y", layers=layers), np.zeros(2))
        target = dict.fromkeys(many("", "z.{}.w{}.bias", layers=layers), np.zeros(2))
        return str(match(source, target).report())

    text = report(300)
    assert "Dry run: would load 0 tensors; 30,000 missing, 30,000 unexpected" in text
    assert text.count("\n") < 40
    assert calls(lambda: report(40)) <= 6 * calls(lambda: report(10))
