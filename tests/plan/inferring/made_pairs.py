"""Pairs of models made from one transformer: by renaming, joining, transposing, reshaping, nesting and reordering.

Each function returns a source and the rules that make the target from it; the target may have its tensors in another order,
and either side may have tensors of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tests.plan.inferring.model_pairs import ModelPair, Shapes, converted, filled

from statedict.plan import KeyMap

MAKERS: list[Callable[[], ModelPair]] = []


def transformer(layers: int = 4, d: int = 16, ff: int = 40, kv: int = 8, vocab: int = 50, bias: bool = True) -> Shapes:
    """Return the tensors of a decoder with two norms, four projections and a gated MLP in each layer."""
    shapes: Shapes = {"embed.weight": (vocab, d), "position.weight": (24, d)}
    for i in range(layers):
        matrices = {
            "attn.q": (d, d), "attn.k": (kv, d), "attn.v": (kv, d), "attn.o": (d, d),
            "mlp.gate": (ff, d), "mlp.up": (ff, d), "mlp.down": (d, ff),
        }  # fmt: skip
        shapes[f"layers.{i}.norm1.weight"] = shapes[f"layers.{i}.norm2.weight"] = (d,)
        for name, shape in matrices.items():
            shapes[f"layers.{i}.{name}.weight"] = shape
            shapes |= {f"layers.{i}.{name}.bias": shape[:1]} if bias else {}
    return shapes | {"norm.weight": (d,), "head.weight": (vocab, d)}


def made(
    name: str,
    source: Shapes,
    rules: Iterable[str],
    order: Callable[[str], object] = lambda name: 0,
    extra: Shapes | None = None,
) -> ModelPair:
    """Return the pair whose target is what the rules make of the source, sorted by `order`, and with `extra` tensors."""
    truth = KeyMap(list(rules))
    shapes = {one: value.shape for one, value in converted(truth, filled(source)).items()}
    target = {one: shapes[one] for one in sorted(shapes, key=order)} | (extra or {})
    return ModelPair(name, source, target, truth)


def maker(function: Callable[[], ModelPair]) -> Callable[[], ModelPair]:
    MAKERS.append(function)
    return function


WORDS = [
    "embed.weight -> tok_embeddings.weight",
    "position.weight -> wpe.weight",
    "layers.{i}.attn.{q,k,v,o}.{*p} -> blocks.{i}.self_attention.{query,key,value,out_proj}.{*p}",
    "layers.{i}.mlp.{gate,up,down}.{*p} -> blocks.{i}.ffn.{gate_proj,up_proj,down_proj}.{*p}",
    "layers.{i}.{norm1,norm2}.weight -> blocks.{i}.{ln_1,ln_2}.weight",
    "norm.weight -> ln_f.weight",
    "head.weight -> lm_head.weight",
]


@maker
def other_words() -> ModelPair:
    return made("other words", transformer(), WORDS)


@maker
def other_words_equal_shapes() -> ModelPair:
    return made("other words, all matrices of one shape", transformer(d=16, ff=16, kv=16, vocab=16), WORDS)


@maker
def other_order() -> ModelPair:
    """The target has its modules in alphabetical order."""
    return made("other words and order, equal shapes", transformer(ff=16, kv=16), WORDS, order=lambda name: name)


@maker
def prefix() -> ModelPair:
    return made("a prefix", transformer(), ["{*p} -> wrapper.backbone.net.{*p}"])


@maker
def prefixes_at_depths() -> ModelPair:
    rules = [
        "layers.{i}.attn.{q,k,v,o}.{*p} -> model.decoder.layers.{i}.inner.attn.inner.{q,k,v,o}.linear.{*p}",
        "layers.{i}.mlp.{*p} -> model.decoder.layers.{i}.inner.mlp.{*p}",
        "layers.{i}.{*p} -> model.decoder.layers.{i}.inner.{*p}",
        "{*p} -> model.{*p}",
    ]
    return made("prefixes at several depths", transformer(), rules)


@maker
def flat_names() -> ModelPair:
    rules = [
        "layers.{i}.{a}.{b}.{c} -> layer{i}_{a}_{b}_{c}",
        "layers.{i}.{a}.{c} -> layer{i}_{a}_{c}",
        "{a}.{b} -> {a}_{b}",
    ]
    return made("names without dots", transformer(), rules)


@maker
def numbers_from_one() -> ModelPair:
    rules = [f"layers.{i}.{{*p}} -> block_{i + 1}.{{*p}}" for i in range(4)]
    return made("layers numbered from 1", transformer(), rules)


@maker
def joined_attention() -> ModelPair:
    rules = [
        "layers.{i}.attn.{q,k,v}.weight -> h.{i}.attn.c_attn.weight | cat 0 16 8 8",
        "layers.{i}.attn.{q,k,v}.bias -> h.{i}.attn.c_attn.bias | cat 0 16 8 8",
        "layers.{i}.attn.o.{*p} -> h.{i}.attn.c_proj.{*p}",
        "layers.{i}.{*p} -> h.{i}.{*p}",
    ]
    return made("query, key and value joined", transformer(), rules)


@maker
def joined_attention_equal() -> ModelPair:
    rules = [
        "layers.{i}.attn.{q,k,v}.weight -> layers.{i}.attn.in_proj_weight | cat 0 16 16 16",
        "layers.{i}.attn.{q,k,v}.bias -> layers.{i}.attn.in_proj_bias | cat 0 16 16 16",
        "layers.{i}.attn.o.{*p} -> layers.{i}.attn.out_proj.{*p}",
    ]
    return made("query, key and value joined, equal shapes", transformer(kv=16, ff=16), rules)


@maker
def joined_mlp() -> ModelPair:
    rules = ["layers.{i}.mlp.{gate,up}.weight -> layers.{i}.mlp.gate_up_proj.weight | cat 0 40 40", *WORDS]
    return made("gate and up joined", transformer(bias=False), rules)


@maker
def split_attention() -> ModelPair:
    source = {name.replace("attn.q.", "attn.qkv."): shape for name, shape in transformer(kv=16).items()}
    source = {name: (48, *shape[1:]) if "qkv" in name else shape for name, shape in source.items()}
    source = {name: shape for name, shape in source.items() if ".attn.k." not in name and ".attn.v." not in name}
    rules = ["layers.{i}.attn.qkv.{x} -> layers.{i}.attention.{q,k,v}_proj.{x} | split 0 16 16 16"]
    return made("query, key and value split", source, [*rules, "layers.{i}.attn.{*p} -> layers.{i}.attention.{*p}"])


@maker
def transposed() -> ModelPair:
    rules = ["layers.{i}.attn.{q,k,v,o}.weight -> layers.{i}.attn.{q,k,v,o}.kernel | transpose"]
    rules += ["layers.{i}.mlp.{gate,up,down}.weight -> layers.{i}.mlp.{gate,up,down}.kernel | transpose"]
    return made("matrices transposed", transformer(), rules)


@maker
def transposed_without_bias() -> ModelPair:
    rules = [
        "layers.{i}.attn.{q,k,v,o}.weight -> h.{i}.attn.{wq,wk,wv,wo}.weight | transpose",
        "layers.{i}.mlp.{gate,up,down}.weight -> h.{i}.mlp.{gate,up,down}.weight | transpose",
        "layers.{i}.{*p} -> h.{i}.{*p}",
    ]
    return made("transposed, without biases, equal attention", transformer(kv=16, bias=False), rules)


@maker
def joined_and_transposed() -> ModelPair:
    rules = [
        "layers.{i}.attn.{q,k,v}.weight -> h.{i}.attn.c_attn.weight | cat 0 16 16 16 | transpose",
        "layers.{i}.attn.{q,k,v}.bias -> h.{i}.attn.c_attn.bias | cat 0 16 16 16",
        "layers.{i}.attn.o.weight -> h.{i}.attn.c_proj.weight | transpose",
        "layers.{i}.attn.o.bias -> h.{i}.attn.c_proj.bias",
        "layers.{i}.mlp.{gate,up,down}.weight -> h.{i}.mlp.{gate,up,down}.weight | transpose",
        "layers.{i}.{*p} -> h.{i}.{*p}",
    ]
    return made("joined and transposed", transformer(kv=16), rules)


@maker
def convolutions() -> ModelPair:
    rules = [
        "layers.{i}.mlp.{gate,up}.weight -> layers.{i}.conv_mlp.{gate,up}.weight | reshape 40 16 1 1",
        "layers.{i}.mlp.down.weight -> layers.{i}.conv_mlp.down.weight | reshape 16 40 1 1",
        "layers.{i}.mlp.{*p} -> layers.{i}.conv_mlp.{*p}",
        "position.weight -> position.weight | reshape 1 24 16",
    ]
    return made("linear layers as 1x1 convolutions", transformer(), rules)


@maker
def reversed_layers() -> ModelPair:
    """The numbers run backwards; a layer with another width on one side shows it."""
    source = transformer() | {f"layers.3.extra.{i}.weight": (3 + i, 16) for i in range(2)}
    return made("layers in reverse", source, [f"layers.{i}.{{*p}} -> stages.{3 - i}.{{*p}}" for i in range(4)])


@maker
def two_towers() -> ModelPair:
    source = {f"{tower}.{name}": shape for tower in ("image", "text") for name, shape in transformer(2).items()}
    rules = ["image.{*p} -> vision_model.{*p}", "text.{*p} -> language_model.{*p}"]
    return made("two equal towers, in the other order", source, rules, order=lambda name: name)


@maker
def unknown_towers() -> ModelPair:
    """Nothing shows which tower corresponds to which."""
    source = {f"{tower}.{name}": shape for tower in ("query", "passage") for name, shape in transformer(2).items()}
    rules = ["query.{*p} -> student.{*p}", "passage.{*p} -> context.{*p}"]
    return made("two equal towers with unrelated names", source, rules, order=lambda name: name)


@maker
def other_heads() -> ModelPair:
    """Both models have a head of the same shape that the other does not have."""
    source = transformer() | {"pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,)}
    rules = ["layers.{i}.{*p} -> encoder.block.{i}.{*p}"]
    extra: Shapes = {
        "lm.transform.dense.weight": (16, 16),
        "lm.transform.dense.bias": (16,),
        "lm.transform.norm.weight": (16,),
    }
    pair = made("heads that only one side has", source, rules)
    target = {name: shape for name, shape in pair.target.items() if "pooler" not in name}
    return pair._replace(target=target | extra)


@maker
def own_buffers() -> ModelPair:
    source = dict(transformer())
    for i in range(4):
        source |= {f"layers.{i}.attn.mask": (1, 1, 24, 24), f"layers.{i}.attn.inv_freq": (4,)}
    pair = made(
        "buffers that only one side has", source, [*WORDS, "layers.{i}.attn.{*p} -> blocks.{i}.self_attention.{*p}"]
    )
    target = {name: shape for name, shape in pair.target.items() if "mask" not in name and "inv_freq" not in name}
    return pair._replace(target=target)


@maker
def fewer_layers() -> ModelPair:
    pair = made("fewer layers", transformer(), WORDS)
    return pair._replace(
        target={name: shape for name, shape in pair.target.items() if not name.startswith("blocks.3.")}
    )


@maker
def stacked_experts() -> ModelPair:
    source = dict(transformer(2, bias=False))
    for i in range(2):
        source |= {f"layers.{i}.moe.experts.{e}.{w}.weight": (40, 16) for e in range(5) for w in ("wi", "wj")}
    rules = ["layers.{i}.moe.experts.{e}.{x}.weight -> layers.{i}.moe.experts.{x} | stack 0"]
    return made("experts stacked", source, rules)


def all_pairs() -> Sequence[ModelPair]:
    """Return all pairs, made anew."""
    return [make() for make in MAKERS]
