"""Facts: what is known about a file without reading a tensor, as the plain values that `statedict inspect --json` prints.

Their structure is documented in docs/reference/json.md; fields may be added but not removed. The terminal output and the
page are made from the same values.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from math import isfinite, prod
from typing import Any

from statedict.state import Absent, Compound, Leaf, Opaque, Parts, Short, Spec, StateDict, few, rows_of

Fact = dict[str, Any]

# Deeper values are shown in one line: hostile files nest 100,000 lists.
DEEPEST = 8
LONGEST = 512
PIECES_SHOWN = 3
SCALARS = (str, int, float, bool, complex, bytes, type(None))


def tensors(state: StateDict) -> list[Fact]:
    """Return one fact for each tensor of the state, in order.

    `tied_to` names the first tensor with the same elements; `shares_with` names the first tensor in the same storage. The
    bytes of a tied tensor are counted only for the tensor that it is tied to.
    """
    leaves = dict(state.leaves())
    rows = _rows(leaves)
    if rows is not None:
        return rows
    firsts: dict[Any, str] = {}
    facts = []
    for name, leaf in leaves.items():
        fact: Fact = {"name": name}
        if isinstance(leaf, Absent):
            missing = os.path.basename(leaf.file)
            fact |= {"dtype": "unknown", "shape": [], "bytes": 0, "layout": "unknown", "missing": missing}
        elif isinstance(leaf, Leaf):
            spec, storage = leaf.spec, leaf.storage
            same = firsts.setdefault(leaf.identity, name)
            shared = firsts.setdefault(storage.key, name) if storage.nbytes else name
            fact |= _strided(spec, storage.location)
            if same != name and storage.nbytes:
                fact["tied_to"] = same
            elif shared != name:
                fact["shares_with"] = shared
            if isinstance(leaf, Parts):
                here = [f"{list(sizes)} at {list(offsets)}" for (offsets, sizes), _ in leaf.pieces[:PIECES_SHOWN]]
                fact["part"] = "; ".join([*here, *(["…"] if len(leaf.pieces) > PIECES_SHOWN else [])])
        else:
            fact |= {"dtype": leaf.dtype.name, "shape": list(leaf.shape), "bytes": leaf.nbytes, "layout": leaf.layout}
            if "class" in leaf.facts:
                fact |= {"class": str(leaf.facts["class"]).replace(":", "."), "parts": list(leaf.parts)}
        facts.append(fact)
    return facts


def _rows(leaves: Mapping[str, Any]) -> list[Fact] | None:
    """Return the facts of tensors that are all different rows of tables of different sources; None otherwise.

    Such tensors do not share memory; the storage of each would take longer than the rest of its fact.
    """
    if set(map(type, leaves.values())) != {Leaf}:
        return None
    groups: defaultdict[Any, list[Leaf]] = defaultdict(list)
    for leaf in leaves.values():
        groups[leaf.table].append(leaf)
    tables = [table for group in groups.values() if (table := rows_of(group)) is not None]
    if len({id(table.source) for table in tables}) < len(groups):
        return None
    facts = [[_strided(kind.spec, kind.location) for kind in table.kinds] for table in tables]
    found = {key: map(kinds.__getitem__, table.which) for key, table, kinds in zip(groups, tables, facts)}
    return [{"name": name, **next(found[leaf.table])} for name, leaf in leaves.items()]


def _strided(spec: Spec, location: str) -> Fact:
    fact = {"dtype": spec.dtype.name, "shape": list(spec.shape), "bytes": spec.nbytes, "layout": "strided"}
    return fact if location == "cpu" else {**fact, "device": location}


def values(state: StateDict, fits: Callable[[str], bool]) -> list[Fact]:
    """Return one fact for each entry of the state that is not a tensor: extra state, a step count."""
    # `items()` would read every tensor.
    held = dict(state.leaves())
    names = [name for name in state if name not in held and fits(name)]
    return [fact for name in names for fact in contents(state[name], name)]


def totals(facts: Iterable[Fact], groups: Iterable[str]) -> dict[str, Fact]:
    """Return the number of tensors, elements and bytes of each group, the largest first; `groups` has that of each tensor.

    Tied tensors are counted, but not their elements and bytes.
    """
    found: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact, group in zip(facts, groups):
        found[group].append(fact)
    sums: dict[str, Fact] = {
        group: {"tensors": len(some), "elements": sum(map(own_elements, some)), "bytes": sum(map(own_bytes, some))}
        for group, some in found.items()
    }
    return dict(sorted(sums.items(), key=lambda item: -item[1]["bytes"]))


def own_bytes(fact: Fact) -> int:
    """Return a tensor's bytes, 0 if it is tied to another."""
    return 0 if "tied_to" in fact else int(fact["bytes"])


def own_elements(fact: Fact) -> int:
    """Return a tensor's number of elements, 0 if it is tied to another or missing."""
    return 0 if "tied_to" in fact or "missing" in fact else prod(fact["shape"])


