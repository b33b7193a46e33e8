"""Plain pickles, read: `pickle.dump` of a state, NumPy arrays or tensors, as older tools save their checkpoints."""

from __future__ import annotations

from statedict.files import File

from ...errors import FormatError
from .._limits import LIMITS, Limits
from .._table import head_of
from ..checkpoint._checkpoint import Checkpoint
from ._legacy import MAGIC, UNCHECKED, nested_reader, read_torch_legacy
from ._stacked_pickles import parse_at


def read_pickles(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """The Checkpoint in a file that begins with a pickle: torch.save's of old, or a plain one."""
    try:
        first = parse_at(file, 0, "the pickle", limits, nested=nested_reader(limits))
    except FormatError:
        if head_of(file)[:1] == b"\x80":
            raise
        from .._mistaken import unknown

        # Any byte may be an opcode of the oldest pickles: if it is none after all, the file is something else.
        raise unknown(file, head_of(file)) from None
    if first.parsed.value == MAGIC:
        return read_torch_legacy(file, limits)
    if first.end != file.size:
        raise FormatError(
            f"{file.size - first.end:,} bytes follow its first pickle, which is not torch.save's magic number",
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
