"""Check the conversions that transformers (5 or later) itself makes when it loads a file: can each be undone?

`conversion_rules` takes transformers' own table from the user's environment, and tries each rule (`WeightRenaming`,
`WeightConverter`), and the reverse that transformers makes of it for saving, on names that the rule's pattern matches:

- *invertible*: every name came back;
- *needs an anchor*: only names that have the pattern, or its replacement, a second time did not come back;
- *lossy*: a usual name did not come back, or the tensors did not, so a file changes when it is loaded and saved;
- *not tried*: the rule needs a real model, or none of the names was one that it renames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from statedict.errors import MapError, MissingDependencyError

from ._operations import undone
from ._samples import samples

INVERTIBLE, ANCHOR, LOSSY, UNTRIED = "invertible", "needs an anchor", "lossy", "not tried"


class ConversionRule(NamedTuple):
    """One rule of transformers' table, and whether it can be undone.

    Attributes:
        rule: the patterns of the rule, and the operations on tensors.
        verdict: `"invertible"`, `"needs an anchor"`, `"lossy"` or `"not tried"`.
        reason: a name that does not come back, and what happens to it; or what happens to the tensors.
        name: that name, or the empty string.
    """

    rule: str
    verdict: str
    reason: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.rule}" + (f"\n    {self.reason}" if self.reason else "")


def conversion_rules(given: str | Sequence[Any]) -> list[ConversionRule]:
    """Check the rules of a model type or class (`"mixtral"`, `"ViTModel"`), or a list of transformers' rules.

    Raises MissingDependencyError without transformers 5 or later, MapError for a model without rules.
    """
    transforms = _table(given) if isinstance(given, str) else given
    return [_checked(deepcopy(transform)) for transform in transforms]


def of_transformers(module: str) -> Any:
    """Import a module of transformers; raises MissingDependencyError without version 5 or later."""
    try:
        return import_module(module)
    except ImportError as error:
        needed_for = "reading the conversions of transformers (5 or later)"
        raise MissingDependencyError("transformers>=5", needed_for=needed_for) from error


def _table(model: str) -> Sequence[Any]:
    table = of_transformers("transformers.conversion_mapping")
    found: Sequence[Any] | None = table.get_checkpoint_conversion_mapping(model)
    if found is None:
        near = get_close_matches(model, getattr(table, "_build_checkpoint_conversion_mapping", dict)(), 3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise MapError(model, None, f"transformers does not have conversions for this model type or class{hint}")
    return found


def _checked(transform: Any) -> ConversionRule:
    """Try a rule and its reverse on names, and its operations on tensors."""
    operations = getattr(transform, "operations", [])
    rule = f"{', '.join(transform.source_patterns)} -> {', '.join(transform.target_patterns)}"
    rule += "".join(f" | {operation}" for operation in operations)
    try:
        reverse = transform.reverse_transform()
    except (NotImplementedError, ValueError) as error:
        return ConversionRule(rule, LOSSY, f"it cannot be reversed: {error or type(error).__name__}")
    if reverse is transform:
        return ConversionRule(rule, LOSSY, "transformers does not reverse it: files are saved with the new names")
    lost = _lost(transform, reverse, _usual(transform)) or _stray(transform, reverse)
    if lost:
        return ConversionRule(rule, LOSSY, *lost)
    known = undone(transform, reverse) if operations else ""
    if known:
        return ConversionRule(rule, LOSSY, known)
    unusual = _lost(transform, reverse, _unusual(transform))
    if unusual:
        return ConversionRule(rule, ANCHOR, *unusual)
    if known is None:
        return ConversionRule(rule, UNTRIED, "its operations need the model")
    if not operations and all(_renamed(transform, name) == name for name, _ in _usual(transform)):
        return ConversionRule(rule, UNTRIED, "no name was found that it renames")
    return ConversionRule(rule, INVERTIBLE)


def _lost(transform: Any, reverse: Any, trials: Iterator[tuple[str, str]]) -> tuple[str, str] | None:
    """Return what happens to the first name that does not come back as expected, and the name."""
    for name, expected in trials:
        new = _renamed(transform, name)
        back = _renamed(reverse, new)
        if new != name and back != expected:
            return f"{name!r} becomes {new!r}, which comes back as {back!r}", name
    return None


def _stray(transform: Any, reverse: Any) -> tuple[str, str] | None:
    """Return what happens to a name that the rule does not match, if the reverse renames it nevertheless, and the name."""
    name = "x.weight"
    back = _renamed(reverse, name)
    if _renamed(transform, name) != name or back == name:
        return None
    return f"{name!r} is not renamed, but comes back as {back!r}", name


def _renamed(transform: Any, name: str) -> str:
    return str(transform.rename_source_key(name)[0])


def _cores(transform: Any) -> Iterator[tuple[str, str]]:
    """Yield texts that the source patterns match, each with the text that the reverse should make of the result.

    Several sources that are joined become one name, whose reverse is the first of them; `*` numbers the tensors of a list.
    """
    joined = bool(getattr(transform, "operations", []))
    first = transform.source_patterns[0]
    for pattern in transform.source_patterns:
        for core in samples(pattern.replace("*.", r"0\.")):
            expected = samples(first.replace("*.", r"\*\."))[0] if joined else core
            yield core, expected


def _usual(transform: Any) -> Iterator[tuple[str, str]]:
    """Yield names that have the pattern once, between whole components; each with the name that should come back."""
    for core, expected in _cores(transform):
        for around in _AROUND:
            yield around(core), around(expected)


def _unusual(transform: Any) -> Iterator[tuple[str, str]]:
    """Yield names that also have the pattern, or its replacement, elsewhere; each with the name that should come back."""
    for core, expected in _cores(transform):
        new = _renamed(transform, core)
        for other in (new, core, f"{core.strip('.')}_x"):
            yield _ended("a", other, core), _ended("a", other, expected)
            yield _ended(core, other), _ended(expected, other)


def _joined(*parts: str) -> str:
    """Join parts of a name with one dot between them."""
    return ".".join(part.strip(".") for part in parts)


def _ended(*parts: str) -> str:
    """Join parts of a name to that of a tensor."""
    name = _joined(*parts)
    return name if name.endswith(("weight", "bias")) else f"{name}.weight"


def _whole(core: str) -> str:
    """Complete the first and the last component of a name."""
    return ("a" if core.startswith(".") else "") + core + ("weight" if core.endswith((".", "_")) else "")


_AROUND: tuple[Callable[[str], str], ...] = (
    _whole,
    lambda core: _ended(_whole(core)),
    lambda core: _joined("a", _whole(core)),
    lambda core: _ended("a.0", _whole(core)),
)
