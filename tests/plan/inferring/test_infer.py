"""infer: find a key map for other names, with a reason for each step."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cost import calls

from statedict.plan import infer, match
from statedict.plan.names._generalise import generalise


def gpt2(n=3, d=4):
    shapes = {"transformer.wte.weight": (50, d), "transformer.wpe.weight": (16, d)}
    for i in range(n):
        block = {
            "ln_1.weight": (d,), "ln_1.bias": (d,), "attn.c_attn.weight": (d, 3 * d), "attn.c_proj.weight": (d, d),
            "ln_2.weight": (d,), "ln_2.bias": (d,), "mlp.c_fc.weight": (d, 4 * d), "mlp.c_proj.weight": (4 * d, d),
        }  # fmt: skip
        shapes |= {f"transformer.h.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,), "lm_head.weight": (50, d)}
    return {name: np.zeros(shape, "f4") for name, shape in shapes.items()}


NAMES = {
    "transformer.wte": "tok",
    "transformer.wpe": "pos",
    "transformer.ln_f": "norm",
    "transformer.h": "layers",
    "lm_head": "head",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.c_attn": "qkv",
    "attn.c_proj": "out",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}


def mine(state):
    """The same state in a home-made naming."""
    renamed = {}
    for name, value in state.items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def test_a_gpt2_into_home_made_names():
    """Names without a common part are matched by order and shape, and one rule covers all layers."""
    source = gpt2()
    target = mine(source)
    inference = infer(target, source)
    assert not inference.unmatched
    assert not inference.unfilled
    assert {step.source: step.target for step in inference.steps} == dict(zip(source, target))
    assert str(inference.key_map) == "\n".join(
        [
            "transformer.h.{i}.attn.c_attn.{*p} -> layers.{i}.qkv.{*p}",
            "transformer.h.{i}.attn.c_proj.{*p} -> layers.{i}.out.{*p}",
            "transformer.h.{i}.mlp.c_fc.{*p} -> layers.{i}.up.{*p}",
            "transformer.h.{i}.mlp.c_proj.{*p} -> layers.{i}.down.{*p}",
            "transformer.h.{i}.ln_1.{*p} -> layers.{i}.norm1.{*p}",
            "transformer.h.{i}.ln_2.{*p} -> layers.{i}.norm2.{*p}",
            "transformer.wte.{*p} -> tok.{*p}",
            "transformer.wpe.{*p} -> pos.{*p}",
            "transformer.ln_f.{*p} -> norm.{*p}",
            "lm_head.{*p} -> head.{*p}",
        ]
    )
    assert match(source, target, rename=inference.key_map).ok
    assert inference.key_map.invertible


STAGES = [
    ({"a.w": (2,)}, {"a.w": (2,)}, "same name", ""),
    ({"module.a.w": (2,)}, {"a.w": (2,)}, "same name without wrapper prefixes", "module.{*p} -> {*p}"),
    (
        {"m.a.w": (2,), "m.b.w": (3,)},
        {"a.w": (2,), "b.w": (3,)},
        "prefix replaced: m.{*p} -> {*p}",
        "m.{*p} -> {*p}",
    ),
    (
        {"x.fc.w": (2,), "y.head.w": (3,)},
        {"p.fc.w": (2,), "q.r.head.w": (3,)},
        "same last 2 name parts and shape (unique)",
        "x.{*p} -> p.{*p}\ny.{*p} -> q.r.{*p}",
    ),
    (
        {"a.x": (2,), "a.y": (2,), "b": (1,)},
        {"a.p": (2,), "a.q": (2,), "b": (1,)},
        "same order and shape inside the root and the root",
        "a.x -> a.p\na.y -> a.q",
    ),
]


@pytest.mark.parametrize(("source", "target", "reason", "rules"), STAGES)
def test_each_step_has_its_reason(source, target, reason, rules):
    """Each stage places what the earlier ones could not, and gives the reason."""
    source, target = ({name: np.zeros(shape) for name, shape in side.items()} for side in (source, target))
    inference = infer(target, source)
    assert [step.target for step in inference.steps if step.source not in target] == [
        n for n in target if n not in source
    ]
    assert reason in {step.reason for step in inference.steps}
    assert str(inference.key_map) == rules
    assert f"{reason}: " in str(inference)
    assert match(source, target, rename=inference.key_map).ok


def test_what_cannot_be_told_is_left_over():
    """Different numbers of equal tensors are left over, not guessed."""
    inference = infer(
        {"a.x": np.zeros(2), "a.y": np.zeros(2)}, {"b.p": np.zeros(2), "b.q": np.zeros(2), "b.r": np.zeros(2)}
    )
    assert inference.steps == ()
    assert inference.unmatched == ("b.p", "b.q", "b.r")
    assert inference.unfilled == ("a.x", "a.y")
    assert str(inference).startswith("0 of 2 model tensors matched, 3 checkpoint tensors unused")


def test_another_shape_is_another_tensor():
    """A name is matched with a slot of another shape only if the names are equal."""
    inference = infer({"head.w": np.zeros(3), "p.fc.w": np.zeros(2)}, {"head.w": np.zeros(4), "q.fc.w": np.zeros(9)})
    assert [(step.source, step.target) for step in inference.steps] == [("head.w", "head.w")]


def test_pytorch_modules():
    """Two real modules with the same layers under other names."""
    torch = pytest.importorskip("torch")
    source = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 16), 3, enable_nested_tensor=False
    ).state_dict()
    words = {"layers": "blocks", "self_attn": "attention", "linear1": "fc1", "linear2": "fc2", "norm": "ln"}
    target = {}
    for name, value in source.items():
        for old, new in words.items():
            name = name.replace(old, new)
        target[f"encoder.{name}"] = value
    inference = infer(target, source)
    assert {step.source: step.target for step in inference.steps} == dict(zip(source, target))
    assert len(inference.key_map) <= 7


def test_it_is_linear():
    """Four times the tensors take at most five times the calls; comparing all with all would take sixteen times."""

    def placed(layers):
        old = {f"model.h.{i}.attn.p{j}.weight": np.zeros(3) for i in range(layers) for j in range(50)}
        new = {f"layers.{i}.attn.proj{j}.weight": np.zeros(3) for i in range(layers) for j in range(50)}
        inference = infer(new, old)
        assert not inference.unfilled
        assert len(inference.key_map) == 50

    assert calls(lambda: placed(40)) <= 5 * calls(lambda: placed(10))


words = st.lists(st.sampled_from(["a", "b", "0", "1", "2"]), min_size=1, max_size=4).map(".".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(words, words), max_size=12, unique_by=(lambda p: p[0], lambda p: p[1])),
    st.lists(words, max_size=4),
)
def test_the_map_does_exactly_what_the_pairs_say(pairs, others):
    """However few rules it has, a generalised map takes every name to its partner, and no other name onto one."""
    pairs = dict(pairs)
    others = [name for name in others if name not in pairs and name not in pairs.values()]
    key_map = generalise(pairs, others)
    assert {name: key_map(name) for name in pairs} == pairs
    assert not {key_map(name) for name in others} & set(pairs.values())
    assert {hit.rule for name in (*pairs, *others) if (hit := key_map.index.find(name))} == set(range(len(key_map)))


def test_rules_that_nothing_needs_are_dropped():
    """A map has no rule that never applies, and none that keeps a name which no other rule would change."""
    same = {f"{part}.{leaf}": np.zeros(2) for part in ("stem", "0", "head.1") for leaf in ("weight", "bias")}
    assert not infer(same, same).key_map.rules
    moved = generalise({"h.0.w": "layers.0.w", "h.1.w": "layers.1.w", "norm.w": "norm.w", "0": "0"})
    assert str(moved) == "h.{*p} -> layers.{*p}"
    kept = generalise({"a.0.w": "b.0.w", "a.1.w": "b.1.w", "a.2.w": "b.2.w", "a.x": "a.x"})
    assert "a.x -> a.x" in str(kept).splitlines()
    assert [kept(name) for name in ("a.0.w", "a.x")] == ["b.0.w", "a.x"]
