"""A ValueError of the library while options are parsed or put to use: told as a mistake in those that were given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer

from ..errors import StateDictError, printable


@contextmanager
def told_as(options: Mapping[str, object]) -> Iterator[None]:
    """Turn a ValueError of the `with` block into a mistake in the options that were given, by name.

    The block does nothing but parse these options, or apply them to names. Where none was given, it is not the user's
    mistake; errors of ours keep their own words.
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
