"""Check text in NumPy arrays: four bytes per character, of which most values are not characters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...errors import FormatError

if TYPE_CHECKING:
    import numpy as np


def check_text(array: np.ndarray[Any, Any], *, file: str | None = None, member: str | None = None) -> None:
    """Raise FormatError if a text array (or a field of a structured one) contains code points above U+10FFFF: Python
    would create damaged strings from them.
    """
    import numpy as np

    kind = array.dtype
    for name in kind.names or ():
        check_text(array[name], file=file, member=member)
    if kind.kind != "U" or not kind.itemsize or not array.size:
        return
    letters = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(kind.byteorder))
    if letters.max() > sys.maxunicode:
        raise FormatError(
            f"its text contains {letters.max():#x}, which is not a Unicode character: the last one is U+10FFFF",
            file=file,
            member=member,
        )
