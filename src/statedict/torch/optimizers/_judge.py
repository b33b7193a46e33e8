"""Whether an Outcome can stand: what is asked before anything is final.

A judge is called with everything that is known; it raises, or returns to let happen what fits.
"""

from __future__ import annotations

from collections.abc import Callable

from statedict.errors import LoadError
from statedict.tree import Outcome

Judge = Callable[[Outcome], None]


def demand(kind: str) -> Judge:
    """A judge that raises LoadError, with PyTorch's text for a load into a `kind`, for whatever is wrong."""

    def judge(outcome: Outcome) -> None:
        refusal = outcome.refusal(kind)
        if refusal is not None:
            raise LoadError(refusal, report=outcome)

    return judge
