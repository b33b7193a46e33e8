"""Weights stored in parts: weight norm, spectral norm, pruning, PyTorch's parametrizations, LoRA, torchao's files.

The weight is computed from its parts, so a part must not be loaded as the weight, even if the shapes are equal. Parts are
recognised by their names and by the names next to them:

    weight_g with weight_v                       weight norm
    weight_orig with weight_mask, or weight_u    pruning, spectral norm
    parametrizations.weight.…                    torch.nn.utils.parametrize
    lora_A…, lora_B… (any name lora_…)           LoRA: the low-rank matrices added to the weight
    _weight_qdata with _weight_scale …           a quantised weight in torchao's safetensors files
    base_layer.weight                            the weight that LoRA adapts: in the only other child next to `lora_…`
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

_SUFFIX = re.compile(r"(.+)_(g|v|orig|mask|u)\Z")
_PARAMETRIZED = re.compile(r"(|.*\.)parametrizations\.([^.]+)\..+")
_QUANTISED = "_qdata"
_LORA = re.compile(r"(|.*\.)lora_[^.]*(?:\..*)?\Z")


class WeightPart(NamedTuple):
    """A part of the weight called `whole`; `base` is True if it is the weight itself without the adapters (LoRA)."""

    whole: str
    base: bool = False


def parts_of(names: Collection[str]) -> dict[str, WeightPart]:
    """Return the names that are parts of a weight.

    >>> parts_of(["0.weight_g", "0.weight_v", "0.bias", "1.weight_v"])
    {'0.weight_g': WeightPart(whole='0.weight', base=False), '0.weight_v': WeightPart(whole='0.weight', base=False)}
    """
    suffixes: dict[str, set[str]] = {}
    adapted: dict[str, set[str]] = {}
    for name in names:
        if found := _SUFFIX.match(name):
            suffixes.setdefault(found[1], set()).add(found[2])
        if "lora_" in name and (found := _LORA.match(name)):
            adapted[found[1]] = set()
    parts = {name: WeightPart(whole) for name in names if (whole := _whole(name, suffixes))} | _quantised(names)
    return parts | (_bases(names, adapted, parts) if adapted else {})


def takes_whole(slot: str, slot_parts: Mapping[str, WeightPart]) -> bool:
    """Whether a whole weight may fill a slot: the slot is not a part of a weight, or is the base of a LoRA."""
    return slot not in slot_parts or slot_parts[slot].base


def notes_on_parts(
    missing: Iterable[str], unexpected: Iterable[str], parts: Mapping[str, WeightPart], slots: Mapping[str, WeightPart]
) -> list[str]:
    """Return notes on weights that are whole on one side and in parts on the other.

    `parts` and `slots` are the results of `parts_of` for both sides.
    """
    theirs, ours = _by_whole(parts, unexpected, missing), _by_whole(slots, missing, unexpected)
    notes = []
    quantised = {whole: some for whole, some in theirs.items() if any(name.endswith(_QUANTISED) for name in some)}
    if quantised:
        notes.append(
            f"{_named(quantised)} stored in parts by torchao: load from the file's path, as this source lacks its metadata"
        )
    elif theirs:
        notes.append(f"{_named(theirs)} stored in parts in the source: merge the parts into one weight before saving")
    if ours:
        notes.append(
            f"{_named(ours)} stored in parts in the model, but as one weight in the source: load the state before you "
            "change the model"
        )
    return notes


def _whole(name: str, suffixes: Mapping[str, set[str]]) -> str | None:
    if suffixes and (found := _SUFFIX.match(name)) and _belongs(found[2], suffixes[found[1]]):
        return found[1]
    if "parametrizations" in name and (found := _PARAMETRIZED.match(name)):
        return f"{found[1]}{found[2]}"
    found = _LORA.match(name) if "lora_" in name else None
    return f"{found[1]}weight" if found else None


def _belongs(suffix: str, present: Collection[str]) -> bool:
    """Whether a suffix marks a part, given the other suffixes of the same name."""
    if "orig" in present:
        return suffix != "g" and len(present) > 1
    return suffix in ("g", "v") and {"g", "v"} <= set(present)


def _quantised(names: Collection[str]) -> dict[str, WeightPart]:
    """Return the parts of tensors that torchao took apart: `a._weight_qdata`, and all that begin with `a._weight_`."""
    wholes: dict[str, str] = {}
    for name in [name for name in names if name.endswith(_QUANTISED)]:
        above, dot, last = name.rpartition(".")
        if last.startswith("_"):
            wholes[f"{above}{dot}{last.removesuffix(_QUANTISED)}_"] = f"{above}{dot}{last[1:].removesuffix(_QUANTISED)}"
    in_order = sorted(names) if wholes else []
    return {
        name: WeightPart(wholes[stem])
        for stem in sorted(wholes)
        for name in in_order[bisect_left(in_order, stem) : bisect_left(in_order, f"{stem}\U0010ffff")]
    }


def _bases(
    names: Collection[str], adapted: dict[str, set[str]], parts: Mapping[str, WeightPart]
) -> dict[str, WeightPart]:
    """Return the base weights of modules with LoRA, which are in their only other child; `adapted` are their prefixes."""
    inside: dict[str, WeightPart] = {}
    for name in names:
        above, _, last = name.rpartition(".")
        prefix = above[: above.rfind(".") + 1]
        if above and prefix in adapted and name not in parts:
            adapted[prefix].add(above)
            inside[name] = WeightPart(f"{prefix}{last}", base=True)
    return {n: part for n, part in inside.items() if len(adapted[n[: n.rpartition(".")[0].rfind(".") + 1]]) == 1}


def _by_whole(parts: Mapping[str, WeightPart], some: Iterable[str], others: Iterable[str]) -> dict[str, list[str]]:
    wanted, found = set(others), dict[str, list[str]]()
    for name in dict.fromkeys(some):
        if name in parts and parts[name].whole in wanted:
            above = parts[name].whole.rpartition(".")[0]
            found.setdefault(parts[name].whole, []).append(name[len(above) + 1 if above else 0 :])
    return found


def _named(wholes: Mapping[str, list[str]]) -> str:
    whole, some = next(iter(wholes.items()))
    return f"{whole!r} ({', '.join(some[:4])})" + (f" and {len(wholes) - 1:,} more are" if len(wholes) > 1 else " is")
