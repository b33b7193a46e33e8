"""Names in the files of adapters, and those of the models that have the adapter."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.plan import match
from statedict.plan.names._adapters import METHODS, is_adapter_parameter, pair_adapter, stored_name

LAYERS = [f"model.layers.{i}.{part}" for i in range(3) for part in ("q", "v")]
FILE = [f"base_model.model.{layer}.lora_{side}.weight" for layer in LAYERS for side in "AB"]


def slots(prefix="", adapter="default."):
    """The names of a model whose layers have LoRA: those of the base and of the adapter."""
    base = [f"{prefix}{layer}.base_layer.weight" for layer in LAYERS] + [f"{prefix}model.norm.weight"]
    return base, [f"{prefix}{layer}.lora_{side}.{adapter}weight" for layer in LAYERS for side in "AB"]


@pytest.mark.parametrize(
    ("prefix", "adapter"),
    [
        *product(["", "base_model.", "policy.net.base_model.model."], ["default.", "second.", ""]),
        *product(["base_model.model.", "module.base_model.model."], ["default.", "second."]),
    ],
)
def test_an_adapter_is_found_below_any_prefix(prefix, adapter):
    """A file's names fill the adapter, with any prefix and any name of the adapter."""
    base, parameters = slots(prefix, adapter)
    plan = match(dict.fromkeys(FILE, 0), dict.fromkeys([*base, *parameters], 0))
    assert [step.target for step in plan.steps] == parameters
    assert (plan.missing, plan.unexpected) == ((), ())
    assert set(plan.excluded) == set(base)


def test_a_part_of_the_adapted_model_takes_its_part_of_the_file():
    """In a submodule, whose names are shorter than those of the file, the tensors of other modules are unexpected."""
    own = {"layers.0.q.base_layer.weight": 0, "layers.0.q.lora_A.x.weight": 0, "layers.0.q.lora_B.x.weight": 0}
    plan = match(dict.fromkeys(FILE, 0), own)
    assert [step.target for step in plan.steps] == list(own)[1:]
    assert plan.unexpected == tuple(FILE[2:])


def test_what_the_adapter_lacks_is_missing():
    """Only the base model and other adapters may be absent from an adapter's file."""
    base, parameters = slots()
    others = [name.replace("default", "other") for name in parameters]
    plan = match(dict.fromkeys(FILE[1:], 0), dict.fromkeys([*base, *parameters], 0))
    assert plan.missing == (parameters[0],)
    every = dict.fromkeys([*base, *parameters, *others], 0)
    plan = match(dict.fromkeys(FILE, 0), every, include="*.other.*")
    assert [step.target for step in plan.steps] == others
    assert not plan.missing


def test_several_places_are_ambiguous():
    """With two adapters, or two models, nothing is filled, and the note says how to choose."""
    base, parameters = slots()
    others = [name.replace("default", "other") for name in parameters]
    plan = match(dict.fromkeys(FILE, 0), dict.fromkeys([*base, *parameters, *others], 0))
    assert not plan.steps
    assert plan.notes == (
        "the adapter in the source may belong to '*.default' or '*.other': choose one with include='*.NAME.*', or with "
        "into=",
    )
    twice = [f"{which}.{name}" for which in ("policy", "reference") for name in (*base, *parameters)]
    plan = match(dict.fromkeys(FILE, 0), dict.fromkeys(twice, 0))
    assert not plan.steps
    assert "'policy.*.default' or 'reference.*.default'" in plan.notes[0]


def test_names_of_diffusers_are_renamed_first():
    """Names that a renaming makes are paired with those of the adapter, as names in a file of PEFT are."""
    base, parameters = slots()
    file = [f"unet.{layer}.lora.{side}.weight" for layer in LAYERS for side in ("down", "up")]
    rename = {"{*m}.lora.down.weight": "{*m}.lora_A.weight", "{*m}.lora.up.weight": "{*m}.lora_B.weight"}
    plan = match(dict.fromkeys(file, 0), dict.fromkeys([*base, *parameters], 0), rename=rename)
    assert [step.target for step in plan.steps] == parameters
    assert plan.ok


