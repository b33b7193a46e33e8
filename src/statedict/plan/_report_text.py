"""A LoadReport as a person wants to read it: counts, then what is wrong, folded, then what would help.

However many problems there are, it fits on a screen: names are folded over layers, and each section shows its first lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from statedict.state import Group, fold

from ._facts import Shape
from ._near import Near
from ._step import Mismatch

if TYPE_CHECKING:
    from ._report import LoadReport

# Three sections of problems, five of the rest, and the frame: some 40 lines at most, of a terminal's width.
_PROBLEM_LINES = 7
_OTHER_LINES = 2
_WIDTH = 120


class Section(NamedTuple):
    """`lines` are (what, about it); `more` says what is left out."""

    title: str
    lines: list[tuple[str, str]]
    more: str = ""


def report_text(report: LoadReport) -> str:
    """The report as text."""
    if report.ok and not _said(report) and not report.notes:
        return "<All keys matched successfully>"
    lines = [counts(report)]
    for section in sections(report):
        lines.append(section.title)
        lines += [_cut(f"  {what}  {about}".rstrip()) for what, about in section.lines]
        lines += [f"  {section.more}"] if section.more else []
    return "\n".join(lines)


def report_html(report: LoadReport) -> str:
    """The report as an HTML fragment, for notebooks."""
    parts = [f"<p><b>{escape(counts(report))}</b></p>"]
    for section in sections(report):
        rows = "".join(
            f"<tr><td><code>{escape(what)}</code></td><td>{escape(about)}</td></tr>" for what, about in section.lines
        )
        more = f"<p>{escape(section.more)}</p>" if section.more else ""
        parts.append(f"<details open><summary>{escape(section.title)}</summary><table>{rows}</table>{more}</details>")
    return f'<div class="statedict-report">{"".join(parts)}</div>'


def counts(report: LoadReport) -> str:
    """How many of each, in one line."""
    problems: dict[str, Sized] = {
        "missing": report.missing_keys,
        "unexpected": report.unexpected_keys,
        "mismatched": report.mismatched,
        "other errors": other_errors(report),
    }
    wrong = [f"{len(names):,} {word}" for word, names in problems.items() if names]
    rest = [f"{count:,} {word}" for word, count in _said(report).items()]
    return "; ".join([f"{len(report.loaded):,} loaded", ", ".join(wrong) or "nothing wrong", *rest])


def sections(report: LoadReport) -> list[Section]:
    """What is worth showing, the problems first."""
    shapes = report.shapes
    near = _near_misses(report)
    found = [
        _folded("missing", report.missing_keys, lambda g: f"{_shown(shapes, g)}{near.get(g.names[0], '')}", shapes.get),
        _folded("unexpected", report.unexpected_keys, lambda g: _shown(shapes, g), shapes.get),
        _misfits("mismatched", report.mismatched, _PROBLEM_LINES),
        _listed("other errors", other_errors(report), _PROBLEM_LINES),
        _misfits("skipped: the model's own values stay", report.skipped, _OTHER_LINES),
        _by_text("adapted", [(one.name, one.how) for one in report.adapted]),
        _by_text("cast", [(one.name, f"{one.found} → {one.wanted} ({one.kind})") for one in report.cast]),
        _by_text("tied", [(name, f"= {other}") for name, other in report.tied.items()]),
        _listed("warnings", report.notes, 3),
        _listed("what would help", [f"{one.text}:\n    {one.call}" for one in report.suggestions], 2),
    ]
    return [section for section in found if section.lines]


def other_errors(report: LoadReport) -> list[str]:
    """The errors that are not told as mismatches."""
    told = tuple(f"size mismatch for {one.name}:" for one in report.mismatched)
    return [error for error in report.errors if not error.startswith(told)] if told else report.errors


def _said(report: LoadReport) -> dict[str, int]:
    """What is no problem, but worth saying, and how many of it there are."""
    lossy = len({one.name for one in report.cast if one.kind != "widening"})
    words = ("adapted", "renamed", "tied", "skipped", "excluded", "allowed")
    said = {word: len(getattr(report, word)) for word in words}
    said |= {"cast": len({one.name for one in report.cast}) - lossy, "cast with loss": lossy}
    return {word: count for word, count in said.items() if count}


def _near_misses(report: LoadReport) -> dict[str, str]:
    """For the missing names that will be shown: the unexpected ones that may have been meant."""
    if not report.missing_keys or not report.unexpected_keys:
        return {}
    shapes, near = report.shapes, Near(report.unexpected_keys)
    folded = {name: group.text for group in fold(report.unexpected_keys, shapes.get) for name in group.names[:1]}
    found = {}
    for group in fold(report.missing_keys, shapes.get)[:_PROBLEM_LINES]:
        name = group.names[0]
        fitting = [other for other in near.to(name, 3) if shapes.get(other) == shapes.get(name)]
        if fitting:
            found[name] = f"  did you mean {folded.get(fitting[0], fitting[0])!r}?"
    return found


def _folded(
    title: str, names: Sequence[str], about: Callable[[Group], str], key: Callable[[str], Shape | None]
) -> Section:
    groups = fold(names, key)
    lines = [(f"{group.text}{_times(group)}", about(group)) for group in groups[:_PROBLEM_LINES]]
    return Section(f"{title} {len(names):,}:", lines, _more(groups[_PROBLEM_LINES:]))


def _misfits(title: str, some: Sequence[Mismatch], limit: int) -> Section:
    known = {one.name: one for one in some}
    groups = fold(known, lambda name: known[name][1:])
    lines = [(f"{group.text}{_times(group)}", _told(known[group.names[0]])) for group in groups[:limit]]
    return Section(f"{title} {len(some):,}:", lines, _more(groups[limit:]))


def _by_text(title: str, some: Sequence[tuple[str, str]]) -> Section:
    """Names folded with what is said of them; the same thing said of several names is said once."""
    known: dict[str, str] = {}
    for name, text in some:
        known[name] = f"{known[name]}, {text}" if name in known else text
    groups = fold(known, known.get)
    lines = [(f"{group.text}{_times(group)}", known[group.names[0]]) for group in groups[:_OTHER_LINES]]
    return Section(f"{title} {len(known):,}:", lines, _more(groups[_OTHER_LINES:]))


def _listed(title: str, texts: Sequence[str], limit: int) -> Section:
    more = f"… and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return Section(f"{title}:", [(text, "") for text in texts[:limit]], more)


def _told(one: Mismatch) -> str:
    found = one.found if isinstance(one.found, str) else list(one.found)
    return f"{found} in the source, {list(one.expected)} in the model" + (f": {one.note}" if one.note else "")


def _shown(shapes: dict[str, Shape], group: Group) -> str:
    shape = shapes.get(group.names[0])
    return "" if shape is None else str(list(shape))


def _times(group: Group) -> str:
    return f"  ×{len(group.names):,}" if len(group.names) > 1 else ""


def _more(groups: Iterable[Group]) -> str:
    names = sum(len(group.names) for group in groups)
    return f"… and {names:,} more" if names else ""


def _cut(line: str) -> str:
    return "\n".join(part if len(part) <= _WIDTH else f"{part[: _WIDTH - 1]}…" for part in line.split("\n"))
