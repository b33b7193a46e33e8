"""The TOML file of a map: rules, what they convert, and how that was proven. Every error names the file and the line.

    description = "Llama …"                  what the map converts, in a sentence
    from = "Meta"                            the implementation whose names are on the left of the rules
    to = "transformers"                      the one on the right
    source = "https://…"                     the script that it replaces, or that documents the names
    complete = true                          the rules name every tensor, so other names are reported
    one_way = "…"                            why it does not have an inverse, if the rules do not show that
    rules = ["OLD -> NEW | OPERATION", …]    see `statedict.plan` for the grammar; {name} in an operation is a parameter

    [proven]                                 the versions of the implementations that the map was tested with
    transformers = "5.24.0"

    [parameters.head_dim]                    a number that rules need
    description = "…"
    config = ["head_dim", "dim / n_heads"]   where a model's config has it

    [ignored]                                names (glob patterns) that are not converted, and why
    "rope.freqs" = "…"

Only `rules` is required.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from statedict.errors import MapError
from statedict.plan import KeyMap

from ..errors import printable
from ._parameter import REFERENCE, Parameter


class RuleLine(NamedTuple):
    """A rule as it is written in a file, and its line there, counted from 1."""

    text: str
    line: int | None

    def bound(self, values: Mapping[str, int]) -> str:
        """Return the rule with numbers for its parameters; raises KeyError for a parameter that has no value."""
        names, bar, operations = self.text.partition("|")
        return names + bar + REFERENCE.sub(lambda found: str(values[found[1]]), operations)

    @property
    def parameters(self) -> set[str]:
        """The names of the parameters in its operations."""
        return set(REFERENCE.findall(self.text.partition("|")[2]))


@dataclass(frozen=True)
class MapFile:
    """The content of a map's file; the docstring of this module explains the keys.

    `name` is that of a map of the package, or the path of the file.
    """

    name: str
    rules: tuple[RuleLine, ...]
    description: str = ""
    left: str = ""
    right: str = ""
    source: str = ""
    complete: bool = False
    one_way: str = ""
    proven: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def obstacle(self) -> str | None:
        """Why the map does not have an exact inverse, or None if it has one."""
        if self.one_way:
            return self.one_way
        rules = (rule for line in self.rules for rule in KeyMap(line.bound(dict.fromkeys(self.parameters, 1))).rules)
        return next((f"'{rule}': {rule.obstacle}" for rule in rules if rule.obstacle is not None), None)

    def __str__(self) -> str:
        inverse = f"one direction only: {self.obstacle}" if self.obstacle else "both directions"
        lines = [self.description or self.name, f"from {self.left or '?'} to {self.right or '?'}; {inverse}"]
        lines += [f"source: {self.source}"] * bool(self.source)
        lines += [
            f"proven with {', '.join(f'{package} {version}' for package, version in self.proven.items())}"
        ] * bool(self.proven)
        lines += [f"needs {one.name}: {one.description}" for one in self.parameters.values()]
        lines += [f"leaves out {pattern}: {reason}" for pattern, reason in self.ignored.items()]
        return "\n".join(map(printable, [*lines, "rules:", *(f"  {rule.text}" for rule in self.rules)]))

    def values(self, given: Mapping[str, int], config: Mapping[str, Any]) -> dict[str, int]:
        """Return a number for each parameter: the given one, or that of the config; raises MapError if there is neither."""
        for name in given:
            if name not in self.parameters:
                known = f"its parameters: {', '.join(self.parameters)}" if self.parameters else "it has no parameters"
                raise MapError(self.name, None, f"it does not have the parameter {name!r} ({known})")
            if type(given[name]) is not int or given[name] < 1:
                raise MapError(self.name, None, f"{name} must be a positive integer, not {given[name]!r}")
        found = {name: given.get(name, one.within(config)) for name, one in self.parameters.items()}
        missing = [self.parameters[name] for name, value in found.items() if value is None]
        if missing:
            raise MapError(self.name, None, "; ".join(map(_needed, missing)))
        return {name: value for name, value in found.items() if value is not None}


def _needed(missing: Parameter) -> str:
    """Say what a parameter is, and how to give it."""
    keys = " or ".join(map(repr, missing.config))
    beside = f"put the model's config.json or params.json, with {keys}, beside the checkpoint, or " if keys else ""
    return (
        f"it needs {missing.name} ({missing.description}): {beside}give the number, --param {missing.name}=N on the "
        f"command line, {missing.name}=N in Python"
    )


def parse_map(text: str, name: str) -> MapFile:
    """Read the text of a map's file; raises MapError with the file and the line of what is not valid."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1  # "at end of document"
        raise MapError(name, line, f"it is not valid TOML: {error}") from None
    except RecursionError:
        raise MapError(name, None, "it is nested too deeply") from None
    reader = _MapReader(text, name)
    reader.check(data, KEYS, "")
    rules = reader.rules(data.get("rules"))
    parameters = {key: reader.parameter(key, value) for key, value in data.get("parameters", {}).items()}
    reader.check_rules(rules, parameters)
    return MapFile(
        name,
        rules,
        parameters=parameters,
        proven=reader.texts(data.get("proven", {}), "proven"),
        ignored=reader.texts(data.get("ignored", {}), "ignored"),
        complete=data.get("complete", False),
        **{field: data.get(key, "") for key, field in TEXTS.items()},
    )


