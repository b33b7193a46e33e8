"""Pair names that differ only in wrapper components: those that DataParallel, DDP, FSDP, torch.compile, activation
checkpointing and DeepSpeed add to names.

*Theory of operation.* Two names mean the same tensor if they are equal without their wrapper components (`bare`). But
`module` may also be the name of an ordinary child, so removing it everywhere would confuse `module.weight` with `weight`.
Therefore the names are paired in these steps, each for the names that the steps before it left:

1. *Alignment.* If all names of a side begin with a wrapper, that wrapper may be removed from the side. The combination with
   the most equal names is used, and the unchanged names if they are as good. So a wrapped model with a real child `module`
   is unwrapped once, not twice.
2. Names that are then equal.
3. Names that are equal without wrappers, if this is unique on both sides. If not, names that are equal without the wrappers
   that are never names of ordinary children (`_orig_mod` …), under the same condition.

Ambiguous names are not paired and a note is added; two sources for one slot that cannot be distinguished raise
CollisionError. The time is linear in the number of names.

A wrapper may have a tensor of its own next to its child: the update counter of `torch.optim.swa_utils.AveragedModel`. It is
not part of the model, so it is not reported as missing or unexpected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from statedict.errors import CollisionError

# The names that the wrappers of torch.compile, FSDP, checkpoint_wrapper and DeepSpeed give to their only child.
CERTAIN = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
WRAPPERS = CERTAIN | {"module"}
# The update counter of AveragedModel, next to its only child `module`.
COUNT = "n_averaged"
# Each is compared with all names; the limit keeps this linear for a hostile file. Real models have one or two.
_MOST_COUNTS = 64


_Seen = tuple[str, str]  # a name, and its view


class Pairing(NamedTuple):
    """The result of `pair`.

    Attributes:
        pairs: source name → slot.
        notes: warnings about names that were not paired because they are ambiguous.
        own: names on either side that belong to a wrapper which the other side does not have.
    """

    pairs: dict[str, str]
    notes: list[str]
    own: frozenset[str] = frozenset()


def bare(name: str, wrappers: Collection[str] = WRAPPERS) -> str:
    """Return the name without its wrapper components; the last component is always kept.

    >>> bare("module._orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    # A quick test: every wrapper ends in one of these, and is not the last component.
    if "mod." not in name and "module." not in name:
        return name
    *path, last = name.split(".")
    return ".".join([part for part in path if part not in wrappers] + [last])


def pair(sources: Collection[str], slots: Collection[str], *, wrappers: bool = True) -> Pairing:
    """Pair sources with slots; raises CollisionError if two sources for one slot differ only in their wrappers.

    >>> pair(["module.weight", "module.steps"], ["weight", "bias"]).pairs
    {'module.weight': 'weight'}
    """
    if not wrappers:
        known = set(slots)
        return Pairing({name: name for name in sources if name in known}, [])
    counts = _counts(sources), _counts(slots)
    if not any(counts):
        return _pair(sources, slots)
    pairs, notes, _ = _pair(
        *([name for name in side if name not in own] for side, own in zip((sources, slots), counts))
    )
    filled = set(pairs.values())
    left = (
        [n for n in side if n.endswith(COUNT) and n not in done] for side, done in ((sources, pairs), (slots, filled))
    )
    pairs |= _pair(*left).pairs
    filled = set(pairs.values())
    own = {name for name in counts[0] if name not in pairs} | {name for name in counts[1] if name not in filled}
    return Pairing(pairs, notes, frozenset(own))


def _counts(names: Collection[str]) -> frozenset[str]:
    """Return the names of AveragedModel counters: everything next to them is below the child `module`."""
    found = [name for name in names if name.endswith(COUNT) and name.rpartition(".")[2] == COUNT][:_MOST_COUNTS]
    counts = set()
    for name in found:
        above = name.removesuffix(COUNT)
        beside = [other for other in names if other != name and other.startswith(above)]
        if beside and all(other.startswith(f"{above}module.") for other in beside):
            counts.add(name)
    return frozenset(counts)


def _pair(sources: Collection[str], slots: Collection[str]) -> Pairing:
    source_head, slot_head = _alignment(sources, slots)
    views = {name[len(slot_head) :]: name for name in slots}
    seen = [(name, name[len(source_head) :]) for name in sources]
    pairs = {name: views[view] for name, view in seen if view in views}
    if len(pairs) == min(len(seen), len(views)):
        return Pairing(pairs, [])
    return Pairing(pairs, _pair_bare(pairs, seen, [(slot, view) for view, slot in views.items()]))


def follow(names: Iterable[str], pairs: Mapping[str, str]) -> dict[str, str]:
    """Move names without a slot in the same way as the other names of their modules; return only those that move.

    A load hook of the module may use them, if they are where it expects them.
    """
    names = list(names)
    if not names or all(source == slot for source, slot in pairs.items()):
        return {}
    modules: dict[str, str] = {}
    for source, slot in pairs.items():
        source_path, slot_path = source.rpartition(".")[0], slot.rpartition(".")[0]
        while source_path not in modules:
            modules[source_path] = slot_path
            if source_path.rpartition(".")[2] != slot_path.rpartition(".")[2]:
                break
            source_path, slot_path = source_path.rpartition(".")[0], slot_path.rpartition(".")[0]
    taken, moved = {*pairs.values(), *names}, {}
    for name in names:
        new = _beside(name, modules)
        if new not in taken:
            taken.add(new)
            moved[name] = new
    return moved


def _beside(name: str, modules: Mapping[str, str]) -> str:
    """Return the name below the new path of its nearest renamed module."""
    path, rest = name.rpartition(".")[0], name
    while path and path not in modules:
        path = path.rpartition(".")[0]
    if path:
        rest = name[len(path) + 1 :]
    new = modules.get(path, path)
    return f"{new}.{rest}" if new else rest


def _alignment(sources: Collection[str], slots: Collection[str]) -> tuple[str, str]:
    """Return the wrappers to remove at the root of each side, so that most names are equal."""
    heads = [(a, b) for a in _heads(sources) for b in _heads(slots)]
    if len(heads) == 1:
        return heads[0]
    views = {(0, a): {name[len(a) :] for name in sources} for a, _ in heads}
    views |= {(1, b): {name[len(b) :] for name in slots} for _, b in heads}
    equal = {(a, b): views[0, a] & views[1, b] for a, b in heads}
    most = max(map(len, equal.values()))
    best = [head for head in heads if len(equal[head]) == most]
    alike = (
        {frozenset((f"{a}{name}", f"{b}{name}") for name in equal[a, b]) for a, b in best} if len(best) > 1 else {()}
    )
    return best[0] if best[0] == ("", "") or len(alike) == 1 else ("", "")


def _heads(names: Collection[str]) -> list[str]:
    """Return the wrapper prefixes that all names have: `["", "module.", "module._orig_mod."]`."""
    if not names:
        return [""]
    low, high = min(names), max(names)  # a prefix of both is a prefix of all
    heads = [""]
    for part in low.split(".")[:-1]:
        head = f"{heads[-1]}{part}."
        if part not in WRAPPERS or not high.startswith(head):
            break
        heads.append(head)
    return heads


def _pair_bare(pairs: dict[str, str], views: Iterable[_Seen], slots: Iterable[_Seen]) -> list[str]:
    """Add to `pairs` the names that are equal without wrappers and unique; return notes on the others."""
    slot_classes = _classes(slots, WRAPPERS)
    filled, notes = set(pairs.values()), []
    for name, members in _classes(views, WRAPPERS).items():
        wanting = slot_classes.get(name, ())
        if len(members) == 1 == len(wanting):
            pairs[members[0][0]] = wanting[0][0]
        elif wanting:
            notes += _settle(pairs, filled, members, wanting)
    return notes


def _settle(pairs: dict[str, str], filled: set[str], members: Sequence[_Seen], wanting: Sequence[_Seen]) -> list[str]:
    """Pair names that are all equal without wrappers, comparing them without the certain wrappers only."""
    slot_classes = _classes(wanting, CERTAIN)
    for name, some in _classes(members, CERTAIN).items():
        if len(some) == 1 == len(slot_classes.get(name, ())):
            (source, _), (slot, _) = some[0], slot_classes[name][0]
            pairs[source] = slot
            filled.add(slot)
    free = [slot for slot, _ in wanting if slot not in filled]
    left = [source for source, _ in members if source not in pairs]
    if not free or not left:
        return []
    if len(wanting) == 1:
        raise CollisionError(free[0], left)
    return [
        f"{', '.join(map(repr, left))} may be {' or '.join(map(repr, free))}: the names are ambiguous without their "
        "wrappers; use rename= to choose"
    ]


def _classes(names: Iterable[_Seen], wrappers: Collection[str]) -> dict[str, list[_Seen]]:
    """Group names by their view without wrappers."""
    classes: dict[str, list[_Seen]] = {}
    for seen in names:
        classes.setdefault(bare(seen[1], wrappers), []).append(seen)
    return classes
