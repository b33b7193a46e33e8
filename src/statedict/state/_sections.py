"""Sections of folded lines, as text and as HTML: what a state, a checkpoint, a report and a diff are printed with.

Names and values come from files: what would command a terminal, or a browser, is shown and not done, and no line is longer
than a person reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import NamedTuple

from ..errors import printable
from ._fold import Group, fold

# Columns of a line that a person reads at once.
LINE = 120
# What is left of a name at least, whatever is said about it, and of what is said.
_NAME = 40
# A suggestion has two lines; a name from a file may have a million.
_LINES = 4


class Section(NamedTuple):
    """`lines` are (what, about it), cut at `width`; `more` says what is left out."""

    title: str
    lines: list[tuple[str, str]]
    more: str = ""
    width: int = LINE


def folded(
    title: str,
    names: Collection[str],
    about: Callable[[tuple[str, ...]], str],
    alike: Callable[[str], Hashable],
    limit: int,
) -> Section:
    """Names that are alike, and differ in their layer only, on one line with what is to be said about them."""
    groups = fold(names, alike)
    lines = [(printable(f"{group.text}{_times(group)}"), printable(about(group.names))) for group in groups[:limit]]
    left_out = sum(len(group.names) for group in groups[limit:])
    return Section(f"{title} {len(names):,}:", lines, f"… and {left_out:,} more" if left_out else "")


def listed(title: str, texts: Iterable[str], limit: int, width: int = LINE, *, keep: str = "") -> Section:
    """Texts, the first of them shown; `keep="\\n"` where they have lines of their own."""
    texts = [printable(text, keep) for text in texts]
    more = f"… and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return Section(f"{title}:", [(text, "") for text in texts[:limit]], more, width)


def as_text(first: str, sections: Iterable[Section]) -> str:
    """The first line, and every section that has lines, none longer than a person reads."""
    lines = [first]
    for section in sections:
        if section.lines:
            lines.append(section.title)
            lines += [_line(what, about, section.width) for what, about in section.lines]
            lines += [f"  {section.more}"] if section.more else []
    return "\n".join(lines)


def as_html(first: str, sections: Iterable[Section]) -> str:
    """The same as an HTML fragment, for notebooks."""
    from html import escape

    parts = [f"<p><b>{escape(_cut(first))}</b></p>"]
    for section in sections:
        if section.lines:
            lines = [(escape(_cut(what, section.width)), escape(_cut(about))) for what, about in section.lines]
            rows = "".join(f"<tr><td><code>{what}</code></td><td>{about}</td></tr>" for what, about in lines)
            more = f"<p>{escape(section.more)}</p>" if section.more else ""
            parts.append(
                f"<details open><summary>{escape(_cut(section.title))}</summary><table>{rows}</table>{more}</details>"
            )
    return f'<div class="statedict">{"".join(parts)}</div>'


def _times(group: Group) -> str:
    """For how many names a line stands."""
    return f"  ×{len(group.names):,}" if len(group.names) > 1 else ""


def _line(what: str, about: str, width: int) -> str:
    """An indented line. Of a name that is too long the middle is cut, so that its end and what is said about it are seen."""
    room = max(width - len(about) - 4, _NAME)
    if about and len(what) > room:
        what = f"{what[: room // 2]}…{what[len(what) - room // 2 + 1 :]}"
    what = _cut(what, width - 2)
    return f"  {what}  {_cut(about, max(width - len(what) - 4, _NAME))}".rstrip()


def _cut(line: str, width: int = LINE) -> str:
    """The line cut to the width. Names come from files: what would command the terminal is shown, not done."""
    parts = [part[: width + 1] for part in line.split("\n", _LINES)[:_LINES]]
    shown = map(printable, parts)
    return "\n".join(part if len(part) <= width else f"{part[: width - 1]}…" for part in shown)
