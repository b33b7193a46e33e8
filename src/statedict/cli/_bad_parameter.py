"""Report a ValueError of the library as a mistake in the options that caused it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer

from ..errors import StateDictError, printable


@contextmanager
def as_bad_parameter(options: Mapping[str, object]) -> Iterator[None]:
    """Turn a ValueError of the `with` block into a typer.BadParameter for the options that were given.

    The block must only parse these options, or apply them to names. If none was given, the error is not the user's mistake
    and is raised unchanged. StateDictError is never changed.
    """
    try:
        yield
    except StateDictError:
        raise
    except ValueError as error:
        given = [name for name, value in options.items() if value]
        if not given:
            raise
        raise typer.BadParameter(printable(str(error)), param_hint=", ".join(given)) from error
