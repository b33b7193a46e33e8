"""Weights that are kept in parts: the parts are recognised, and none is offered as the weight."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.plan import infer, match
from statedict.plan.names._parts import notes_on_parts, parts_of

WHOLE = {"0.weight": (2, 3), "0.bias": (2,)}
KINDS = {
    "weight norm": {"0.weight_g": (2, 1), "0.weight_v": (2, 3)},
    "weight norm, parametrized": {
        "0.parametrizations.weight.original0": (2, 1),
        "0.parametrizations.weight.original1": (2, 3),
    },
    "spectral norm": {"0.weight_orig": (2, 3), "0.weight_u": (2,), "0.weight_v": (3,)},
    "spectral norm, parametrized": {
        "0.parametrizations.weight.original": (2, 3),
        "0.parametrizations.weight.0._u": (2,),
        "0.parametrizations.weight.0._v": (3,),
    },
    "pruning": {"0.weight_orig": (2, 3), "0.weight_mask": (2, 3)},
    "torchao's files": {"0._weight_qdata": (2, 3), "0._weight_zero_point": (2,)},
    "LoRA of PEFT": {
        "0.base_layer.weight": (2, 3),
        "0.lora_A.default.weight": (4, 3),
        "0.lora_B.default.weight": (2, 4),
    },
    "LoRA of another name": {"0.linear.weight": (2, 3), "0.lora_A": (4, 3), "0.lora_B": (2, 4)},
}
# A state in memory lacks the metadata that the file has.
REMEDY = {"torchao's files": "load from the file's path"}


def arrays(shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_each_kind_are_known(kind):
    """All of a weight's parts are parts of it, and its bias is not."""
    parts = parts_of([*KINDS[kind], "0.bias", "1.weight"])
    assert sorted(parts) == sorted(KINDS[kind])
    assert {part.whole for part in parts.values()} == {"0.weight"}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("kind", KINDS)
def test_no_part_is_offered_as_the_weight(kind, prefix):
    """`match` leaves the weight unfilled, or is not certain (LoRA), and says why; no suggestion points at a part."""
    source = arrays({f"{prefix}{name}": shape for name, shape in KINDS[kind].items()} | {f"{prefix}0.bias": (2,)})
    inference = infer(arrays(WHOLE), source)
    if kind.startswith("LoRA"):
        assert [step.source.endswith("weight") for step in inference.steps if not step.certain] == [True]
    else:
        assert inference.unfilled == ("0.weight",)
    report = match(source, arrays(WHOLE)).report()
    assert "weight_v'" not in str(report).partition("warnings")[0]
    assert not any("0.weight" in one.call.partition("rename")[2] for one in report.suggestions)
    if not prefix:
        assert "'0.weight'" in inference.notes[0]
        assert REMEDY.get(kind, "merge the parts into one weight") in str(inference)
        assert report.notes == list(inference.notes)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("LoRA")])
def test_a_weight_is_not_offered_as_a_part(kind):
    """A whole weight is not offered as a part of a reparametrized one."""
    inference = infer(arrays(KINDS[kind] | {"0.bias": (2,)}), arrays(WHOLE))
    assert set(inference.unfilled) == set(KINDS[kind])
    assert "as one weight in the source" in inference.notes[0]


@pytest.mark.parametrize("kind", ["LoRA of PEFT", "LoRA of another name"])
def test_a_weight_may_be_what_lora_is_added_to(kind):
    """A plain weight fills the base layer of LoRA."""
    inference = infer(arrays(KINDS[kind] | {"0.bias": (2,)}), arrays(WHOLE))
    ((step),) = [step for step in inference.steps if step.source == "0.weight"]
    assert step.target in ("0.base_layer.weight", "0.linear.weight")


def test_parts_go_to_parts():
    """The two ways in which PyTorch stores weight norm are matched."""
    inference = infer(arrays(KINDS["weight norm, parametrized"]), arrays(KINDS["weight norm"]))
    assert {step.source: step.target for step in inference.steps} == {
        "0.weight_g": "0.parametrizations.weight.original0",
        "0.weight_v": "0.parametrizations.weight.original1",
    }


@pytest.mark.parametrize(
    "names",
    [
        ["attn.weight_q", "attn.weight_k", "attn.weight_v"],
        ["weight_orig"],
        ["x.base_layer.weight"],
        ["block.lora_A", "block.first.weight", "block.second.weight"],
    ],
)
def test_names_alone_do_not_make_a_part(names):
    """A suffix without its counterpart, and children of a module with two of them, are ordinary names."""
    assert set(parts_of(names)) <= {"block.lora_A"}


@given(st.lists(st.text("abwe_v.glora", min_size=1, max_size=12), max_size=8))
def test_any_names_are_taken(names):
    """Whatever the names, parts are among them."""
    assert set(parts_of(names)) <= set(names)


def test_a_long_name_costs_its_length():
    """A name of which each character could end the name of a tensor is not copied once for each."""
    names = ["_x_qdata", "_" * 20_000]
    tracemalloc.start()
    try:
        assert parts_of(names).keys() == {"_x_qdata"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_part_is_reported_once():
    """A part is reported once, even if several slots ask for it, as in PyTorch's spectral norm."""
    parts = parts_of(["0.weight_orig", "0.weight_u"])
    notes = notes_on_parts(["0.weight_orig", "0.weight_u", "0.weight_orig"], ["0.weight"], {}, parts)
    assert notes[0].startswith("'0.weight' (weight_orig, weight_u) is stored in parts in the model")
