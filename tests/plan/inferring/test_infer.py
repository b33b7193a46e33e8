"""infer: find a key map for other names, with a reason for each step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cost import calls

from statedict.plan import KeyMap, infer, match
from statedict.plan.inferring import _reasons as reasons
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


LAYER = {"weight": (2, 3), "bias": (2,)}
BLOCK = {f"{part}.{name}": shape for part in ("a", "b") for name, shape in LAYER.items()} | {"norm.weight": (3,)}


def inside(tree):
    """Return the names and shapes of a tree of dicts."""
    if isinstance(tree, tuple):
        return {"": tree}
    below = ((name, rest, shape) for name, inner in tree.items() for rest, shape in inside(inner).items())
    return {f"{name}.{rest}" if rest else name: shape for name, rest, shape in below}


# (source, target, the pairs of names, the reason, whether it is certain)
REASONS = [
    ({"a.w": (2,)}, {"a.w": (2,)}, {"a.w": "a.w"}, reasons.SAME_NAME, True),
    ({"module.a.w": (2,)}, {"a.w": (2,)}, {"module.a.w": "a.w"}, reasons.UNWRAPPED, True),
    ({"a.w": (2,)}, {"a.w": (3,)}, {"a.w": "a.w"}, reasons.OTHER_SHAPE, False),
    ({"norm.w": (2,), "b": (3,)}, {"ln": (2,), "bias": (3,)}, {"norm.w": "ln", "b": "bias"}, reasons.UNIQUE, True),
    ({"m.a.w": (2,)}, {"x": (2,)}, {"m.a.w": "x"}, reasons.LEFT_OVER, False),
    ({"query": (2,), "key": (2,)}, {"k": (2,), "q": (2,)}, {"query": "q", "key": "k"}, reasons.SIMILAR, True),
    ({"x": (2,), "y": (2,)}, {"p": (2,), "r": (2,)}, {"x": "p", "y": "r"}, reasons.ORDER, False),
    (
        {"attention_norm": (2,), "ffn_norm": (2,)},
        {"input_norm": (2,), "post_attention_norm": (2,)},
        {"attention_norm": "input_norm", "ffn_norm": "post_attention_norm"},
        reasons.ORDER,
        False,
    ),
    (
        {"conv": BLOCK, "downsample": BLOCK},
        {"shortcut": BLOCK, "layer": BLOCK},
        {
            f"{old}.{name}": f"{new}.{name}"
            for old, new in [("conv", "layer"), ("downsample", "shortcut")]
            for name in BLOCK
        },
        reasons.CONFLICT,
        False,
    ),
    (
        {"h": {"0": BLOCK, "1": BLOCK}},
        {"layers": {"0": BLOCK, "1": BLOCK}},
        {f"h.{i}.{name}": f"layers.{i}.{name}" for i in range(2) for name in BLOCK},
        reasons.NUMBERED,
        True,
    ),
    (
        {"h": {"0": BLOCK, "1": BLOCK}},
        {"layers": {"1": BLOCK, "2": BLOCK}},
        {f"h.{i}.{name}": f"layers.{i + 1}.{name}" for i in range(2) for name in BLOCK},
        reasons.CONTRARY,
        False,
    ),
    (
        {"h": {"0": BLOCK, "1": BLOCK}},
        {"block_1": BLOCK, "block_2": BLOCK},
        {f"h.{i}.{name}": f"block_{i + 1}.{name}" for i in range(2) for name in BLOCK},
        reasons.NUMBERED,
        True,
    ),
    (
        {"h": {"0": BLOCK, "1": {"scale": (7,)}, "2": BLOCK}},
        {"res": {"0": BLOCK, "1": BLOCK}, "scale": (7,)},
        {f"h.{2 * i}.{name}": f"res.{i}.{name}" for i in range(2) for name in BLOCK} | {"h.1.scale": "scale"},
        reasons.NUMBERED,
        True,
    ),
    (
        {"up": {"0": {"norm.weight": (5, 5)}, "1": BLOCK, "2": BLOCK}},
        {"ups": {"0": BLOCK, "1": BLOCK, "2": {"norm.weight": (5, 5)}}},
        {f"up.{i}.{name}": f"ups.{2 - i}.{name}" for i in (1, 2) for name in BLOCK}
        | {"up.0.norm.weight": "ups.2.norm.weight"},
        reasons.REVERSED,
        True,
    ),
    (
        {"h": {"0": BLOCK, "1": BLOCK, "2": BLOCK}},
        {"layers": {"0": BLOCK, "1": BLOCK}},
        {f"h.{i}.{name}": f"layers.{i}.{name}" for i in range(2) for name in BLOCK},
        reasons.SAME_NUMBERS,
        False,
    ),
    ({"w": (4, 6)}, {"v": (3, 8)}, {"w": "v"}, reasons.RESHAPED, False),
    ({"pooler.w": (2, 2)}, {"cls.v": (2, 2), "cls.z": (3,)}, {"pooler.w": "cls.v"}, reasons.LEFT_OVER, False),
    (
        {"token_embedding": (9, 2)},
        {"embed_tokens": (9, 2), "out": (9, 2)},
        {"token_embedding": "embed_tokens"},
        reasons.SIMILAR,
        True,
    ),
    (
        {"a.kernel": (2, 2), "b.kernel": (2, 3)},
        {"a.weight": (2, 2), "b.weight": (3, 2)},
        {"a.kernel": "a.weight", "b.kernel": "b.weight"},
        reasons.TURNED,
        False,
    ),
    ({"a.kernel": (2, 2)}, {"a.weight": (2, 2)}, {"a.kernel": "a.weight"}, reasons.TURNED, False),
    (
        {"a.weight": (2, 2), "a.in": (2, 3), "b.weight": (2, 3)},
        {"c.weight": (2, 2), "c.in": (3, 2), "d.weight": (2, 3)},
        {"a.weight": "c.weight", "a.in": "c.in", "b.weight": "d.weight"},
        reasons.NOT_TURNED,
        False,
    ),
]


@pytest.mark.parametrize(("source", "target", "pairs", "reason", "certain"), REASONS)
def test_each_step_has_its_reason(source, target, pairs, reason, certain):
    """Each reason is given where it applies, and says whether the match is certain."""
    source, target = ({name: np.zeros(shape) for name, shape in inside(side).items()} for side in (source, target))
    inference = infer(target, source)
    assert {step.source: step.target for step in inference.steps} == pairs
    assert reason.text in {step.reason for step in inference.steps}
    assert {step.certain for step in inference.steps if step.reason == reason.text} == {certain}
    assert ("not certain: " in str(inference)) == (not inference.certain)
    assert {bool(step.decides) for step in inference.steps if not step.certain} <= {True}


CONVERSIONS = [
    ({"norm.w": (4, 3)}, {"ln.w": (3, 4)}, "norm.w -> ln.w | transpose", True),
    ({"norm.w": (4, 3, 1, 1)}, {"ln.w": (4, 3)}, "norm.w -> ln.w | reshape 4 3", True),
    ({"a.w": (4, 3, 1), "b.w": (3, 4, 1)}, {"x.w": (3, 4, 1), "y.w": (4, 3, 1)}, "a.{*p} -> y.{*p}", False),
    ({"out_proj": (3, 3)}, {"out_proj.weight": (3, 3)}, "out_proj -> out_proj.weight | transpose", False),
    ({"norm.w": (3, 4, 5)}, {"ln.w": (5, 3, 4)}, "norm.w -> ln.w | permute 2 0 1", True),
    (
        {"a": {"qkv": {"w": (6, 3)}}},
        {"b": {"q": {"w": (2, 3)}, "k": {"w": (2, 3)}, "v": {"w": (2, 3)}}},
        "a.qkv.w -> b.{q,k,v}.w | split 0 2 2 2",
        False,
    ),
    (
        {"b": {"k": {"w": (2, 4)}, "q": {"w": (4, 4)}, "v": {"w": (2, 4)}, "o": {"w": (4, 4)}}},
        {"a": {"in_proj_w": (8, 4), "out_proj": {"w": (4, 4)}}},
        "b.{q,k,v}.w -> a.in_proj_w | cat 0 4 2 2",
        False,
    ),
    (
        {"m": {"q": {"w": (2, 3)}, "k": {"w": (2, 3)}, "v": {"w": (2, 3)}, "act": {"w": (6, 3)}}},
        {"m": {"relu": {"w": (6, 3)}, "query_key_value": {"w": (6, 3)}}},
        "m.{q,k,v}.w -> m.query_key_value.w | cat 0 2 2 2",
        False,
    ),
    (
        {"a": {"c_attn": {"w": (3, 9)}, "up": {"w": (3, 5)}}},
        {"b": {"up": {"w": (5, 3)}, "q": {"w": (3, 3)}, "k": {"w": (3, 3)}, "v": {"w": (3, 3)}}},
        "a.c_attn.w -> b.{q,k,v}.w | split 1 3 3 3 | transpose",
        False,
    ),
    ({"e": {"0": {"w": (2, 3)}, "1": {"w": (2, 3)}}}, {"e.w": (2, 2, 3)}, "e.0.w, e.1.w -> e.w | stack 0", False),
    ({"e.w": (2, 2, 3)}, {"e": {"0": {"w": (2, 3)}, "1": {"w": (2, 3)}}}, "e.w -> e.0.w, e.1.w | unstack 0", False),
]


@pytest.mark.parametrize(("source", "target", "rule", "certain"), CONVERSIONS)
def test_tensors_are_converted(source, target, rule, certain):
    """Tensors that are transposed, reshaped, joined, split or stacked get a rule that makes them fit."""
    source, target = ({name: np.zeros(shape) for name, shape in inside(side).items()} for side in (source, target))
    inference = infer(target, source)
    assert KeyMap(rule).rules[0] in inference.key_map.rules
    assert inference.certain is certain
    assert match(source, target, rename=inference.key_map).ok


@pytest.mark.parametrize("prefix", ["", "module."])
def test_layers_that_are_numbered_from_elsewhere(prefix):
    """If only the first number differs, equal names are not the same layer: layer 1 of 1 … 3 is layer 0 of 0 … 2."""
    shapes = {"q.weight": (4, 4), "up.weight": (8, 4)}
    theirs = {f"{prefix}h.{n}.{name}": np.zeros(shape) for n in (1, 2, 3) for name, shape in shapes.items()}
    ours = {f"h.{n}.{name}": np.zeros(shape) for n in (0, 1, 2) for name, shape in shapes.items()}
    found = infer({**ours, "norm": np.zeros(3)}, {**theirs, "norm": np.zeros(3)})
    expected = {f"{prefix}h.{n + 1}.{name}": f"h.{n}.{name}" for n in (0, 1, 2) for name in shapes}
    assert {step.source: step.target for step in found.steps} == {**expected, "norm": "norm"}


def test_the_weights_of_a_base_model_are_found_in_one_with_lora():
    """The names of a base model are matched with those of a PEFT model, whose LoRA stays unfilled."""
    base = gpt2()
    del base["lm_head.weight"]
    lora = {f"transformer.h.{i}.attn.c_attn.lora_{x}.default.weight": np.zeros((2, 2)) for i in range(3) for x in "AB"}
    adapted = {name.replace("c_attn.", "c_attn.base_layer."): value for name, value in base.items()}
    found = infer({f"base_model.model.{name}": value for name, value in {**adapted, **lora}.items()}, base)
    assert {step.source: step.target for step in found.steps} == {
        old: f"base_model.model.{new}" for old, new in zip(base, adapted)
    }
    assert found.certain
    assert {*found.unfilled} == {f"base_model.model.{name}" for name in lora}


def test_what_cannot_be_told_is_left_over():
    """Different numbers of equal tensors are left over, not guessed."""
    inference = infer(
        {"a.x": np.zeros(2), "a.y": np.zeros(2)}, {"b.p": np.zeros(2), "b.q": np.zeros(2), "b.r": np.zeros(2)}
    )
    assert inference.steps == ()
    assert inference.unmatched == ("b.p", "b.q", "b.r")
    assert inference.unfilled == ("a.x", "a.y")
    assert str(inference).startswith("0 of 2 model tensors matched, 3 checkpoint tensors unused")


@pytest.mark.parametrize("name", ["", ".", "x.", ".x", "a..x", "a.."])
def test_a_name_with_an_empty_part_is_unmatched(name):
    """A name with an empty part is not a path through modules: only an equal name matches it."""
    inference = infer({"3": np.zeros(2)}, {name: np.zeros(2)})
    assert (inference.steps, inference.unmatched, inference.unfilled) == ((), (name,), ("3",))
    assert infer({name: np.zeros(2)}, {name: np.zeros(2)}).steps[0].certain


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


@pytest.mark.parametrize("more", [0, 2])
def test_tensors_without_structure_are_linear(more):
    """So do tensors of one shape whose names have nothing in common, also if there are more of them on one side."""

    def left(count):
        old = {f"{chr(97 + i % 26)}{i * 7919 % 99991}x.w": np.zeros(3) for i in range(count)}
        new = {f"{chr(97 + i % 26)}{i * 104729 % 99989}y.v": np.zeros(3) for i in range(count + more)}
        return len(infer(new, old).unfilled)

    assert calls(lambda: left(1200)) <= 5 * calls(lambda: left(300))


words = st.lists(st.sampled_from(["a", "b", "0", "1", "2"]), min_size=1, max_size=4).map(".".join)


@settings(max_examples=40)
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


def test_a_name_that_stays_is_not_given_to_another():
    """A tensor that no match renames keeps its name, so none other gets it."""
    source, target = {"l.0.a": np.ones(2), "l.1.a": np.ones(5)}, {"l.1.a": np.ones(2), "l.2.a": np.ones(7)}
    found = infer(target, source)
    assert found.key_map.rename(source).keys() == source.keys()
    assert [(step.source, step.target, step.certain) for step in found.steps] == [("l.1.a", "l.1.a", False)]


def test_in_a_notebook():
    """A notebook shows the counts, the steps by reason and the rules, and nothing in a name is markup."""
    found = infer({"w": np.ones(2), "v": np.ones(3)}, {"<b>net.w": np.ones(2), "<b>net.v": np.ones(3)})
    html = found._repr_html_()
    assert "<b>2 of 2 model tensors matched, 0 checkpoint tensors unused</b>" in html
    assert "<code>&lt;b&gt;net.{*p} -&gt; {*p}</code>" in html
    assert "<summary>key map:</summary>" in html
    assert "<b>net" not in html
    html = found.key_map._repr_html_()
    assert "<b>KeyMap: 1 rule</b>" in html
    assert "<code>&lt;b&gt;net.{*p} -&gt; {*p}</code>" in html


def test_the_text_of_an_inference():
    """The text has a line for each reason, says that names are equal, and ends with the rules, uncut."""
    same = {f"a.{i}.w": np.ones(2 + i) for i in range(3)}
    assert str(infer(same, same)).splitlines()[-3:] == [
        *("  (under the same names)", "key map:", "  (empty: no name changes)"),
    ]
    long = "x" * 300
    assert str(infer({"w": np.ones(2)}, {f"{long}.w": np.ones(2)})).splitlines()[-1] == f"  {long}.{{*p}} -> {{*p}}"


def layers_of(names, shapes=((8, 8), (8, 8))):
    """Two layers of matrices with these names."""
    return {f"h.{n}.{name}.weight": np.zeros(shape) for n in range(2) for name, shape in zip(names, shapes)}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("attn.query", "attn.value"), ("attn.q", "attn.k")),  # one side has no keys, the other no values
        (("attn.query", "attn.value"), ("attn.q", "attn.to_out")),
        (("net.linear1", "net.c_proj"), ("net.linear2", "net.up")),
    ],
)
def test_a_pair_that_others_or_its_words_contradict_is_not_certain(source, target):
    """The projections of an attention differ; and what is left after a doubtful pair is as doubtful."""
    steps = infer(layers_of(target), layers_of(source)).steps
    last = f".{source[1]}.weight"
    assert [step.certain for step in steps if step.source.endswith(last)] == [False, False]


def test_a_layer_with_a_name_of_its_own():
    """If one side calls the first of several equal layers `in`, the equal numbers of both sides are not certain."""
    source, target = (
        {f"mlp.{name}.weight": np.zeros((4, 4)) for name in names}
        for names in (("layers.0", "layers.1"), ("in", "layers.0"))
    )
    for found in (infer(target, source), infer(source, target)):
        assert [step.certain for step in found.steps] == [False, False]
