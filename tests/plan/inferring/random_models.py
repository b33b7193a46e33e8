"""Random models under random names: two sides of one model, each with its own words and numbers, and with tensors missing.

Which tensors belong together is known, as both names are made from the same one.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]

# The names that a side can give to a part; those at the same place in lists of one line belong together.
STYLES = [
    {"enc": ["encoder", "image"], "dec": ["decoder", "text"]},
    {"layer": ["layers", "h", "block", "stages"]},
    {"embed": ["embed_tokens", "wte", "shared"]},
    {"last": ["ln_f", "norm", "layer_norm"]},
    {
        "norm1": ["ln_1", "norm1", "norm0", "input_layernorm", "attn_norm"],
        "norm2": ["ln_2", "norm2", "norm1", "post_attention_layernorm", "ffn_norm"],
        "scale1": ["ls1", "gamma_1", "ls0", "layer_scale1", "scale_attn"],
        "scale2": ["ls2", "gamma_2", "ls1", "layer_scale2", "scale_ffn"],
    },
    {"attn": ["self_attn", "attention", "mixer"]},
    *({part: words} for part, words in {
        "q": ["q_proj", "query", "wq"], "k": ["k_proj", "key", "wk"], "v": ["v_proj", "value", "wv"],
        "o": ["o_proj", "dense", "c_proj", "out_proj"],
        "gate": ["gate_proj", "w1", "wg"], "up": ["up_proj", "w3", "wi"], "down": ["down_proj", "w2", "fc_out"],
    }.items()),
    {"mlp": ["mlp", "ff", "moe"]},
    {"head": ["lm_head", "output", "classifier"]},
]  # fmt: skip


class RandomPair(NamedTuple):
    """The shapes of two sides, and for each name of the target that of the source, if it has that tensor."""

    source: Shapes
    target: Shapes
    truth: dict[str, str]


def random_pair(seed: int) -> RandomPair:
    """Return two sides of a random model."""
    random = Random(seed)
    model = _model(random)
    sides = [_named(list(model), random) for _ in range(2)]
    kept = [_kept(list(model), random) for _ in range(2)]
    source, target = ({side[one]: model[one] for one in names} for side, names in zip(sides, kept))
    return RandomPair(source, target, {sides[1][one]: sides[0][one] for one in model if one in kept[0]})


def _model(random: Random) -> Shapes:
    """Return the tensors of one or two stacks of layers."""
    d, ff = 4, random.choice([4, 8])
    bias, scale, cross = (random.random() < share for share in (0.5, 0.2, 0.5))
    shapes: Shapes = {"embed.weight": (random.choice([d, 11]), d)}
    for tower in random.choice([[""], ["enc.", "dec."]]):
        for i in range(random.randint(1, 4)):
            at = f"{tower}layer.{i}."
            linear = {f"attn.{x}": (d, d) for x in "qkvo"} | {f"mlp.{x}": (ff, d) for x in ("gate", "up")}
            linear |= {"mlp.down": (d, ff)} | ({"mixed": (d, d)} if cross and i % 2 else {})
            shapes |= {f"{at}norm{n}.weight": (d,) for n in (1, 2)} | {
                f"{at}norm{n}.bias": (d,) for n in (1, 2) if bias
            }
            shapes |= {f"{at}scale{n}": (d,) for n in (1, 2) if scale}
            for name, shape in linear.items():
                shapes |= {f"{at}{name}.weight": shape} | ({f"{at}{name}.bias": shape[:1]} if bias else {})
        shapes[f"{tower}last.weight"] = (d,)
    return shapes | {"head.weight": (random.choice([d, 11]), d)}


def _named(names: list[str], random: Random) -> dict[str, str]:
    """Return new names: other words, numbers that begin and step otherwise, other separators, a prefix."""
    words = {}
    for style in STYLES:
        choice = random.randrange(20)
        words |= {part: said[choice % len(said)] for part, said in style.items()}
    first, step = random.choice([(0, 1), (0, 1), (1, 1), (0, 2)])
    mark, flat, left_out = (
        random.choice([".", ".", "_", ""]),
        random.random() < 0.15,
        random.choice(["attn.", "mlp.", "!"]),
    )
    prefix = random.choice(["", "model.", "backbone.body."])

    def one(name: str) -> str:
        name = re.sub(r"[a-z]+\d?", lambda part: words.get(part[0], part[0]), name.replace(left_out, ""))
        name = re.sub(r"\.(\d+)\.", lambda number: f"{mark}{first + step * int(number[1])}.", prefix + name)
        return name.replace(".", "_", name.count(".") - 1) if flat else name

    return {name: one(name) for name in random.choice([names, sorted(names)])}


def _kept(names: list[str], random: Random) -> set[str]:
    """Return the names of the tensors that one side has: all, or all but random ones, a module, or a part of all layers."""
    some = random.choice(names)
    share = random.choice([0.0, 0.02, 0.1, 0.4])
    gone = random.choice(
        [
            lambda name: random.random() < share,
            lambda name: name.startswith(some[: some.find(".", random.randrange(len(some))) + 1] or some),
            lambda name: name.split(".")[-2:] == some.split(".")[-2:],
        ]
    )
    return {name for name in names if not gone(name)} or {some}
