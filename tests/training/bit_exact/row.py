"""Rows of the table in docs/how-to/bit-for-bit.md: one training each, or several that have the same row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A training of the table.

    Attributes:
        title: the first cell of its row.
        train: the training; it is given a Run, and has saved and resumed by its manager.
        exact: whether a resumed training has the same bits; if not, the test is that it does not.
        ranks: how many processes record.
    """

    title: str
    train: Callable[[Any], None]
    exact: bool = True
    ranks: int = 1


class Rows(dict[str, Row]):
    """Rows by a short name, which is also the name of a directory."""

    def row(self, title: str, *, exact: bool = True, ranks: int = 1, **variants: Any) -> Callable[..., Any]:
        """Add the decorated training; with `variants` (a suffix of the name → what the training is given), several."""

        def add(train: Callable[..., None]) -> Callable[..., None]:
            if not variants:
                self[train.__name__] = Row(title, train, exact, ranks)
            for suffix, given in variants.items():
                self[f"{train.__name__}-{suffix}"] = Row(
                    title, lambda run, given=given: train(run, given), exact, ranks
                )
            return train

        return add
