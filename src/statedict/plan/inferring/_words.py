"""Compare the words of two names: `attn` with `attention`, `q` with `query`, `ln` with `norm`.

Most abbreviations are recognised by their letters: the beginning of a word, or a word without some of its letters.
`_SYNONYMS` has only pairs that share no letters worth comparing: the initials and the synonyms that most model code uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:-[a-z]+)?|\d+")
# What is before or after a module is not that module: `post_attention_norm` is often the norm of the MLP.
_BESIDE = re.compile(r"(?<![a-z])(pre|post|before|after)_(?=[a-z]+_)")

_SYNONYMS = {
    word: meaning
    for meaning, said in {
        "norm": "ln layernorm layrnorm bn batchnorm gn groupnorm rmsnorm", "mlp": "ffn ff feedforward", "fc": "intermediate",
        "query": "q wq", "key": "k wk", "value": "v wv", "output": "o wo", "token": "wte word words", "position": "wpe",
        "weight": "w gamma kernel scale", "bias": "b beta", "skip": "shortcut downsample", "head": "classifier",
        "class": "cls", "vision": "visual image", "text": "language",
    }.items()
    for word in said.split()
}  # fmt: skip

# Words that say only that something is a tensor or a module.
GENERIC = frozenset(
    {
        *("weight", "bias", "layer", "layers", "block", "blocks", "module", "model", "proj", "projection", "dense"),
        *("linear", "conv"),
    }
)

# Words for the first and for the second of two modules, as `norm1` and `norm2`.
ORDINALS = dict.fromkeys(("before", "pre", "in", "input", "first"), "first") | dict.fromkeys(
    ("after", "post", "out", "output", "second"), "second"
)


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name, in lower case, without repetitions; numbers are left out.

    >>> words("h.0.self_attn.qProj2.weight")
    ('h', 'self', 'attn', 'q', 'proj', 'weight')
    """
    found = (word.lower() for word in _WORD.findall(_BESIDE.sub(r"\1-", name)) if not word.isdecimal())
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=1 << 16)
def alike(one: str, other: str) -> float:
    """Return how probably two words mean the same: 1 for equal words and synonyms, 0 for unrelated ones.

    >>> alike("attn", "attention"), alike("q", "query"), alike("gate", "up")
    (0.8, 1.0, 0.0)
    """
    one, other = sorted((_SYNONYMS.get(one, one), _SYNONYMS.get(other, other)), key=lambda word: (len(word), word))
    if one == other:
        return 1.0
    # self_attention is written selfattention, too
    if (len(one) >= 6 or one == "attn") and other.isalpha() and other.endswith(one):
        return 0.8
    if one[0] != other[0] or "-" in one + other:
        return 0.0
    letters = iter(other)
    if len(one) >= 3 and (other.startswith(one) or (len(one) > 3 and all(letter in letters for letter in one))):
        return 0.8
    return 0.0


def distinctive(said: Iterable[str]) -> list[str]:
    """Return the words that say more than that something is a tensor or a module."""
    return [word for word in said if _SYNONYMS.get(word, word) not in GENERIC]


def telling(said: Iterable[str]) -> list[str]:
    """Return the distinctive words other than letters that stand for nothing, as in `c_fc` and `c_proj`."""
    return [word for word in distinctive(said) if len(word) > 1 or word in _SYNONYMS]


def shared(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether two names have a distinctive word in common."""
    others = distinctive(other)
    return any(alike(a, b) >= 0.6 for a in distinctive(one) for b in others if not {a, b} <= ORDINALS.keys())


def agree(one: str, other: str) -> bool:
    """Whether one path ends with the other, or their last distinctive parts share a word
    and do not both have another one.

    >>> agree("embed.pos", "wpe"), agree("cls_token", "mask_token"), agree("pooler.dense", "lm.dense")
    (True, False, False)
    """
    if f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}"):
        return True
    ours, theirs = map(_last_said, (one, other))
    tails = [distinctive(words(".".join(path.split(".")[-3:]))) for path in (one, other)]
    extra = [
        [a for a in said if all(alike(a, b) < 0.6 for b in tail)] for said, tail in zip((ours, theirs), reversed(tails))
    ]
    return (shared(ours, tails[1]) or shared(theirs, tails[0])) and not all(extra)


def _last_said(path: str) -> list[str]:
    return next(filter(None, (distinctive(words(part)) for part in reversed(path.split(".")))), [])
