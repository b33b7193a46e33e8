"""What a page holds, as values that JSON has: columns over all tensors, the folded tree, and for two files what changed.

Compact, because 10,000 tensors are no rarity: a column is a list, the numbers have six digits, names stand once, and the
cells of all heat maps are bytes in one blob, of which each map knows its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import printable
from ._facts import Fact, extent, own_bytes, remark, totals, warnings
from ._fold import Entry, fold
from ._heat import Heat
from ._layers import layers
from ._survey import Measures, Survey

if TYPE_CHECKING:
    from statedict.plan import Diff

MOMENTS = ("min", "max", "mean", "std", "zeros", "nan", "inf")
DIGITS = 6
# Values beside the tensors that a page lists: a file may hold millions.
OTHERS = 1000


class File(NamedTuple):
    """One file as the page tells of it.

    Attributes:
        name: as the user gave it.
        format, producer, nbytes: as a Checkpoint has them.
        roots: the state dicts that are shown, by their paths.
        other: facts of what lies beside them.
        imports: facts of what the file names to be imported.
        notes: what is odd, in words.
    """

    name: str
    format: str
    producer: str
    nbytes: int
    roots: Mapping[str, Survey]
    other: Sequence[Fact] = ()
    imports: Sequence[Fact] = ()
    notes: Sequence[str] = ()


class Place(NamedTuple):
    """One line of the page's table: a root and a name, as the newer file calls them, and the tensor of each file (its fact
    and measures), None where the file has none."""

    root: str
    name: str
    status: str
    tensors: tuple[tuple[Fact, Measures | None] | None, ...]


def content(files: Sequence[File], diff: Diff | None = None) -> tuple[Fact, bytes]:
    """The page's values, and the bytes of its heat maps. Of two files each has one root, and `diff` is between those.

    >>> values, cells = content([File("model.pt", "torch", "unknown", 0, {})])
    >>> values["files"][0]["name"], values["rows"], cells
    ('model.pt', [], b'')
    """
    places = _alone(files[0]) if diff is None else _paired(files, diff)
    cells = bytearray()
    columns = [_columns([place.tensors[i] for place in places], cells) for i in range(len(files))]
    values: Fact = {
        "files": [_file(file) for file in files],
        "roots": [printable(root) for root in dict.fromkeys(place.root for place in places)],
        "root": _indices(place.root for place in places),
        "names": [printable(place.name) for place in places],
        "columns": columns,
        "rows": _rows(places),
    }
    if diff is not None:
        values["status"] = [place.status for place in places]
        values |= _changes(places, diff)
    return values, bytes(cells)


def _alone(file: File) -> list[Place]:
    return [
        Place(root, fact["name"], "", ((fact, measures),))
        for root, survey in file.roots.items()
        for fact, measures in zip(survey.tensors, survey.measures)
    ]


def _paired(files: Sequence[File], diff: Diff) -> list[Place]:
    """The tensors of two states, each beside what it was; those that were removed last."""
    old, new = ({fact["name"]: (fact, m) for fact, m in _tensors(file)} for file in files)
    before = {diff.renamed.get(name, name): tensor for name, tensor in old.items() if name not in diff.removed}
    (root,) = files[-1].roots
    both = [Place(root, name, _status(name, diff), (before.get(name), tensor)) for name, tensor in new.items()]
    gone = [Place(root, name, "removed", (old[name], None)) for name in diff.removed if name in old]
    return [*both, *gone]


def _tensors(file: File) -> Iterable[tuple[Fact, Measures | None]]:
    return (pair for survey in file.roots.values() for pair in zip(survey.tensors, survey.measures))


def _status(name: str, diff: Diff) -> str:
    """What became of a tensor of the second state: the first of these that holds."""
    held = (word for word in ("added", "shape", "changed", "dtype") if name in getattr(diff, word))
    return next(held, "changed" if name in diff.values else "equal")


def _file(file: File) -> Fact:
    facts = [fact for fact, _ in _tensors(file)]
    by_dtype = totals(facts, lambda fact: str(fact["dtype"]))
    return {
        "name": printable(file.name),
        "format": file.format,
        "producer": printable(file.producer),
        "bytes": file.nbytes,
        "tensors": len(facts),
        "elements": sum(prod(fact["shape"]) for fact in facts if "tied_to" not in fact),
        "held": sum(own_bytes(fact) for fact in facts),
        "dtypes": [[name, total["tensors"], total["bytes"]] for name, total in by_dtype.items()],
        "other": [_other(fact) for fact in islice(_others(file), OTHERS)],
        "others": sum(1 for _ in _others(file)),
        "warnings": [[level, printable(line)] for level, line in warnings(file.imports, file.notes)],
    }


def _others(file: File) -> Iterable[Fact]:
    for root, survey in file.roots.items():
        yield from ({**fact, "path": f"{root}/{fact['path']}" if root else fact["path"]} for fact in survey.values)
    yield from file.other


def _other(fact: Fact) -> list[str]:
    value = "" if fact["value"] is None else str(fact["value"])
    return [printable(text) for text in (fact["path"], fact["type"], value)]


def _columns(tensors: Sequence[tuple[Fact, Measures | None] | None], cells: bytearray) -> Fact:
    """Each property of all tensors as a list, with None where there is none."""
    facts = [tensor[0] if tensor else None for tensor in tensors]
    measured = [tensor[1] if tensor else None for tensor in tensors]
    drawn: dict[int, list[Any]] = {}  # tied tensors are one picture
    return {
        "dtype": [fact and fact["dtype"] for fact in facts],
        "shape": [fact and extent(fact) for fact in facts],
        "bytes": [fact and fact["bytes"] for fact in facts],
        "remark": {i: printable(remark(fact)) for i, fact in enumerate(facts) if fact and remark(fact)},
        "stats": [m and [_short(m.stats[key]) for key in MOMENTS] for m in measured],
        "histogram": [m and [m.histogram.start, m.histogram.width, *m.histogram.counts] for m in measured],
        "heat": [m and m.heat and _heat(m.heat, drawn, cells) for m in measured],
    }


def _heat(heat: Heat, drawn: dict[int, list[Any]], cells: bytearray) -> list[Any]:
    """Where a heat map's cells lie, their grid, the matrix they stand for, and the numbers of the lowest and the highest."""
    if id(heat) not in drawn:
        low, high, packed = heat.packed()
        drawn[id(heat)] = [len(cells), heat.down, heat.across, heat.rows, heat.columns, _short(low), _short(high)]
        cells += packed
    return drawn[id(heat)]


