"""Text in NumPy's arrays: four bytes a letter, of which most numbers are not letters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...errors import FormatError

if TYPE_CHECKING:
    import numpy as np


def check_text(array: np.ndarray[Any, Any], *, file: str | None = None, member: str | None = None) -> None:
    """Raise FormatError where a text array (or a field of a structured one) holds numbers above Unicode's last, U+10FFFF:
    Python makes damaged strings of them."""
    import numpy as np

    kind = array.dtype
    for name in kind.names or ():
        check_text(array[name], file=file, member=member)
    if kind.kind != "U" or not kind.itemsize or not array.size:
        return
    letters = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(kind.byteorder))
    if letters.max() > sys.maxunicode:
        raise FormatError(
            f"its text holds {letters.max():#x}, which is not a character: U+10FFFF is the last",
            file=file,
            member=member,
        )
