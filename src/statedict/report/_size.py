"""Format counts and byte sizes."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(nbytes: int) -> str:
    """Return bytes in decimal units with three digits.

    >>> size(999), size(44_721_934), size(2 * 10**12)
    ('999 B', '44.7 MB', '2.00 TB')
    """
    power = max(p for p in range(len(UNITS)) if p == 0 or nbytes >= 999.5 * 1000 ** (p - 1))
    value = nbytes / 1000**power
    digits = 0 if not power or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {UNITS[power]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "tensor"), count(32_000, "tensor")
    ('1 tensor', '32,000 tensors')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
