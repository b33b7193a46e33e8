"""Weights that are kept in parts: weight norm, spectral norm, pruning, PyTorch's parametrizations, LoRA.

The weight is computed of its parts, so none of them is the weight, whatever its shape. Parts are told by their names, and by
those beside them:

    weight_g with weight_v                       weight norm
    weight_orig with weight_mask, or weight_u    pruning, spectral norm
    parametrizations.weight.…                    torch.nn.utils.parametrize
    lora_A…, lora_B… (whatever begins lora_)     LoRA: what is added to the weight
    base_layer.weight                            what LoRA is added to: the one other child beside `lora_…`
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

_SUFFIX = re.compile(r"(.+)_(g|v|orig|mask|u)\Z")
_PARAMETRIZED = re.compile(r"(|.*\.)parametrizations\.([^.]+)\..+")
_LORA = re.compile(r"(|.*\.)lora_[^.]*(?:\..*)?\Z")


class Part(NamedTuple):
    """A part of the weight called `whole`; `base` where it would be the weight if there were no other parts."""

    whole: str
    base: bool = False


def parts_of(names: Collection[str]) -> dict[str, Part]:
    """The names that are parts, and of what.

    >>> parts_of(["0.weight_g", "0.weight_v", "0.bias", "1.weight_v"])
    {'0.weight_g': Part(whole='0.weight', base=False), '0.weight_v': Part(whole='0.weight', base=False)}
    """
    suffixes: dict[str, set[str]] = {}
    adapted: dict[str, set[str]] = {}
    for name in names:
        if found := _SUFFIX.match(name):
            suffixes.setdefault(found[1], set()).add(found[2])
        if "lora_" in name and (found := _LORA.match(name)):
            adapted[found[1]] = set()
    parts = {name: Part(whole) for name in names if (whole := _whole(name, suffixes))}
    return parts | (_bases(names, adapted, parts) if adapted else {})


def mates(source: str, slot: str, parts: Mapping[str, Part], slot_parts: Mapping[str, Part]) -> bool:
    """Whether a source may be the slot's: both whole or both parts; a whole weight may be what LoRA is added to."""
    if source not in parts and slot in slot_parts:
        return slot_parts[slot].base
    return (source in parts) == (slot in slot_parts)


def told(
    missing: Iterable[str], unexpected: Iterable[str], parts: Mapping[str, Part], slots: Mapping[str, Part]
) -> list[str]:
    """What to say of weights that one side has whole and the other in parts; `parts` and `slots` are `parts_of` both."""
    theirs, ours = _by_whole(parts, unexpected, missing), _by_whole(slots, missing, unexpected)
    notes = []
    if theirs:
        notes.append(f"{_named(theirs)} in parts in the source, none of which is the weight: merge them before saving")
    if ours:
        notes.append(
            f"{_named(ours)} in parts in the model and whole in the source: load it before the model is changed"
        )
    return notes


def _whole(name: str, suffixes: Mapping[str, set[str]]) -> str | None:
    if (found := _SUFFIX.match(name)) and _belongs(found[2], suffixes[found[1]]):
        return found[1]
    if found := _PARAMETRIZED.match(name):
        return f"{found[1]}{found[2]}"
    found = _LORA.match(name) if "lora_" in name else None
    return f"{found[1]}weight" if found else None


def _belongs(suffix: str, present: Collection[str]) -> bool:
    """Whether a suffix says that it is a part, by the others that the same name has."""
    if "orig" in present:
        return suffix != "g" and len(present) > 1
    return suffix in ("g", "v") and {"g", "v"} <= set(present)


def _bases(names: Collection[str], adapted: dict[str, set[str]], parts: Mapping[str, Part]) -> dict[str, Part]:
    """The weights in the one child that a module with LoRA has beside it; `adapted` are such modules' prefixes."""
    inside: dict[str, Part] = {}
    for name in names:
        above, _, last = name.rpartition(".")
        prefix = above[: above.rfind(".") + 1]
        if above and prefix in adapted and name not in parts:
            adapted[prefix].add(above)
            inside[name] = Part(f"{prefix}{last}", base=True)
    return {n: part for n, part in inside.items() if len(adapted[n[: n.rpartition(".")[0].rfind(".") + 1]]) == 1}


def _by_whole(parts: Mapping[str, Part], some: Iterable[str], others: Iterable[str]) -> dict[str, list[str]]:
    wanted, found = set(others), dict[str, list[str]]()
    for name in dict.fromkeys(some):
        if name in parts and parts[name].whole in wanted:
            above = parts[name].whole.rpartition(".")[0]
            found.setdefault(parts[name].whole, []).append(name[len(above) + 1 if above else 0 :])
    return found


def _named(wholes: Mapping[str, list[str]]) -> str:
    whole, some = next(iter(wholes.items()))
    return f"{whole!r} ({', '.join(some[:4])})" + (f" and {len(wholes) - 1:,} more are" if len(wholes) > 1 else " is")
