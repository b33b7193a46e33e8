"""Print a Diff: counts, then added, removed and changed names, folded over layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from statedict.state import Section, as_html, as_text, folded, listed

from ..names._generalise import folded_pairs
from ..operations._specs import Shape

if TYPE_CHECKING:
    from ._diff import Diff

_LINES = 20
_FEW = 5
# What a field of a Diff is called in the counts, if not by its own name.
_WORDS = {
    "shape": "reshaped",
    "dtype": "with another dtype",
    "values": "other values changed",
    "texts": "texts changed",
}


def diff_text(diff: Diff) -> str:
    """Return the diff as text."""
    return as_text(_counts(diff), _sections(diff))


def diff_html(diff: Diff) -> str:
    """Return the diff as an HTML fragment, for notebooks."""
    return as_html(_counts(diff), _sections(diff))


def _counts(diff: Diff) -> str:
    found = {field: len(value) for field, value in diff._asdict().items() if field != "equal" and value}
    counts = (f"{count:,} {_WORDS.get(field, field)}" for field, count in found.items())
    return "; ".join([*counts, f"{diff.equal:,} equal"])


def _sections(diff: Diff) -> list[Section]:
    return [
        _names("added", diff.added),
        _names("removed", diff.removed),
        listed("renamed", folded_pairs(diff.renamed.items()), _FEW),
        _both("reshaped", {name: (list(a), list(b)) for name, (a, b) in diff.shape.items()}),
        _both("dtype", diff.dtype),
        folded("changed", diff.changed, lambda names: _change(diff, names), lambda name: None, _LINES),
        listed("other values", diff.values, _FEW),
        listed("no longer tied", map(" = ".join, diff.untied), _FEW),
        listed("newly tied", map(" = ".join, diff.tied), _FEW),
        listed(
            "metadata texts of the files", (f"{n}: {_short(a)} → {_short(b)}" for n, (a, b) in diff.texts.items()), _FEW
        ),
    ]


def _short(text: str | None) -> str:
    return "missing" if text is None else repr(text[:40]) + ("…" if len(text) > 40 else "")


def _names(title: str, some: dict[str, Shape | None]) -> Section:
    return folded(title, some, lambda names: "" if (s := some[names[0]]) is None else str(list(s)), some.get, _FEW)


def _both(title: str, some: Mapping[str, tuple[object, object]]) -> Section:
    texts = {name: f"{old} → {new}" for name, (old, new) in some.items()}
    return folded(title, texts, lambda names: texts[names[0]], texts.get, _FEW)


def _change(diff: Diff, names: tuple[str, ...]) -> str:
    """Return how the elements of all these tensors differ: totals, and the worst values."""
    some = [diff.changed[name] for name in names]
    changed, elements = sum(one.changed for one in some), sum(one.elements for one in some)
    worst = max(one.max_abs for one in some), max(one.relative for one in some), min(one.cosine for one in some)
    text = (
        f"{changed:,} of {elements:,} elements, by up to {worst[0]:.3g}, relative {worst[1]:.3g}, cosine {worst[2]:.6g}"
    )
    nan = sum(one.nan for one in some)
    return text + (f", {nan:,} NaN or infinite on one side" if nan else "")
