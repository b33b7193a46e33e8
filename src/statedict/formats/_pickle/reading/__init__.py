"""Read pickles as inert data: nothing that they name is imported or called. `parse` is the counterpart of `emit`.

The `_machine` runs the opcodes of `_opcodes`, `_strings`, `_containers` and `_calls`. `_calls` decides what calling a global
produces, with the constructors in `_containers`, `_plain`, `_arrays`, `_tensors` and `_compounds`. `_records` reads an
ordinary tensor in one step. `_record_columns` finds thousands of them ahead, with what is between them (`_record_gaps`), and
`_record_runs` uses them.
"""

from __future__ import annotations

from collections.abc import Callable

from statedict.errors import FormatError
from statedict.state import collector_paused

from ..._limits import LIMITS, Limits
from .._values import Parsed, RowMaker, StorageId, TypedStorage
from . import _calls, _machine, _opcodes

__all__ = ["parse"]


def parse(
    data: _machine.Data,
    *,
    storage: Callable[[StorageId], TypedStorage],
    rows: RowMaker | None = None,
    persistent: Callable[[object], object] | None = None,
    nested: Callable[[bytes], Parsed] | None = None,
    file: str | None = None,
    member: str | None = None,
    limits: Limits = LIMITS,
    start: int = 0,
    whole: bool = True,
    paid: int | None = None,
) -> Parsed:
    """Return the value of the pickle that begins at `start`, as inert data; for the arguments see the package's
    docstring.

    Raises FormatError (TruncatedError, LimitError) with `file`, `member` and the byte offset.

    >>> import pickle
    >>> parse(pickle.dumps({"steps": [1, 2]}), storage=lambda identity: None).value
    {'steps': [1, 2]}
    """
    paid = len(data) - start if paid is None else paid
    machine = _machine.Machine(data, start, limits, paid, storage, rows, persistent, nested)
    try:
        with collector_paused():
            value = machine.run(_opcodes.HANDLERS)
        if whole and machine.end != len(data):
            raise FormatError(f"{len(data) - machine.end:,} bytes follow the end of the pickle", offset=machine.end)
    except FormatError as error:
        raise error.located(file=file, member=member) from None
    return Parsed(value, _calls.judged(machine), machine.end)
