"""Values of a file as short text, whatever they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from reprlib import Repr
from typing import Any

from ._statedict import raw_values


def few(texts: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """Return the first of some texts, and the number of the others.

    >>> few(["a", "b", "c"], 2), few(["a"])
    ('a, b and 1 more', 'a')
    """
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


class Short(Repr):
    """A Repr that shortens mappings and sequences of every class: their own `repr` recurses as deep as they are nested, and
    writes shared parts again and again.

    >>> from collections import OrderedDict
    >>> Short().repr(OrderedDict(a=OrderedDict(b=1)))
    "OrderedDict({'a': OrderedDict({'b': 1})})"
    """

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, Mapping):
            return f"{type(x).__name__}({self.repr_dict(dict(raw_values(x)), level)})"
        if isinstance(x, (list, tuple, set, frozenset)):
            return f"{type(x).__name__}({self.repr_list(list(islice(x, self.maxlist + 1)), level)})"
        return super().repr_instance(x, level)

    def repr_int(self, x: int, level: int) -> str:
        # Python writes out integers of up to 4,300 digits.
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"<an integer of {x.bit_length():,} bits>"
