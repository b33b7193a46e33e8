"""Parse file sizes as people write them: `5GB`."""

from __future__ import annotations

import re

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def byte_count(size: int | str) -> int:
    """Return a size in bytes, given as a number or as text with a unit (powers of 1000; of 1024 with an `i`).

    Raises ValueError for anything else.

    >>> byte_count("5GB"), byte_count("2 MiB"), byte_count(1000)
    (5000000000, 2097152, 1000)
    """
    found = SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is not None:
        unit = UNITS[found[2].upper()]
        count = int(float(found[1]) * (1024 ** list(UNITS.values()).index(unit) if found[3] else unit))
    elif isinstance(size, int) and not isinstance(size, bool):
        count = size
    else:
        raise ValueError(f'a size must be a number of bytes or a string such as "5GB", not {size!r}')
    if count <= 0:
        raise ValueError(f"a size must be at least 1 byte, not {count}")
    return count
