"""Parse the Python literals of NumPy's headers: strings, integers, booleans, and tuples, lists and dicts of them.

`ast.literal_eval` would work, but its parser uses the C stack: 9,000 minus signs in a row overflow a thread with a
small stack and crash the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

STRING = r"""'[^'"\\\n]*'|"[^'"\\\n]*\""""
# Python 2 writes an L after long integers.
TOKEN = re.compile(rf"\s*({STRING}|[0-9]{{1,20}}L?|True|False|[][(){{}},:])\s*", re.ASCII)
# A header is a dict of lists of tuples of shapes.
DEEPEST = 8


def read_literal(text: str) -> Any:
    """Parse `text` as a literal; raise ValueError if it is anything else, or nested deeper than any header.

    >>> read_literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }")
    {'descr': '<f4', 'fortran_order': False, 'shape': (4,)}
    """
    tokens = _tokens(text)[::-1]
    value = _value(tokens, 0)
    if tokens:
        raise ValueError(f"{tokens[-1]!r} follows the end of the literal")
    return value


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at : at + 10]!r} is not a valid token")
        tokens.append(found[1])
        at = found.end()
    return tokens


def _value(tokens: list[str], depth: int) -> Any:
    """Pop the value at the end of `tokens`, which are in reverse order."""
    token = tokens.pop() if tokens else ""
    if token in OPENING:
        if depth == DEEPEST:
            raise ValueError("the literal is nested too deeply")
        close, make = OPENING[token]
        return make(*_items(tokens, close, depth + 1))
    if token[:1] in ("'", '"') and token:
        return token[1:-1]
    if token[:1].isdecimal():
        return int(token.removesuffix("L"))
    if token in ("True", "False"):
        return token == "True"
    raise ValueError(f"{token!r} is not a valid value")


def _items(tokens: list[str], close: str, depth: int) -> tuple[list[Any], bool]:
    """Return the values up to `close` (for a dict, pairs as tuples), and whether the last one was followed by a comma."""
    items: list[Any] = []
    comma = True
    while tokens and tokens[-1] != close:
        if not comma:
            raise ValueError(f"a comma is missing before {tokens[-1]!r}")
        item = _value(tokens, depth)
        if close == "}":
            if not tokens or tokens.pop() != ":":
                raise ValueError("a key has no value")
            item = item, _value(tokens, depth)
        items.append(item)
        comma = bool(tokens) and tokens[-1] == ","
        if comma:
            tokens.pop()
    if not tokens:
        raise ValueError(f"the literal ends before its closing {close!r}")
    tokens.pop()
    return items, comma


def _tuple(items: list[Any], comma: bool) -> Any:
    # Parentheses around one value without a comma do not make a tuple.
    return items[0] if len(items) == 1 and not comma else tuple(items)


def _list(items: list[Any], comma: bool) -> Any:
    return items


def _dict(items: list[Any], comma: bool) -> Any:
    if not all(type(key) is str for key, _ in items):
        raise ValueError("a key is not a string")
    found = dict(items)
    if len(found) != len(items):
        raise ValueError("a key occurs twice")
    return found


OPENING: dict[str, tuple[str, Callable[[list[Any], bool], Any]]] = {
    "(": (")", _tuple),
    "[": ("]", _list),
    "{": ("}", _dict),
}
