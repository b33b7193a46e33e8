"""The content of a page as JSON values: columns over all tensors, the folded tree, and the changes between two files.

It is compact, because 10,000 tensors are common: each property is a list, numbers have six digits, each name occurs once,
and the cells of all heat maps are in one block of bytes, in which each map has an offset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from math import hypot, inf, isfinite, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import printable
from ._facts import Fact, extent, own_bytes, own_elements, remark, totals, warnings
from ._fold import fold
from ._measures import Heat
from ._optimizers import is_optimizer, noun
from ._survey import Measures, SurveyResult

if TYPE_CHECKING:
    from statedict.plan import Diff

MOMENTS = ("min", "max", "mean", "std", "zeros", "nan", "inf")
DIGITS = 6
# The number of other values that a page lists: a file may contain millions.
OTHERS = 1000


class FileContent(NamedTuple):
    """The description of one file for the page.

    Attributes:
        name: as the user gave it.
        format, producer, nbytes: those of the Checkpoint.
        roots: the state dicts that are shown, by path.
        primary: the path of the default root, if there is one; it is shown first.
        other: facts about the other values in the file.
        imports: facts about the imports that the file names.
        notes: warnings, as text.
    """

    name: str
    format: str
    producer: str
    nbytes: int
    roots: Mapping[str, SurveyResult]
    other: Sequence[Fact] = ()
    imports: Sequence[Fact] = ()
    notes: Sequence[str] = ()
    primary: str | None = None


class PageRow(NamedTuple):
    """One row of the page's table: a root and a name, as in the newer file, the name that is shown, and the tensor of each
    file (its fact and measures), or None if the file does not have it."""

    root: str
    name: str
    label: str
    status: str
    tensors: tuple[tuple[Fact, Measures | None] | None, ...]


def content(files: Sequence[FileContent], diff: Diff | None = None) -> tuple[Fact, bytes]:
    """Return the page's values, and the bytes of its heat maps. Two files have one root each, and `diff` compares them.

    >>> values, cells = content([FileContent("model.pt", "torch", "unknown", 0, {})])
    >>> values["files"][0]["name"], values["rows"], cells
    ('model.pt', [], b'')
    """
    rows = _alone(files[0]) if diff is None else _paired(files, diff)
    cells = bytearray()
    columns = [_columns([row.tensors[i] for row in rows], cells) for i in range(len(files))]
    values: Fact = {
        "files": [_file(file) for file in files],
        "roots": [printable(root) for root in dict.fromkeys(row.root for row in rows)],
        "root": _indices(row.root for row in rows),
        "nouns": [_noun([files[-1].roots[root]]) for root in dict.fromkeys(row.root for row in rows)],
        "names": [printable(row.label) for row in rows],
        "stored": {i: printable(row.name) for i, row in enumerate(rows) if row.label != row.name},
        "columns": columns,
        "rows": _rows(rows),
    }
    if diff is not None:
        values["status"] = [row.status for row in rows]
        values |= _changes(rows, diff)
    return values, bytes(cells)


def _alone(file: FileContent) -> list[PageRow]:
    """Return the tensors of a file: those of its default root first, those of optimizers last."""
    roots = sorted(file.roots.items(), key=lambda item: (item[0] != file.primary, is_optimizer(item[1].values)))
    return [
        PageRow(root, fact["name"], survey.labels.get(str(fact["name"]), str(fact["name"])), "", ((fact, measures),))
        for root, survey in roots
        for fact, measures in zip(survey.tensors, survey.measures)
    ]


def _paired(files: Sequence[FileContent], diff: Diff) -> list[PageRow]:
    """Return the tensors of two states side by side, the removed ones at the end."""
    old, new = ({fact["name"]: (fact, m) for fact, m in _tensors(file)} for file in files)
    before = {diff.renamed.get(name, name): tensor for name, tensor in old.items() if name not in diff.removed}
    ((root, survey),) = files[-1].roots.items()
    labels = {} if set(diff.removed).intersection(survey.labels.values()) else survey.labels
    both = [
        PageRow(root, name, labels.get(name, name), _status(name, diff), (before.get(name), tensor))
        for name, tensor in new.items()
    ]
    gone = [PageRow(root, name, name, "removed", (old[name], None)) for name in diff.removed if name in old]
    return [*both, *gone]


def _tensors(file: FileContent) -> Iterable[tuple[Fact, Measures | None]]:
    return (pair for survey in file.roots.values() for pair in zip(survey.tensors, survey.measures))


def _status(name: str, diff: Diff) -> str:
    """Return the status of a tensor of the second state: the first of these that applies."""
    held = (word for word in ("added", "shape", "changed", "dtype") if name in getattr(diff, word))
    return next(held, "changed" if name in diff.values else "equal")


def _file(file: FileContent) -> Fact:
    facts = [fact for fact, _ in _tensors(file)]
    by_dtype = totals(facts, [fact["dtype"] for fact in facts])
    return {
        "name": printable(file.name),
        "format": file.format,
        "producer": printable(file.producer),
        "bytes": file.nbytes,
        "tensors": len(facts),
        "counted": _counted(file),
        "held": sum(own_bytes(fact) for fact in facts),
        "dtypes": [[name, total["tensors"], total["bytes"]] for name, total in by_dtype.items()],
        "other": [_other(fact) for fact in islice(_others(file), OTHERS)],
        "others": sum(1 for _ in _others(file)),
        "warnings": [[level, printable(line)] for level, line in warnings(file.imports, file.notes)],
    }


def _counted(file: FileContent) -> list[Any]:
    """Return the number of elements, the word for them, and the root that has them, if it is one of several.

    They are those of the default root or, without one, of all roots that are not optimizers.
    """
    models = {path: survey for path, survey in file.roots.items() if not is_optimizer(survey.values)} or file.roots
    chosen = {path: survey for path, survey in file.roots.items() if path == file.primary} or models
    root = next(iter(chosen)) if len(chosen) == 1 < len(file.roots) else ""
    return [
        sum(own_elements(fact) for survey in chosen.values() for fact in survey.tensors),
        _noun(chosen.values()),
        printable(root),
    ]


def _noun(surveys: Collection[SurveyResult]) -> str:
    every = chain.from_iterable
    return noun(every(survey.tensors for survey in surveys), every(survey.values for survey in surveys))


def _others(file: FileContent) -> Iterable[Fact]:
    for root, survey in file.roots.items():
        yield from ({**fact, "path": f"{root}/{fact['path']}" if root else fact["path"]} for fact in survey.values)
    yield from file.other


def _other(fact: Fact) -> list[str]:
    value = "" if fact["value"] is None else str(fact["value"])
    return [printable(text) for text in (fact["path"], fact["type"], value)]


def _columns(tensors: Sequence[tuple[Fact, Measures | None] | None], cells: bytearray) -> Fact:
    """Return each property of all tensors as a list, with None for missing values."""
    facts = [tensor[0] if tensor else None for tensor in tensors]
    measured = [tensor[1] if tensor else None for tensor in tensors]
    drawn: dict[int, list[Any]] = {}  # tied tensors share a heat map
    return {
        "dtype": [fact and fact["dtype"] for fact in facts],
        "shape": [fact and extent(fact) for fact in facts],
        "bytes": [fact and fact["bytes"] for fact in facts],
        "elements": [fact and own_elements(fact) for fact in facts],
        "remark": {i: printable(remark(fact)) for i, fact in enumerate(facts) if fact and remark(fact)},
        "stats": [m and [_short(m.stats[key]) for key in MOMENTS] for m in measured],
        "histogram": [m and [m.histogram.start, m.histogram.width, *m.histogram.counts] for m in measured],
        "heat": [m and m.heat and _heat(m.heat, drawn, cells) for m in measured],
    }


def _heat(heat: Heat, drawn: dict[int, list[Any]], cells: bytearray) -> list[Any]:
    """Return the offset of a heat map's cells, its grid, the size of the matrix, and its lowest and highest value."""
    if id(heat) not in drawn:
        low, high, packed = heat.packed()
        drawn[id(heat)] = [len(cells), heat.down, heat.across, heat.rows, heat.columns, _short(low), _short(high)]
        cells += packed
    return drawn[id(heat)]


