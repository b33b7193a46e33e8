"""A LoadReport as a person wants to read it: counts, then what is wrong, folded, then what would help.

However many problems there are, it fits on a screen: names are folded over layers, and each section shows its first lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from statedict.state import LINE, Section, as_html, as_text, fold, folded, listed

from ...errors import printable
from ..names._near import Near
from ..names._parts import mates, parts_of
from ..tensors._step import Mismatch
from ._fitting_calls import alike
from ._suggest import LONGEST

if TYPE_CHECKING:
    from ._report import LoadReport

# Problems, and the rest: some 40 lines at most.
_PROBLEMS = 7
_OTHERS = 2


def report_text(report: LoadReport) -> str:
    """The report as text."""
    if report.ok and not (_said(report) or report.notes or report.other_roots):
        return "<All keys matched successfully>"
    return as_text(_counts(report), _sections(report))


def report_html(report: LoadReport) -> str:
    """The report as an HTML fragment, for notebooks."""
    return as_html(_counts(report), _sections(report))


def _counts(report: LoadReport) -> str:
    """How many of each, in one line."""
    problems = {
        "missing": len(report.missing_keys),
        "unexpected": len(report.unexpected_keys),
        "mismatched": len(report.mismatched),
        "other errors": len(_other_errors(report)),
    }
    wrong = [f"{count:,} {word}" for word, count in problems.items() if count]
    rest = [f"{count:,} {word}" for word, count in _said(report).items()]
    others = ", ".join(map(repr, report.other_roots))
    root = [f"root {report.root!r} was taken, and there is also {others}"] if others else []
    return "; ".join([f"{len(report.loaded):,} loaded", ", ".join(wrong) or "nothing wrong", *rest, *root])


def _said(report: LoadReport) -> dict[str, int]:
    """What is no problem, but worth saying, and how many of it there are."""
    lossy = len({one.name for one in report.cast if one.kind != "widening"})
    words = ("adapted", "renamed", "tied", "skipped", "excluded", "allowed")
    said = {word: len(getattr(report, word)) for word in words}
    said |= {"cast": len({one.name for one in report.cast}) - lossy, "cast with loss": lossy}
    return {word: count for word, count in said.items() if count}


def _sections(report: LoadReport) -> list[Section]:
    """What is worth showing, the problems first."""
    return [
        _missing(report),
        folded(
            "unexpected", report.unexpected_keys, lambda names: _shape(report, names[0]), report.shapes.get, _PROBLEMS
        ),
        _misfits("mismatched", report.mismatched, _PROBLEMS),
        listed("other errors", _other_errors(report), _PROBLEMS),
        _misfits("skipped, the model's own values stay", report.skipped, _OTHERS),
        _telling("adapted", [(one.name, one.how) for one in report.adapted]),
        _telling("cast", [(one.name, f"{one.found} → {one.wanted} ({one.kind})") for one in report.cast]),
        _telling("tied", [(name, f"= {other}") for name, other in report.tied.items()]),
        listed("warnings", report.notes, 3, 2 * LINE),
        listed(
            "what would help",
            [f"{printable(one.text)}:\n    {printable(one.call)}" for one in report.suggestions],
            2,
            LONGEST + 4,
            keep="\n",
        ),
    ]


def _missing(report: LoadReport) -> Section:
    """The missing names, with the unexpected ones that may have been meant."""
    shapes = report.shapes
    parts, slot_parts = parts_of(report.unexpected_keys), parts_of(report.missing_keys)
    near = Near(name for name in report.unexpected_keys if name not in parts)
    texts = {group.names[0]: group.text for group in fold(report.unexpected_keys, shapes.get)}

    def about(names: tuple[str, ...]) -> str:
        close = near.to(names[0], 3) if mates("", names[0], {}, slot_parts) else []
        meant = [other for other in close if shapes.get(other) == shapes.get(names[0])]
        hint = f"  did you mean {texts.get(meant[0], meant[0])!r}?" if meant else ""
        return f"{_shape(report, names[0])}{hint}"

    return folded("missing", report.missing_keys, about, shapes.get, _PROBLEMS)


def _misfits(title: str, some: Sequence[Mismatch], limit: int) -> Section:
    known = {one.name: one for one in some}

    def about(names: tuple[str, ...]) -> str:
        one = known[names[0]]
        found = one.found if isinstance(one.found, str) else list(one.found)
        note = one.note or alike(one.found, one.expected)
        return f"{found} in the source, {list(one.expected)} in the model" + (f": {note}" if note else "")

    return folded(title, known, about, lambda name: known[name][1:], limit)


def _telling(title: str, some: Sequence[tuple[str, str]]) -> Section:
    """Names with what is said of them."""
    known: dict[str, str] = {}
    for name, text in some:
        known[name] = f"{known[name]}, {text}" if name in known else text
    return folded(title, known, lambda names: known[names[0]], known.get, _OTHERS)


def _shape(report: LoadReport, name: str) -> str:
    return str(list(report.shapes[name])) if name in report.shapes else ""


def _other_errors(report: LoadReport) -> list[str]:
    """The errors that are not told as mismatches."""
    start, told = "size mismatch for ", {one.name for one in report.mismatched}
    return [e for e in report.errors if not (e.startswith(start) and e[len(start) :].partition(":")[0] in told)]
