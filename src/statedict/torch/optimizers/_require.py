"""Check the Outcome of a load before it becomes final."""

from __future__ import annotations

from collections.abc import Callable

from statedict.errors import LoadError
from statedict.tree import Outcome

Judge = Callable[[Outcome], None]


def require_success(kind: str) -> Judge:
    """Make a judge that raises LoadError for any error, with PyTorch's text for a load into a `kind`."""

    def judge(outcome: Outcome) -> None:
        refusal = outcome.refusal(kind)
        if refusal is not None:
            raise LoadError(refusal, report=outcome)

    return judge