class _MapReader:
    """Checks the data of one file."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    def line(self, found: int) -> int | None:
        return None if found < 0 else self.text.count("\n", 0, found) + 1

    def line_of_key(self, key: str) -> int | None:
        found = re.search(rf'^\s*\[?[\w.]*"?{re.escape(key)}"?\s*(=|\])', self.text, re.MULTILINE)
        return self.line(found.start(0) + len(found[0]) - len(found[0].lstrip())) if found else None

    def check(self, data: Mapping[str, Any], keys: Mapping[str, type], where: str) -> None:
        """Refuse unknown keys, and values of another type."""
        for key, value in data.items():
            if key not in keys:
                known = ", ".join(keys)
                raise MapError(self.name, self.line_of_key(key), f"unknown key {where}{key!r}; the keys are {known}")
            if not isinstance(value, keys[key]):
                wanted = NAMES[keys[key]]
                raise MapError(self.name, self.line_of_key(key), f"{where}{key!r} must be {wanted}, not {value!r}")

    def rules(self, given: Any) -> tuple[RuleLine, ...]:
        if not given:
            wanted = 'a TOML list rules = ["OLD -> NEW", …] above the first [table]'
            raise MapError(self.name, None, f"it has no rules: expected {wanted}")
        lines, start = [], 0
        for rule in given:
            if not isinstance(rule, str):
                raise MapError(self.name, self.line_of_key("rules"), f"a rule must be text 'OLD -> NEW', not {rule!r}")
            found = self.text.find(rule, start)
            start = max(start, found)
            lines.append(RuleLine(rule, self.line(found)))
        return tuple(lines)

    def parameter(self, name: str, given: Any) -> Parameter:
        where = f"parameters.{name}."
        if not isinstance(given, dict):
            raise MapError(self.name, self.line_of_key(name), f"write [parameters.{name}] with a description")
        self.check(given, {"description": str, "config": list}, where)
        config = given.get("config", [])
        if not all(isinstance(key, str) and key.count("/") <= 1 for key in config):
            wanted = 'a list of keys, or quotients such as "dim / n_heads"'
            raise MapError(self.name, self.line_of_key("config"), f"{where}config must be {wanted}, not {config!r}")
        return Parameter(name, given.get("description", ""), tuple(config))

    def check_rules(self, rules: tuple[RuleLine, ...], parameters: Mapping[str, Parameter]) -> None:
        """Refuse a rule that is not valid, with its line."""
        for rule in rules:
            for name in sorted(rule.parameters - parameters.keys()):
                raise MapError(
                    self.name, rule.line, f"{rule.text!r} uses {{{name}}}, but there is no table [parameters.{name}]"
                )
            try:
                KeyMap(rule.bound(dict.fromkeys(parameters, 1)))
            except ValueError as error:
                raise MapError(self.name, rule.line, str(error)) from None

    def texts(self, given: Mapping[str, Any], table: str) -> dict[str, str]:
        """Return a table of texts."""
        self.check(given, dict.fromkeys(given, str), f"{table}.")
        return dict(given)


TEXTS = {"description": "description", "from": "left", "to": "right", "source": "source", "one_way": "one_way"}
KEYS: dict[str, type] = {
    **dict.fromkeys(TEXTS, str),
    "complete": bool,
    "rules": list,
    "proven": dict,
    "parameters": dict,
    "ignored": dict,
}
NAMES: dict[type, str] = {str: "text", bool: "true or false", list: "a list", dict: "a table"}