def test_an_adapter_of_another_model_is_not_ambiguous():
    """Modules of other names are never paired; a note says what is wrong, also for a model without any adapter."""
    others = [f"{side}.k.lora_A.default.weight" for side in "ab"]
    for names, note in (
        (others, "is for other modules than the model's ('a.k.lora_A"),
        (["q.weight"], "add one with PEFT"),
    ):
        plan = match(dict.fromkeys(FILE, 0), dict.fromkeys(names, 0))
        assert not plan.steps
        assert note in plan.notes[0]


def test_a_saved_module_replaces_the_original():
    """The file has a saved module under its plain name; the original in the model keeps its values."""
    base, parameters = slots()
    head = ["model.head.original_module.weight", "model.head.modules_to_save.default.weight"]
    plan = match(
        dict.fromkeys([*FILE, "base_model.model.model.head.weight"], 0), dict.fromkeys([*base, *parameters, *head], 0)
    )
    assert {step.target for step in plan.steps} == {*parameters, head[1]}
    assert head[0] in plan.excluded


def test_a_whole_model_is_not_an_adapter():
    """If the source has the base layers too, those of the model must be filled."""
    base, parameters = slots("net.")
    source = [*FILE, *(f"base_model.model.{layer}.base_layer.weight" for layer in LAYERS)]
    plan = match(dict.fromkeys(source, 0), dict.fromkeys([*base, *parameters], 0))
    assert plan.missing == ("net.model.norm.weight",)
    assert len(plan.steps) == len(source)


def test_base_layers_of_embeddings_do_not_make_a_whole_model():
    """PEFT saves the base layer of an adapted `lm_head` with the adapter; the rest of the model keeps its values."""
    base, parameters = slots("net.")
    head = ["net.lm_head.base_layer.weight", "net.lm_head.lora_A.default.weight", "net.lm_head.lora_B.default.weight"]
    file = [f"base_model.model.lm_head.{end}" for end in ("base_layer.weight", "lora_A.weight", "lora_B.weight")]
    for source, targets in (([*FILE, *file], [*parameters, *head]), (file, head)):
        plan = match(dict.fromkeys(source, 0), dict.fromkeys([*base, *targets], 0))
        assert {step.target for step in plan.steps} == {*targets}
        assert plan.missing == ()


@pytest.mark.parametrize("names", [["a.lora.weight"], ["lora_weights"], ["x.base_layer.weight"], []])
def test_names_without_adapters_are_left_alone(names):
    """Where neither side has an adapter, no names are paired."""
    assert pair_adapter(names, ["b.lora.x.weight", "y.base_layer.weight"]).pairs == {}


@pytest.mark.parametrize(
    ("slot", "stored"),
    [
        ("q.lora_A.default.weight", "q.lora_A.weight"),
        ("e.lora_embedding_A.default", "e.lora_embedding_A"),
        ("q.lora_magnitude_vector.default.weight", "q.lora_magnitude_vector"),
        ("q.ia3_l.default", "q.ia3_l"),
        ("e.token_adapter.trainable_tokens_delta.default", "e.token_adapter.trainable_tokens_delta"),
        ("_orig_mod.q.lora_A.a.weight", "q.lora_A.weight"),
        ("q.lora_A.weight", "q.lora_A.weight"),
        ("q.lora_A", "q.lora_A"),
        ("q.weight", "q.weight"),
    ],
)
def test_stored_names(slot, stored):
    """PEFT leaves out the name of the adapter when it saves."""
    assert stored_name(slot).name == stored


def test_every_method_of_peft_is_known():
    """The prefixes of parameters are those of PEFT's methods that add parameters to layers."""
    pytest.importorskip("peft")
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    theirs = {getattr(kind, "prefix", None) for kind in PEFT_TYPE_TO_TUNER_MAPPING.values()}
    theirs = {prefix for prefix in theirs if prefix} - {"adaption_"}
    assert {name for name in theirs if not is_adapter_parameter(f"q.{name}A.default")} == set()
    assert {f"{name}_" for name in METHODS} <= theirs


@given(
    st.lists(st.text("ab.\nlora_A", max_size=30), max_size=6), st.lists(st.text("ab.\nlora_A", max_size=30), max_size=6)
)
def test_any_names_can_be_paired(sources, others):
    """Every source is paired with at most one slot, every slot with at most one source, and what is paired is not `own`."""
    found = pair_adapter(dict.fromkeys(sources), dict.fromkeys(others))
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert set(found.pairs) <= set(sources)
    assert not found.own.intersection(found.pairs.values())