def _short(value: float | int | None) -> float | int | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _rows(places: Sequence[Place]) -> list[list[Any]]:
    """The folded tree of each root: depth, label, how many things the row stands for, their bytes, and which they are."""
    rows: list[list[Any]] = []
    roots: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        roots.setdefault(place.root, []).append(i)
    for root, chosen in roots.items():
        index = {places[i].name: i for i in chosen}
        below = fold(_entry(places[i]) for i in chosen)
        if len(roots) > 1:
            rows.append([0, printable(root), 1, sum(row.nbytes for row in below if not row.depth), []])
        for row in below:
            which = [index[entry.name] for entry in row.entries]
            rows.append([row.depth + (len(roots) > 1), printable(row.label), row.times, row.nbytes, which])
    return rows


def _entry(place: Place) -> Entry:
    """For the tree: what has changed in kind is not folded with what has not."""
    facts = [tensor[0] if tensor else None for tensor in place.tensors]
    kind = tuple(fact and (fact["dtype"], *fact["shape"]) for fact in facts)
    last = next(fact for fact in reversed(facts) if fact)
    return Entry(place.name, kind, own_bytes(last), remark(last))


def _changes(places: Sequence[Place], diff: Diff) -> Fact:
    before = {place.name: place.tensors[0] for place in places}
    measured = {name: tensor[1] for name, tensor in before.items() if tensor}
    tensors = {place.name for place in places}
    loose = {word: [n for n in getattr(diff, word) if n not in tensors] for word in ("added", "removed", "values")}
    return {
        "changes": {
            i: [_bounded(_short(number)) for number in diff.changed[place.name]]
            for i, place in enumerate(places)
            if place.name in diff.changed and place.status == "changed"
        },
        "layers": [
            [printable(layer.name), _bounded(_short(layer.relative)), layer.changed, layer.compared]
            for layer in layers(diff, measured)
        ],
        "renamed": {printable(new): printable(old) for old, new in diff.renamed.items()},
        "loose": {word: [printable(name) for name in names] for word, names in loose.items()},
        "ties": [[[printable(name) for name in group] for group in groups] for groups in (diff.untied, diff.tied)],
    }


def _bounded(value: float | int | None) -> float | int | str | None:
    """Infinity by its name, which JSON has no number for."""
    return value if value is None or isfinite(value) else "Infinity"


def _indices(items: Iterable[str]) -> list[int]:
    """For each item the position of the first like it among the different ones."""
    known: dict[str, int] = {}
    return [known.setdefault(item, len(known)) for item in items]
