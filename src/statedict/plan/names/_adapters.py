"""Pair the names in an adapter's file with those of a model that has the adapter (LoRA and the other methods of PEFT).

In a model, the name of the adapter follows the name of the parameter, and saved modules are wrapped:

    base_model.model.encoder.q.lora_A.default.weight         encoder.head.modules_to_save.default.weight

PEFT's files do not have these components (`….q.lora_A.weight`, `….head.weight`), and both sides may have further prefixes: a
file always begins with `base_model.model.`, while the model may be a part of the PeftModel, or have it as a part.

*Theory of operation.* A fit is a prefix to remove from the file's names, a prefix to add, and the name of the adapter. Each
name of an adapter's parameter votes for the fits in which it and a parameter of the model have the longest common end. The
fit with the most votes, and of these the one with the longest common ends, is used for all names; if there are two, none is
used and a note says so. The time is linear in the number of names (times their depth).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ._wrappers import Pairing, bare

# Prefixes of the parameters that the methods of PEFT 0.21 add; a test compares them with PEFT.
METHODS = (
    "adamss", "beft", "boft", "c3a", "deft", "delora", "fourierft", "frod", "glora", "gralora", "hada", "hira", "hra", "ia3",
    "lily", "ln_tuning", "lokr", "lora", "miss", "oft", "osf", "peanut", "poly", "psoft", "pvera_lambda", "randlora", "road",
    "shadow", "shira", "supertuning", "tinylora", "trainable_tokens", "unilora", "vblora", "vera_lambda", "waveft",
)  # fmt: skip
_PARAMETER = re.compile(rf"(?:.*\.)?(?P<kind>(?:{'|'.join(METHODS)})_[^.]*)(?:\.(?P<rest>.+))?\Z", re.DOTALL)
_SAVED_MODULE = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<rest>.+)\Z")
# With more places than this, a common end of names says nothing about where the adapter belongs.
_MOST_PLACES = 16
# A limit for hostile files: their names may have any number of components.
_MOST_COMPONENTS = 100


class StoredName(NamedTuple):
    """The name that PEFT's file has for a parameter, and the adapter that it belongs to (empty: none)."""

    name: str
    adapter: str = ""


class _Fit(NamedTuple):
    removed: str
    added: str
    adapter: str


def stored_name(slot: str) -> StoredName:
    """Return the name that the file of an adapter has for a parameter of the model.

    >>> stored_name("model.q.lora_A.default.weight"), stored_name("model.head.modules_to_save.default.bias")
    (StoredName(name='model.q.lora_A.weight', adapter='default'), StoredName(name='model.head.bias', adapter='default'))
    """
    name = bare(slot)
    if found := _SAVED_MODULE.match(name):
        return StoredName(f"{found['module']}.{found['rest']}", found["adapter"])
    found = _PARAMETER.match(name)
    if found is None or found["rest"] in (None, "weight", "bias"):
        return StoredName(name)
    adapter, _, last = found["rest"].partition(".")
    head = name[: found.end("kind")]
    # The files of DoRA still have the name that its magnitudes had before they became a module.
    last = "" if found["kind"] == "lora_magnitude_vector" else last
    return StoredName(f"{head}.{last}" if last else head, adapter)


def is_adapter_parameter(name: str) -> bool:
    """Whether a name is that of a parameter that a method of PEFT adds."""
    return "_" in name and _PARAMETER.match(name) is not None


def pair_adapter(
    sources: Collection[str], slots: Iterable[str], takes: Callable[[str, str], bool] = lambda source, slot: True
) -> Pairing:
    """Pair the names of an adapter's file with slots of a model that has the adapter; `takes` says which pairs are selected.

    `own` of the result are the slots that the file does not have because it is an adapter: those of the base model and of
    other adapters.

    >>> slots = ["q.base_layer.weight", "q.lora_A.default.weight", "q.lora_B.default.weight"]
    >>> found = pair_adapter(["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"], slots)
    >>> list(found.pairs.values()), sorted(found.own)
    (['q.lora_A.default.weight', 'q.lora_B.default.weight'], ['q.base_layer.weight'])
    """
    if not any(map(is_adapter_parameter, sources)):
        return Pairing({}, [])
    stored = {slot: stored_name(slot) for slot in slots}
    added = {slot: name for slot, name in stored.items() if is_adapter_parameter(slot)}

    def fits(source: str, slot: str) -> bool:
        module, other = _last_module(source), _last_module(added[slot].name)
        return takes(source, slot) and (module == other or not (module and other))

    given = list(filter(is_adapter_parameter, sources))
    best = _best(_votes(given, added, _start, fits))
    if len(best) != 1:
        is_only_adapter = len(given) == len(sources)
        return Pairing({}, _ambiguous(best) or [_homeless(given[0], next(iter(added), None))] * is_only_adapter)
    fit = best[0]
    places = {name: slot for slot, (name, adapter) in stored.items() if adapter in ("", fit.adapter)}
    # A saved module replaces the original one, which has the same name in the file.
    places |= {name: slot for slot, (name, adapter) in stored.items() if adapter and adapter == fit.adapter}
    pairs = {}
    for source in sources:
        place = places.get(fit.added + source[len(fit.removed) :]) if source.startswith(fit.removed) else None
        if place is not None and takes(source, place):
            pairs[source] = place
    if _is_whole(sources):
        return Pairing(pairs, [])
    filled = set(pairs.values())
    return Pairing(
        pairs,
        [],
        frozenset(
            s
            for s, (_, adapter) in stored.items()
            if s not in filled and not (adapter == fit.adapter and (adapter or is_adapter_parameter(s)))
        ),
    )