def contents(value: Any, path: str = "", skip: Collection[str] = ()) -> list[Fact]:
    """Return one fact for each plain value, tensor and unknown object below `value`, except below the paths in `skip`.

    Paths are joined by `/`, as for roots. A list of plain values is one fact. A value that occurs again refers to its first
    path, so that the time is linear, even for cycles.
    """
    return list(_walk(value, path, frozenset(skip), {}, DEEPEST))


def _walk(value: Any, path: str, skip: frozenset[str], seen: dict[int, str], deeper: int) -> Iterator[Fact]:
    if path in skip:
        return
    below = _below(value)
    first = seen.setdefault(id(value), path) if below else path
    if first != path:
        yield {"path": path, "type": type_of(value), "value": f"the same as {first or 'the file'}"}
    elif not below or not deeper:
        yield {"path": path, "type": type_of(value), "value": plain(value)}
    else:
        if isinstance(value, Opaque):
            yield {"path": path, "type": value.path, "value": None}
        for key, child in below.items():
            yield from _walk(child, f"{path}/{key}" if path else str(key), skip, seen, deeper - 1)


def _below(value: Any) -> Mapping[Any, Any]:
    """Return the children of a value that are shown with their own paths; empty if the value is one fact."""
    if isinstance(value, Mapping) and not isinstance(value, StateDict):
        return value
    if isinstance(value, Opaque):
        return value.attributes()
    if isinstance(value, (list, tuple)) and not all(isinstance(item, SCALARS) for item in value):
        return dict(enumerate(value))
    return {}


def type_of(value: Any) -> str:
    """Return a short text for the type of a value."""
    if isinstance(value, Leaf):
        return f"tensor {value.spec.dtype} {shape(value.spec.shape)}"
    if isinstance(value, Compound):
        return f"{value.layout} tensor {value.dtype} {shape(value.shape)}"
    return value.path if isinstance(value, Opaque) else type(value).__name__


def plain(value: Any) -> Any:
    """Return a value for JSON: numbers and short strings unchanged, other values as shortened text, tensors as None."""
    if isinstance(value, (Leaf, Compound)):
        return None
    if value is None or isinstance(value, bool) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, float):
        return json.dumps(value)  # "NaN", "Infinity", "-Infinity"
    if isinstance(value, int):
        # Python does not convert integers of more than 4,300 digits to text, but a file can contain them.
        return value if value.bit_length() <= LONGEST else f"an integer of {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) <= SHORT.maxstring:
        return value
    return SHORT.repr(value)


def imports(named: Iterable[Any]) -> list[Fact]:
    """Return one fact for each import that a file names; none of them was imported."""
    return [{"name": one.path, "risk": one.risk} for one in named]


def warnings(named: Iterable[Fact], notes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return pairs of a level (`dangerous`, `unknown`, `note`) and a line: imports that would run code, unknown classes, and
    other warnings about the file."""
    named = list(named)
    for risk, words in IMPORTS.items():
        names = [fact["name"] for fact in named if fact["risk"] == risk]
        if names:
            yield risk, f"{words}: {few(names, NAMES_SHOWN)}"
    yield from (("note", f"note: {note}") for note in notes)


def remark(fact: Fact) -> str:
    """Return a text that says what is unusual about a tensor."""
    if fact["layout"] == "strided" and REMARKED.isdisjoint(fact):
        return ""
    ties = [f"= {fact['tied_to']}"] if "tied_to" in fact else []
    ties += [f"in the storage of {fact['shares_with']}"] if "shares_with" in fact else []
    ties += [f"missing: {fact['missing']}"] if "missing" in fact else []
    ties += [f"part {fact['part']}"] if "part" in fact else []
    kind = (
        [f"{fact['class'].rpartition('.')[2]} of {', '.join(fact['parts'])}"] if "class" in fact else [fact["layout"]]
    )
    parts = [*ties, *(kind if fact["layout"] not in ("strided", "unknown") else []), fact.get("device", "")]
    return ", ".join(filter(None, parts))


def extent(fact: Fact) -> str:
    """Return a tensor's shape as text; empty if it is not known."""
    return "" if "missing" in fact else shape(fact["shape"])


def shape(sizes: Collection[int]) -> str:
    """Return sizes as text.

    >>> shape([64, 3, 7, 7]), shape([])
    ('64×3×7×7', 'scalar')
    """
    return "×".join(map(str, sizes)) or "scalar"


NAMES_SHOWN = 12
REMARKED = {"tied_to", "shares_with", "missing", "part", "class", "device"}
IMPORTS = {
    "dangerous": "would run code under pickle (it was not run)",
    "unknown": "unknown classes and functions (not imported)",
}
SHORT = Short()
SHORT.maxstring = SHORT.maxother = 200
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = 8


UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@lru_cache(maxsize=1 << 12)
def size(nbytes: int) -> str:
    """Return bytes in decimal units with three digits.

    >>> size(999), size(44_721_934), size(2 * 10**12)
    ('999 B', '44.7 MB', '2.00 TB')
    """
    power = max(p for p in range(len(UNITS)) if p == 0 or nbytes >= 999.5 * 1000 ** (p - 1))
    value = nbytes / 1000**power
    digits = 0 if not power or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {UNITS[power]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "tensor"), count(32_000, "tensor")
    ('1 tensor', '32,000 tensors')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
