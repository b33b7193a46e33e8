"""LoadReport: PyTorch's result, with more facts."""

import copy
import json
import pickle

import numpy as np
import pytest
from tests.cost import calls

from statedict.plan import Cast, LoadReport, Mismatch, _plan, error_text, match


def network(prefix="", layers=12, parts=("attn.q", "attn.k", "mlp"), classes=10):
    state = {}
    for i in range(layers):
        for part in parts:
            state |= {
                f"{prefix}layers.{i}.{part}.weight": np.zeros((4, 4)),
                f"{prefix}layers.{i}.{part}.bias": np.zeros(4),
            }
    return state | {f"{prefix}head.weight": np.zeros((classes, 4)), f"{prefix}head.bias": np.zeros(classes)}


def named(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def report(source, target=None, **options):
    return match(source, network() if target is None else target, **options).report()


def loaded(source, target):
    """The report of a load in which everything that fits was loaded."""
    plan = match(source, target)
    return plan.report(loaded=plan.report().loaded)


# PyTorch's result


def test_it_is_pytorchs_result():
    """A report unpacks, compares, counts and prints as what PyTorch's load_state_dict returns."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    for state in (model.state_dict(), {"weight": model.weight, "more": model.bias}):
        theirs, ours = model.load_state_dict(state, strict=False), loaded(state, model.state_dict())
        missing, unexpected = ours
        assert (missing, unexpected) == (theirs.missing_keys, theirs.unexpected_keys)
        assert (ours.missing_keys, ours.unexpected_keys) == (missing, unexpected)
        assert ours == theirs
        assert len(ours) == len(theirs) == 2
        assert isinstance(ours, tuple)
        assert (repr(ours) == repr(theirs)) is ours.ok
    done = loaded(network(), network())
    assert repr(done) == str(done) == "<All keys matched successfully>"
    assert repr(report(network())) == "LoadReport(missing_keys=[], unexpected_keys=[], 74 would be loaded (dry run))"


def test_the_lists_are_one_and_the_same():
    """Editing the lists edits the result, as in PyTorch."""
    one = LoadReport(["a"], [])
    one.missing_keys.clear()
    assert one == ([], [])
    assert one.missing is one.missing_keys is one[0]
    assert one.ok


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_a_copy_is_equal(again):
    """A copied or pickled report has all that the first one has."""
    one = report(network("model."), network(), dtype="float16")
    two = again(one)
    assert (one, one.to_dict(), str(one)) == (two, two.to_dict(), str(two))
    assert two.missing_keys is two[0]


# what it knows


def test_what_a_plan_foresees():
    """Each outcome has its own list."""
    source = {"module.a": np.zeros(2, "f4"), "module.b": np.zeros(3), "c": np.zeros((3, 2)), "d": np.zeros(2), "x": 1}
    target = {
        "a": np.zeros(2, "f2"),
        "b": np.zeros(4),
        "c2": np.zeros((2, 3)),
        "d": np.zeros(2),
        "e": np.zeros(1),
        "f": np.zeros(9),
    }
    found = match(source, target, rename="c -> c2 | transpose", mismatched={"b": "slice"}, exclude="d").report()
    assert found.loaded == ["a", "b", "c2"]
    assert found.missing == ["e", "f"]
    assert found.unexpected == ["x"]
    assert [tuple(one) for one in found.cast] == [("a", "float32", "float16", "rounding")]
    assert found.renamed == {"module.a": "a"}
    assert [(one.name, one.sources) for one in found.adapted] == [("b", ("module.b",)), ("c2", ("c",))]
    assert found.excluded == ["d"]
    assert not found.ok


def test_what_a_loader_found_counts():
    """A loader's own lists are taken, without the slots that the plan withheld on purpose."""
    plan = match(
        {"a": np.zeros(2), "b": np.zeros(3)},
        {"a": np.zeros(2), "b": np.zeros(4), "h": np.zeros(1)},
        mismatched="skip",
        exclude="h",
    )
    found = plan.report(
        missing=["b", "h", "late"],
        unexpected=["u"],
        loaded=["a"],
        cast=[("a", "f", "g", "overflow")],
        errors=["bad"],
        tied={"t": "a"},
    )
    assert found.missing == ["late"]
    assert (found.unexpected, found.loaded, found.errors, found.tied) == (["u"], ["a"], ["bad"], {"t": "a"})
    assert found.cast == [Cast("a", "f", "g", "overflow")]


def test_a_loader_may_take_another_shape():
    """A tensor of another shape is mismatched only if the loader refused it: a module may have a loader of its own."""
    plan = match({"a": np.zeros(2), "b": np.zeros(2), "c": 5}, {name: np.zeros(3) for name in "abc"})
    found = plan.report(
        loaded=["a"], errors=["size mismatch for b: copying …", 'While copying the parameter named "c", expected …']
    )
    assert [one.name for one in found.mismatched] == ["b", "c"]
    assert plan.report(loaded=["a", "b", "c"]).ok


def test_allowed_deviations():
    """Allowed names are neither missing nor unexpected, and are listed."""
    found = LoadReport(["head.w", "x"], ["old.a", "y"], loaded=["z"]).allowing(
        missing="head", unexpected=["old.*", "y"]
    )
    assert found == (["x"], [])
    assert found.allowed == ["head.w", "old.a", "y"]
    assert found.loaded == ["z"]
    assert "3 allowed" in str(found)


def test_to_dict_is_json():
    """`to_dict` gives everything as plain values."""
    found = report(network("model."), dtype="float16")
    again = json.loads(json.dumps(found.to_dict()))
    assert again["ok"] is False
    assert again["missing"] == found.missing
    assert again["suggestions"][0]["call"] == 'load_state_dict(model, source, rename="model.{*p} -> {*p}")'
    mismatched = report(network(classes=3)).to_dict()["mismatched"]
    assert mismatched[0] == {"name": "head.weight", "found": [3, 4], "expected": [10, 4], "note": ""}


# what it says


def test_counts_then_problems_then_help():
    """The text begins with the counts, then lists the problems, folded and with shapes, then suggestions."""
    renamed = {name.replace("attn.q", "attn.query"): value for name, value in network(classes=3).items()}
    assert str(report(renamed)) == "\n".join(
        [
            "Dry run: would load 48 tensors; 24 missing, 24 unexpected, 2 mismatched",
            "missing 24:",
            "  layers.{0…11}.attn.q.weight  ×12  [4, 4]  did you mean 'layers.{0…11}.attn.query.weight'?",
            "  layers.{0…11}.attn.q.bias  ×12  [4]  did you mean 'layers.{0…11}.attn.query.bias'?",
            "unexpected 24:",
            "  layers.{0…11}.attn.query.weight  ×12  [4, 4]",
            "  layers.{0…11}.attn.query.bias  ×12  [4]",
            "mismatched 2:",
            "  head.weight  [3, 4] in the source, [10, 4] in the model",
            "  head.bias  [3] in the source, [10] in the model",
            "To fix this:",
            "  24 of 24 missing names are in the source as layers.{i}.attn.query.{*p}; 2 of 2 mismatched tensors can be "
            "skipped or adapted:",
            '    load_state_dict(model, source, rename="layers.{i}.attn.query.{*p} -> layers.{i}.attn.q.{*p}", '
            "mismatched={'head': 'skip'})",
        ]
    )


HELP = [
    (network("model."), {}, 'rename="model.{*p} -> {*p}"'),
    ({n.replace("layers.", "blocks."): v for n, v in network().items()}, {}, 'rename="blocks.{*p} -> layers.{*p}"'),
    ({"state": {"model": network()}, "epoch": 3}, {}, "root='state/model'"),
    (network("module."), {"wrappers": False}, "statedict.load_state_dict(model, source)"),
    (network(layers=11), {}, "allow_missing='layers.11'"),
    (network() | {"ema.x": 1, "ema.y": 2}, {}, "allow_unexpected='ema'"),
]


@pytest.mark.parametrize(("source", "options", "call"), HELP)
def test_the_one_change_that_would_fix_most(source, options, call):
    """The best suggestion is the call that would load the state."""
    found = report(source, **options)
    assert call in found.suggestions[0].call
    assert call in str(found)


def test_a_sub_module_is_suggested():
    """If the source is a part of the model, the suggestion names the sub-module."""
    assert "into='backbone'" in report(network(), network("backbone.")).suggestions[0].call


def test_most_of_the_model_is_not_left_out_silently():
    """A suggestion says if it would not load most of the model; if the source has other tensors instead, there is none."""
    names = [f"layers.{n}.w" for n in range(6)]
    source = dict.fromkeys(names[:2], np.zeros(2))
    target = {**source, **{f"decoder.{n}": np.zeros(2) for n in range(4)}}
    (some,) = report(source, target).suggestions
    assert some.text == "If this is expected (4 of 6 tensors would not be loaded)"
    assert "allow_missing='decoder'" in some.call
    other = source | {f"dec.{n}": np.zeros(3) for n in range(4)}
    assert not any("allow_missing" in one.call for one in report(other, target).suggestions)


def test_one_name_of_tied_parameters_is_enough():
    """What is tied to a parameter that is loaded is neither allowed to be missing nor counted as lost."""
    weight = np.zeros((10, 4))
    target = {"backbone.embed.weight": weight, "backbone.head.weight": weight, "backbone.positions": np.zeros(3)}
    calls = {"": "allow_missing='backbone.positions'", "backbone.": "into='backbone', allow_missing='positions'"}
    for prefix, call in calls.items():
        source = {"backbone.embed.weight".removeprefix(prefix): weight}
        assert [one.call for one in report(source, target).suggestions] == [f"load_state_dict(model, source, {call})"]


def test_no_change_loses_what_another_one_gains():
    """If one part of a source needs a prefix and another a rule, the first is not excluded to load the second."""
    text, head = {f"layers.{i}.weight": np.zeros(4) for i in range(3)}, {"head.weight": np.zeros((2, 4))}
    source = network("vision.") | named("language.model.", text) | named("language.", head)
    target = network("model.vision.") | named("model.language.", text) | head
    assert not any("include=" in one.call for one in report(source, target).suggestions)


@pytest.mark.parametrize(
    ("name", "old", "new", "policy"),
    [
        ("pos_embed", (1, 50, 4), (1, 197, 4), "interpolate"),
        ("stem.conv.weight", (8, 3, 7, 7), (8, 1, 7, 7), "channels"),
        ("embed.weight", (50, 4), (60, 4), "slice"),
    ],
)
def test_a_policy_is_suggested_by_the_shapes(name, old, new, policy):
    """A mismatch whose shapes tell what it is comes with the policy for it, and the policy works."""
    source, target = {name: np.zeros(old)}, {name: np.zeros(new)}
    (suggestion,) = match(source, target).report().suggestions
    assert f"mismatched={{{name!r}: {policy!r}}}" in suggestion.call
    assert match(source, target, mismatched={name: policy}).ok


def test_channels_are_suggested_for_images_only():
    """A convolution inside a network is not adapted to other input channels."""
    source, target = {"conv.weight": np.zeros((1, 128, 1, 1))}, {"conv.weight": np.zeros((1, 192, 1, 1))}
    assert match(source, target).report().suggestions == []


@pytest.mark.parametrize(
    ("name", "old", "new"), [("position_ids", (1, 512), (1, 1024)), ("relative_position_index", (49, 49), (144, 144))]
)
def test_indices_are_skipped(name, old, new):
    """Position numbers are not resized: the model has computed its own."""
    source, target = ({name: np.zeros(shape, int), "weight": np.zeros(2)} for shape in (old, new))
    (suggestion,) = match(source, target).report().suggestions
    assert f"mismatched={{{name!r}: 'skip'}}" in suggestion.call


def test_nothing_is_suggested_that_could_as_well_be_another():
    """If a rename is ambiguous (q may be query or key), none is suggested."""
    source = network(parts=("attn.query", "attn.key", "mlp"))
    assert [s.call for s in report(source).suggestions] == ["print(statedict.match(model, source))"]


def test_several_rules_are_suggested_together():
    """If one rule is not enough, the suggestion has several, the more special one first."""
    renamed = {name.replace("attn.q", "attn.query"): value for name, value in network("model.").items()}
    rules = ["model.layers.{i}.attn.query.{*p} -> layers.{i}.attn.q.{*p}", "model.{*p} -> {*p}"]
    assert report(renamed).suggestions[0].call == f"load_state_dict(model, source, rename={rules})"
    assert report(renamed, rename=rules).ok


def test_ten_thousand_problems_fit_on_a_screen():
    """However many names and kinds of problems there are, the text is short and no line is wide."""
    source = {f"a{i}.{'x' * (i % 300)}": np.zeros(i % 7) for i in range(10_000)} | {
        f"same{i}": np.zeros(2) for i in range(5000)
    }
    target = {f"b{i}.{'y' * (i % 300)}": np.zeros(i % 7) for i in range(10_000)} | {
        f"same{i}": np.zeros(3) for i in range(5000)
    }
    found = match(source, target, rename=["p -> q", "r -> s", "t -> u", "v -> w", "x -> y"], dtype="float16").report()
    text = str(found)
    assert "missing 10,000:" in text
    assert "… and 9,993 more" in text
    assert len(text.splitlines()) < 45
    assert max(map(len, text.splitlines())) <= 120


def test_html_is_escaped():
    """Names in the HTML of a report are escaped."""
    html = LoadReport(["<script>"], ["b"])._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_hostile_names_are_shown_and_cost_nothing():
    """Control characters in names are escaped, and long names are shortened, in little time."""
    long = ".".join(["a"] * 500_000)
    text = str(LoadReport(["\x1b[2Ja", long], ["\x1b[2Jb", long + "b"]))
    assert "\x1b" not in text
    assert "\\x1b[2Ja" in text
    assert max(map(len, text.splitlines())) <= 120


def test_skipped_cast_and_warnings_are_listed():
    """Skipped and cast tensors, and warnings, are listed."""
    text = str(report(network(classes=3), dtype="float16", mismatched="skip", rename="p -> q"))
    assert "cast with loss" in text
    assert "skipped (the model's values are kept) 2:" in text
    assert "  'p -> q' does not match any name" in text
    assert "float64 → float16 (rounding), float16 → float64 (widening)" in text


# the error


def test_advice_in_a_warning_is_whole():
    """The call that the warning about an adapter ends with is not cut, however long the adapter's names are."""
    name = "base_model.model.transformer.layers.0.self_attention.query_key_value.lora_A.weight"
    told = str(report({name: np.zeros((2, 4)), name.replace("lora_A", "lora_B"): np.zeros((4, 2))}))
    assert "merge the files of the base and the adapter: statedict.merge([base, adapter], 'lora')" in told


@pytest.mark.parametrize("change", ["missing", "unexpected", "shapes", "all"])
def test_the_error_begins_as_pytorchs(change):
    """Up to the blank line the text of the error is exactly PyTorch's."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = dict(model.state_dict())
    if change in ("missing", "all"):
        del state["0.bias"], state["1.running_var"]
    if change in ("unexpected", "all"):
        state |= {"x.y": torch.ones(1), "0.more": torch.ones(1)}
    if change in ("shapes", "all"):
        state |= {"0.weight": torch.ones(3, 4), "1.bias": torch.ones(())}
    with pytest.raises(RuntimeError) as theirs:
        model.load_state_dict(state)
    ours = error_text("Sequential", match(state, model.state_dict()).report())
    assert ours.partition("\n\n")[0] == str(theirs.value)
    fitting = len(set(state) & set(model.state_dict())) - 2 * (change in ("shapes", "all"))
    first = ours.partition("\n\n")[2].splitlines()[0]
    assert first.startswith("Nothing was changed: ")
    assert first.endswith(f"; {fitting} tensors would fit")


def test_the_error_uses_the_loaders_words():
    """Errors of a loader are quoted unchanged, and once."""
    text = "size mismatch for a: copying a param with shape torch.Size([1]) from checkpoint, …"
    found = LoadReport(mismatched=[Mismatch("a", (1,), (2,))], errors=[text, "hook: no"])
    said = error_text("Net", found)
    assert said.startswith(f"Error(s) in loading state_dict for Net:\n\t{text}\n\thook: no\n\n")
    assert said.count("hook: no") == 1
    assert said.count(text) == 1


def test_equal_reasons_share_a_line():
    """Errors that differ only in the name, which is in quotes, are one line with the first name and those of the others."""
    lossy = [f'"layers.{n}.weight": casting complex64 would lose values' for n in range(12)]
    found = LoadReport(errors=[*lossy, '"head": casting float64 would lose values', "hook: no", "hook: no"])
    lines = error_text("Net", found).splitlines()
    assert lines[1:5] == [
        f"\t{lossy[0]} (the same for 11 more: layers.{{1…11}}.weight)",
        '\t"head": casting float64 would lose values',
        "\thook: no",
        "",
    ]
    assert str(found).count("casting complex64") == 1
    assert found.errors.count("hook: no") == 2


def test_thousands_of_keys_are_cut():
    """PyTorch's line of all keys is cut after fifty; the report has them all."""
    found = LoadReport([f"k{i}" for i in range(9000)], [])
    first = error_text("Net", found).splitlines()[1]
    assert first.startswith('\tMissing key(s) in state_dict: "k0", "k1", ')
    assert first.endswith('"k49", … and 8,950 more. ')
    many = LoadReport(mismatched=[Mismatch(f"k{i}", (1,), (2,)) for i in range(9000)])
    assert len(error_text("Net", many).splitlines()) < 90
    assert "'m' is an int" not in error_text("Net", LoadReport(mismatched=[Mismatch("m", "int", (2,))]))


def test_the_cost_of_many_unexpected_names():
    """Four times as many unexpected names take about four times as many calls, including the search for suggestions."""

    def cost(count):
        source = {f"other.{n}.x_{n * 7 % count}": np.zeros(2) for n in range(count)}
        return calls(lambda: str(report(source, {"weight": np.zeros((2, 2)), "bias": np.zeros(2)})))

    cost(50)  # What is imported and compiled once.
    assert cost(400) < 5 * cost(100)


def test_equal_attempts_are_planned_once(monkeypatch):
    """While suggestions are sought, the load is planned once for each set of arguments that the plan depends on."""
    planned = []
    match_again = _plan.match
    monkeypatch.setattr(
        _plan, "match", lambda *given, **options: planned.append(repr(options)) or match_again(*given, **options)
    )
    found = match_again({f"other.{n}.w{n}": np.zeros(2) for n in range(60)}, {"weight": np.zeros(3)}).report()
    assert isinstance(found.suggestions, list)
    assert len(planned) == len(set(planned)) > 0