def prefixes(wanted: Iterable[str], names: Iterable[str]) -> tuple[str, str] | None:
    """Return the prefix to remove from the wanted names, and the one to add, so that most of them are among `names`, which
    are bare; None if this is not unique.

    >>> prefixes(["base_model.model.a.q.weight", "base_model.model.a.k.weight"], ["net.a.q.weight", "net.a.k.weight"])
    ('base_model.model.', 'net.')
    """
    stored = {name: StoredName(name) for name in names}
    best = _best(_votes(wanted, stored, _module_start))
    return (best[0].removed, best[0].added) if len(best) == 1 else None


def _best(votes: Counter[tuple[_Fit, int]]) -> list[_Fit]:
    """Return the fits with the most votes, and of these those with the longest common end."""
    counts, depths = Counter[_Fit](), dict[_Fit, int]()
    for (fit, depth), count in votes.items():
        counts[fit] += count
        depths[fit] = max(depth, depths.get(fit, 0))
    ranks = {fit: (count, depths[fit]) for fit, count in counts.items()}
    most = max(ranks.values(), default=None)
    return [fit for fit, rank in ranks.items() if rank == most]


def _votes(
    sources: Iterable[str],
    stored: Mapping[str, StoredName],
    start: Callable[[str], int],
    takes: Callable[[str, str], bool] = lambda source, slot: True,
) -> Counter[tuple[_Fit, int]]:
    """Count the votes for each fit, by the number of components in the common end, which begins at `start(name)` at the
    latest."""
    places: dict[str, list[str]] = {}
    for slot, (name, _) in stored.items():
        for end, _ in _ends(name, start(name)):
            places.setdefault(end, []).append(slot)
    votes = Counter[tuple[_Fit, int]]()
    for source in sources:
        for end, removed in _ends(source, start(source)):
            found = [slot for slot in places.get(end, ()) if takes(source, slot)]
            if found:
                fits = {
                    _Fit(removed, name[: len(name) - len(end)], adapter)
                    for name, adapter in map(stored.__getitem__, found)
                }
                if len(fits) <= _MOST_PLACES:
                    votes.update((fit, end.count(".")) for fit in fits)
                break
    return votes


def _ends(name: str, last: int) -> Iterator[tuple[str, str]]:
    """Yield the ends of a dotted name down to the one that begins at `last`, longest first, and what is before each."""
    at = 0
    while name.count(".", 0, last) < _MOST_COMPONENTS:
        yield name[at:], name[:at]
        at = name.find(".", at) + 1
        if not at or at > last:
            return


def _module_start(name: str) -> int:
    """Return where the last module's name begins in the name of a tensor: `weight` alone says nothing."""
    return name.rfind(".", 0, max(name.rfind("."), 0)) + 1


def _start(name: str) -> int:
    """Return where the name of an adapter's parameter begins in a name."""
    found = _PARAMETER.match(name)
    return found.start("kind") if found is not None else 0


def _is_whole(sources: Iterable[str]) -> bool:
    """Whether names are those of a whole model with an adapter: it has the base layers of all modules that the adapter
    changes, and not only those of embeddings and `lm_head`, which PEFT saves with an adapter."""
    names = set(sources)
    bases = {name.removesuffix("base_layer.weight") for name in names if name.endswith(".base_layer.weight")}
    others = {
        module for module in bases if f"{module}lora_embedding_A" not in names and not module.endswith("lm_head.")
    }
    return bool(others) and all(name[: _start(name)] in bases for name in names if is_adapter_parameter(name))


def _last_module(name: str) -> str:
    """Return the last component of the path of the module that an adapter's parameter changes."""
    return name[: max(_start(name) - 1, 0)].rpartition(".")[2]


def _homeless(source: str, slot: str | None) -> str:
    """Return a note about an adapter of which nothing belongs to the model; `slot` is a parameter of the model's own one."""
    if slot is None:
        return (
            f"the source is an adapter ({source!r}), which the model does not have: add one with PEFT before the load, or "
            "merge the files of the base and the adapter: statedict.merge([base, adapter], 'lora')"
        )
    return f"the adapter in the source ({source!r}) is for other modules than the model's ({slot!r})"


def _ambiguous(best: Iterable[_Fit]) -> list[str]:
    places = sorted({f"{fit.added}*.{fit.adapter}".rstrip(".") for fit in best})
    if not places:
        return []
    return [
        f"the adapter in the source may belong to {' or '.join(map(repr, places[:4]))}{' …' * (len(places) > 4)}: choose "
        "one with include='*.NAME.*', or with into="
    ]
