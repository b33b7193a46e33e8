"""Names and patterns of names."""

import pytest
from tests.cost import calls

from statedict.state import matcher


@pytest.mark.parametrize(
    ("patterns", "name", "fits"),
    [
        ("a", "a.b", True),
        ("a.", "a.b", True),
        ("a", "ab", False),
        ("a.b", "a", False),
        ("", "a", False),
        ("", ".a", True),
        (["b", "*.w"], "a.w", True),
        (["b", "*.w"], "b.v", True),
        (["a[01]", "c?"], "a1.w", False),
        ((), "", False),
    ],
)
def test_a_path_matches_all_below_it_and_a_pattern_the_whole_name(patterns, name, fits):
    """A pattern without wildcards is a path, with or without a dot at its end; others match whole names."""
    assert matcher(patterns)(name) is fits


def test_many_names_are_looked_up():
    """Thousands of names as patterns are not compiled, and are found in linear time."""
    names = [f"layers.{number}.weight" for number in range(5_000)]
    assert calls(lambda: all(map(matcher(names), names))) < 20 * len(names)
    assert all(map(matcher(names), [f"{name}.part" for name in names[:10]]))
