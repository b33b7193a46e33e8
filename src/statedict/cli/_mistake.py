"""Where what the library refuses as a wrong value (ValueError) can only be an option's: it is told as that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..errors import StateDictError


@contextmanager
def told_as(*options: str) -> Iterator[None]:
    """Turn a ValueError of the `with` block into a mistake in the options; errors of ours keep their own words."""
    try:
        yield
    except StateDictError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=", ".join(options) or None) from error
