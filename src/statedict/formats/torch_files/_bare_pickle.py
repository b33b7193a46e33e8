"""Read plain pickles: states, NumPy arrays or tensors saved with `pickle.dump`, as older tools do."""

from __future__ import annotations

from statedict.files import File

from ...errors import FormatError
from .._format import head_of
from .._limits import LIMITS, Limits
from ..checkpoint._checkpoint import Checkpoint
from ._legacy import MAGIC, UNCHECKED, is_integer, nested_reader, read_torch_legacy
from ._stacked_pickles import parse_at


def read_pickles(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a file that begins with a pickle: an old file of torch.save, or a plain pickle."""
    try:
        first = parse_at(file, 0, "the pickle", limits, nested=nested_reader(limits))
    except FormatError:
        if head_of(file)[:1] == b"\x80":
            raise
        from .._foreign_formats import unknown

        # The oldest protocols can begin with almost any byte: if the first one is not an opcode, the file is something
        # else.
        raise unknown(file, head_of(file)) from None
    if is_integer(first.parsed.value, MAGIC):
        return read_torch_legacy(file, limits)
    if first.end != file.size:
        raise FormatError(
            f"{file.size - first.end:,} bytes follow the first pickle, which is not the magic number of torch.save",
            file=file.name,
            offset=first.end,
        )
    return Checkpoint(
        file.name,
        "pickle",
        first.parsed.value,
        size=file.size,
        producer="Python's pickle",
        globals=first.parsed.globals,
        notes=[UNCHECKED],
        close=file.close,
    )
