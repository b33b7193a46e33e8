"""Names that a regular expression matches, a few of each kind: the shortest, and one for each alternative."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice, product
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_MOST = 4


def samples(pattern: str) -> list[str]:
    """Return up to four strings that a regular expression may match; assertions in it are not evaluated.

    >>> samples(r"^blocks\\.(\\d+)\\.(attn|mlp)")
    ['blocks.0.attn', 'blocks.0.mlp']
    >>> samples("attention.query")
    ['attention.query']
    """
    found = dict.fromkeys(_sequence(_parser.parse(pattern)))
    return list(islice(found, _MOST))


def _sequence(parsed: Iterable[Any]) -> list[str]:
    choices = [_CHOICES.get(kind, _nothing)(value) for kind, value in parsed]
    return ["".join(parts) for parts in islice(product(*choices), _MOST)]


def _nothing(value: Any) -> list[str]:
    return [""]


def _one_of(value: Sequence[Any]) -> list[str]:
    """Return a character of a class such as `[a-z_]`, `[^.]` or `\\d`."""
    inside = "".join(_class(item) for item in value)
    fits = re.compile(f"[{inside}]")
    literals = [chr(char) for kind, char in value if kind is _constants.LITERAL]
    return [next((char for char in ("0", "n", "x", "_", ".", *literals) if fits.fullmatch(char)), "")]


def _class(item: tuple[Any, Any]) -> str:
    kind, value = item
    if kind is _constants.NEGATE:
        return "^"
    if kind is _constants.RANGE:
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    if kind is _constants.CATEGORY:
        return str(_CATEGORIES.get(value, ""))
    return re.escape(chr(value))


def _repeated(value: tuple[int, Any, Any]) -> list[str]:
    least, most, parsed = value
    if [kind for kind, _ in parsed] == [_constants.ANY]:  # `.+` stands for any text
        return ["x"]
    return [text * max(least, min(1, most)) for text in _sequence(parsed)]


_CATEGORIES = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_NOT_WORD: r"\W",
    _constants.CATEGORY_NOT_SPACE: r"\S",
}
# Assertions and anchors match no characters. An unescaped dot usually means a dot.
_CHOICES = {
    _constants.LITERAL: lambda value: [chr(value)],
    _constants.NOT_LITERAL: lambda value: ["x" if chr(value) != "x" else "n"],
    _constants.ANY: lambda value: ["."],
    _constants.IN: _one_of,
    _constants.BRANCH: lambda value: [text for branch in value[1] for text in _sequence(branch)],
    _constants.SUBPATTERN: lambda value: _sequence(value[3]),
    _constants.MAX_REPEAT: _repeated,
    _constants.MIN_REPEAT: _repeated,
}
