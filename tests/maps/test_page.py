"""The page on maps has the data of the maps: its table, and the keys of their files."""

import re
from pathlib import Path

from statedict import maps
from statedict.maps._map_file import KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "maps.md").read_text()


def test_the_table_of_maps():
    """Each map has its row: link, both sides, parameters, inverse, versions."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| [`")]
    expected = []
    for file in map(maps.read, maps.names()):
        proven = ", ".join(f"{package} {version}" for package, version in file.proven.items())
        needs = ", ".join(f"`{name}`" for name in file.parameters)
        inverse = "no" if file.obstacle else "yes"
        link = f"[`{file.name}`]({file.source})"
        expected.append(f"| {' | '.join([link, file.left, file.right, needs, inverse, proven])} |")
    assert rows == expected


def test_the_keys_of_a_file():
    """The table of keys names every key that a file may have."""
    chapter = PAGE.partition("## Write a map")[2].partition("\n## ")[0]
    named = set(re.findall(r"`\[?(\w+)(?:\.NAME)?\]?`", "".join(re.findall(r"^\| (.+?) \|", chapter, re.MULTILINE))))
    assert named == set(KEYS)


def test_the_example_of_a_file():
    """The example is a valid map."""
    from statedict.maps._map_file import parse_map

    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_map(text, "my-map.toml").obstacle is None