def _short(value: float | int | None) -> float | int | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _rows(table: Sequence[PageRow]) -> list[list[Any]]:
    """Return the folded tree of each root: depth, label, number of tensors or modules, their bytes, and their indices."""
    rows: list[list[Any]] = []
    roots: dict[str, list[int]] = {}
    for i, row in enumerate(table):
        roots.setdefault(row.root, []).append(i)
    for root, chosen in roots.items():
        below = fold(*_tree_columns([table[i] for i in chosen]))
        if len(roots) > 1:
            rows.append([0, printable(root), 1, sum(line.nbytes for line in below if not line.depth), []])
        for line in below:
            which = [chosen[i] for i in line.which]
            rows.append([line.depth + (len(roots) > 1), printable(line.label), line.times, line.nbytes, which])
    return rows


def _tree_columns(rows: Sequence[PageRow]) -> tuple[list[str], list[Any], list[int]]:
    """Return names, kinds and sizes for `fold`. Tensors whose dtype or shape has changed are not folded with others."""
    facts = [[tensor and tensor[0] for tensor in row.tensors] for row in rows]
    last = [next(fact for fact in reversed(pair) if fact) for pair in facts]
    kinds = [
        (remark(fact), *(fact and (fact["dtype"], *fact["shape"]) for fact in pair)) for fact, pair in zip(last, facts)
    ]
    return [row.label for row in rows], kinds, list(map(own_bytes, last))


