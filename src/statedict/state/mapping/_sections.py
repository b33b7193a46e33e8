"""Sections of folded lines, as text and as HTML, to print a state, a checkpoint, a report or a diff.

Names and values come from files: control characters and HTML are escaped, and long lines are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from itertools import islice
from typing import NamedTuple

from ...errors import printable
from ._fold import Group, fold

# The default width of a line, in columns.
LINE = 120
# The minimum width of a name, and of the text about it.
_NAME = 40
# The maximum number of lines of one text: a suggestion has two; a name from a file may have a million.
_LINES = 4


class Section(NamedTuple):
    """A titled list: `lines` are pairs (name, text about it), cut at `width`; `more` says how many are left out."""

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
    """Return a section in which names that differ only in their layer, and have equal `alike`, share a line."""
    groups = list(islice(fold(names, alike), limit))
    lines = [(printable(f"{group.text}{_times(group)}"), printable(about(group.names))) for group in groups]
    left_out = len(names) - sum(len(group.names) for group in groups)
    return Section(f"{title} {len(names):,}:", lines, f"… and {left_out:,} more" if left_out else "")


def listed(title: str, texts: Iterable[str], limit: int, width: int = LINE, *, keep: str = "") -> Section:
    """Return a section of the first texts; `keep="\\n"` for texts with several lines."""
    texts = [printable(text, keep) for text in texts]
    more = f"… and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return Section(f"{title}:", [(text, "") for text in texts[:limit]], more, width)


def as_text(first: str, sections: Iterable[Section]) -> str:
    """Return the first line and all sections that are not empty, as text."""
    lines = [first]
    for section in sections:
        if section.lines:
            lines.append(section.title)
            lines += [_line(what, about, section.width) for what, about in section.lines]
            lines += [f"  {section.more}"] if section.more else []
    return "\n".join(lines)


def as_html(first: str, sections: Iterable[Section]) -> str:
    """Return a first line and sections as an HTML fragment, for notebooks."""
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
    """Return the number of names of a line, as a suffix."""
    return f"  ×{len(group.names):,}" if len(group.names) > 1 else ""


def _line(what: str, about: str, width: int) -> str:
    """Return an indented line. A name that is too long is cut in the middle, so that its end and the text stay visible."""
    room = max(width - len(about) - 4, _NAME)
    if about and len(what) > room:
        what = f"{what[: room // 2]}…{what[len(what) - room // 2 + 1 :]}"
    what = _cut(what, width - 2)
    return f"  {what}  {_cut(about, max(width - len(what) - 4, _NAME))}".rstrip()


def _cut(line: str, width: int = LINE) -> str:
    """Cut the line to the width, and escape control characters: names come from files."""
    parts = [part[: width + 1] for part in line.split("\n", _LINES)[:_LINES]]
    shown = map(printable, parts)
    return "\n".join(part if len(part) <= width else f"{part[: width - 1]}…" for part in shown)
