"""Files of maps: what they may contain, and errors with the file and the line."""

import pytest

from statedict.errors import MapError
from statedict.maps import read
from statedict.maps._map_file import parse_map

GOOD = """\
description = "words"
rules = [
    # a comment
    "a.{i} -> b.{i} | interleave 0 {size}",
    "c -> d",
]

[parameters.size]
description = "of something"
config = ["size", "whole / parts"]

[ignored]
"x.*" = "not needed"
"""

BAD = {
    "rules = [": ("test.toml, line 1: ", "is not valid TOML"),
    'rules = ["a -> b"]\nrule = 1': ("test.toml, line 2: ", "unknown key 'rule'; the keys are description, from, to"),
    'description = "x"': ("test.toml: ", 'expected a TOML list rules = ["OLD -> NEW", …]'),
    "rules = []": ("test.toml: ", "it has no rules"),
    '[ignored]\n"x" = "y"\nrules = ["a -> b"]': ("test.toml: ", "above the first [table]"),
    "x = " + "[" * 5000 + "]" * 5000: ("test.toml: ", "it is nested too deeply"),
    "rules = 'a -> b'": ("test.toml, line 1: ", "'rules' must be a list, not 'a -> b'"),
    'rules = ["a -> b"]\ncomplete = "yes"': ("test.toml, line 2: ", "'complete' must be true or false"),
    'rules = [\n"a -> b",\n1]': ("test.toml, line 1: ", "a rule must be text 'OLD -> NEW', not 1"),
    GOOD.replace('"c -> d"', '"c d"'): ("test.toml, line 5: ", "'c d' is not a rule: expected 'OLD -> NEW'"),
    GOOD.replace("interleave 0", "interleaf 0"): ("test.toml, line 4: ", "is not a tensor operation; use one of"),
    GOOD.replace("{size}", "{head}"): ("test.toml, line 4: ", "uses {head}, but there is no table [parameters.head]"),
    GOOD.replace("-> b.{i}", "-> b.{j}"): ("test.toml, line 4: ", "{j} is on the right only"),
    GOOD.replace('["size", "whole / parts"]', '["a / b / c"]'): (
        "test.toml, line 10: ",
        "a list of keys, or quotients",
    ),
    GOOD.replace("config =", "from ="): ("test.toml, line 10: ", "unknown key parameters.size.'from'"),
    GOOD.replace("[parameters.size]", "[parameters]\nsize = 4\n[other]"): (
        "test.toml, line 10: ",
        "unknown key 'other'",
    ),
    GOOD.replace('"not needed"', "1"): ("test.toml, line 13: ", "ignored.'x.*' must be text, not 1"),
    'rules = ["a -> b"]\n[parameters]\nsize = 4': ("test.toml, line 3: ", "write [parameters.size] with a description"),
}


@pytest.mark.parametrize("text", BAD)
def test_errors_name_the_file_and_the_line(text):
    """An invalid map is refused with the file, the line, what was found, and what is expected."""
    where, said = BAD[text]
    with pytest.raises(MapError) as error:
        parse_map(text, "test.toml")
    assert str(error.value).startswith(where)
    assert said in str(error.value)


def test_a_file_is_read():
    """Each rule has its line; parameters, ignored names and texts are as written."""
    file = parse_map(GOOD, "test.toml")
    assert [rule.line for rule in file.rules] == [4, 5]
    assert (file.name, file.description, file.complete, file.left) == ("test.toml", "words", False, "")
    assert file.parameters["size"].config == ("size", "whole / parts")
    assert file.ignored == {"x.*": "not needed"}
    assert "leaves out x.*: not needed" in str(file)


def test_equal_rules_have_their_own_lines():
    """A rule that is repeated is found at its own line."""
    file = parse_map('rules = [\n"a -> b",\n"c -> d",\n"a -> b"]', "test.toml")
    assert [rule.line for rule in file.rules] == [2, 3, 4]


def test_why_there_is_no_inverse():
    """The first rule without an exact inverse is named; a map can also say it in words."""
    assert parse_map(GOOD, "x").obstacle is None
    assert "'{i}' is not on" not in str(parse_map('rules = ["a.{i} -> b"]', "x").obstacle)
    assert "{i} is not on its right side" in parse_map('rules = ["c -> d", "a.{i} -> b"]', "x").obstacle
    assert parse_map('rules = ["c -> d"]\none_way = "it forgets"', "x").obstacle == "it forgets"


@pytest.mark.parametrize(
    ("given", "config", "expected"),
    [
        ({"size": 4}, {}, 4),
        ({}, {"size": 8}, 8),
        ({"size": 4}, {"size": 8}, 4),
        ({}, {"whole": 12, "parts": 3}, 4),
        ({}, {"size": None, "whole": 12, "parts": 3}, 4),
    ],
)
def test_parameters_are_given_or_in_the_config(given, config, expected):
    """A given number takes precedence; a quotient is computed where the config has no such key."""
    assert parse_map(GOOD, "x").values(given, config) == {"size": expected}


@pytest.mark.parametrize(
    "config", [{}, {"size": "8"}, {"size": True}, {"whole": 13, "parts": 3}, {"whole": 12, "parts": 0}]
)
def test_a_missing_parameter_says_how_to_give_it(config):
    """The error says what the number is, where it is looked for, and how to give it."""
    with pytest.raises(MapError) as error:
        parse_map(GOOD, "names.toml").values({}, config)
    for said in (
        "names.toml: it needs size (of something)",
        "'size' or 'whole / parts'",
        "--param size=N",
        "size=N in",
    ):
        assert said in str(error.value)


def test_an_unknown_parameter():
    """A parameter that the map does not have is refused, with those that it has."""
    with pytest.raises(MapError, match=r"does not have the parameter 'n' \(its parameters: head_dim\)"):
        read("llama-hf").values({"n": 3}, {})
    with pytest.raises(MapError, match=r"\(it has no parameters\)"):
        read("bert-hf").values({"n": 3}, {})