def _changes(rows: Sequence[PageRow], diff: Diff) -> Fact:
    before = {row.name: row.tensors[0] for row in rows}
    measured = {name: tensor[1] for name, tensor in before.items() if tensor}
    tensors = {row.name for row in rows}
    loose = {word: [n for n in getattr(diff, word) if n not in tensors] for word in ("added", "removed", "values")}
    return {
        "changes": {
            i: [_bounded(_short(number)) for number in diff.changed[row.name]]
            for i, row in enumerate(rows)
            if row.name in diff.changed and row.status == "changed"
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
    """Return infinity as text, because JSON cannot represent it."""
    return value if value is None or isfinite(value) else "Infinity"


def _indices(items: Iterable[str]) -> list[int]:
    """Return, for each item, its index among the distinct items."""
    known: dict[str, int] = {}
    return [known.setdefault(item, len(known)) for item in items]


class Layer(NamedTuple):
    """One layer of two states.

    Attributes:
        name: the name of the module; empty for tensors at the root.
        relative: the norm of the difference divided by the norm before; infinite if that was zero.
        changed, compared: the number of tensors that differ, and of all that could be compared.
    """

    name: str
    relative: float
    changed: int
    compared: int


def layers(diff: Diff, before: Mapping[str, Measures | None]) -> list[Layer]:
    """Return each layer's change, in the order of the names.

    `before`: measures of the first state's tensors, by the second's names. Only tensors that both states have, with equal
    shapes, are compared.
    """
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for name, measures in before.items():
        if measures is not None and name not in diff.shape and name not in diff.removed:
            change = diff.changed.get(name)
            part = change.distance if change else 0.0, _norm(measures), bool(change)
            found.setdefault(name.rpartition(".")[0], []).append(part)
    return [Layer(name, _relative(parts), sum(part[2] for part in parts), len(parts)) for name, parts in found.items()]


def _relative(parts: Iterable[tuple[float, float, bool]]) -> float:
    """Return the relative change of several vectors combined."""
    distance, before = (hypot(*norms) for norms in list(zip(*parts))[:2])
    return distance / before if before else inf if distance else 0.0


def _norm(measures: Measures) -> float:
    """Return the Euclidean norm of the finite elements, from their number, mean and standard deviation."""
    mean, std = measures.stats["mean"], measures.stats["std"]
    return 0.0 if mean is None or std is None else sqrt(sum(measures.histogram.counts) * (mean**2 + std**2))
