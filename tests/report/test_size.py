"""Sizes: three digits and a unit."""

from itertools import pairwise

from statedict.report import count, size


def test_three_digits_at_every_border():
    """A size never shows four digits, and changes its unit where it would."""
    shown = [size(n) for n in (0, 1, 999, 1000, 9_994, 9_995, 99_949, 99_950, 999_499, 999_500, 10**15, 12 * 10**18)]
    assert shown[:5] == ["0 B", "1 B", "999 B", "1.00 kB", "9.99 kB"]
    assert shown[5:10] == ["10.0 kB", "99.9 kB", "100 kB", "999 kB", "1.00 MB"]
    assert shown[10:] == ["1.00 PB", "12000 PB"]


def test_sizes_grow():
    """More bytes never read as fewer."""
    scale = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    read = [float(text.split()[0]) * scale[text.split()[1]] for text in (size(n) for n in range(0, 10**7, 333))]
    assert all(before <= after for before, after in pairwise(read))


def test_counts():
    """One is singular, and thousands are grouped."""
    assert [count(n, "root") for n in (0, 1, 2, 1234)] == ["0 roots", "1 root", "2 roots", "1,234 roots"]
