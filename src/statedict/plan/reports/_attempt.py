"""An attempt at the same load with other arguments: what comes of it is foreseen, and nothing is read or changed.

It keeps facts (shapes and dtypes), not tensors: a report that somebody keeps must not keep a model's memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import Absent, Compound, Leaf

from ..operations._facts import Shape, shape_of

if TYPE_CHECKING:
    from ._report import LoadReport

# Arguments that are lists of patterns, so that more of them may be given.
_PATTERNS = ("allow_missing", "allow_unexpected")


class Known(NamedTuple):
    """What planning asks of a tensor."""

    shape: Shape
    dtype: Any
    layout: Any = "torch.strided"


_FITTING = Known((), "float32")


class Change(NamedTuple):
    """Arguments that may help, and why."""

    text: str
    arguments: dict[str, Any]


class Unknown:
    """What stands for a value that is not a tensor, or has no shape yet."""


@dataclass(frozen=True)
class Attempt:
    """A load that was planned, and can be planned again.

    Attributes:
        given, slots: what is known of the source's values, and of the model's.
        options: the arguments that were given, without those that say nothing.
        fixed: those that say what is loaded into what, which every call must have.
        roots: other state dicts of the source, by path, with what is known of their values.
    """

    given: Mapping[str, Any]
    slots: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    roots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_options(self, options: Mapping[str, Any]) -> Attempt:
        """The same with further arguments that were given."""
        return replace(self, options={**self.options, **options})

    def arguments(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The options together with `more` of them."""
        merged = dict(self.options)
        for name, value in more.items():
            old = merged.get(name)
            if old and name in _PATTERNS:
                value = [*_listed(old), *_listed(value)]
            elif old and name == "rename":
                # The first rule that fits counts, and those that are added are about names that none has fitted yet.
                value = [*_listed(value), *_listed(old)]
            elif old and isinstance(old, Mapping) and isinstance(value, Mapping):
                value = {**old, **value}
            merged[name] = value
        return merged

    def needed(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call that does what `more` does: what was given too is left out where it is not needed."""
        alone = replace(self, options={})(**more)
        return {**self.fixed, **(more if alone is not None and alone.ok else self.arguments(more))}

    def __call__(self, **more: Any) -> LoadReport | None:
        """The report of the load with `more` arguments; None where it cannot be planned."""
        from statedict.errors import StateDictError

        from .._match import match

        options = self.arguments(more)
        allowed = [options.pop(name, ()) for name in _PATTERNS]
        given = self.roots[more["root"]] if "root" in more else self.given
        slots = below(self.slots, more["into"]) if "into" in more else self.slots
        planned = {name: options[name] for name in _PLANNED if name in options}
        try:
            report = match(given, slots, **planned).report(advised=False)
        except (StateDictError, ValueError):
            return None
        return report.allowing(missing=allowed[0], unexpected=allowed[1])


_PLANNED = ("include", "exclude", "rename", "mismatched", "dtype")


def attempt(
    given: Mapping[str, Any], slots: Mapping[str, Any], options: Mapping[str, Any], loaded: Collection[str]
) -> Attempt:
    """The Attempt that stands for a load of `given` into `slots`; nested mappings in `given` are roots.

    What was loaded under its own name is known to fit: its shape is not looked at, for most of a model is such.
    """
    fitting = dict.fromkeys(loaded, _FITTING)
    same = {name: _FITTING for name in given if name in fitting}
    given = {**given, **same} if same else given
    slots = {**slots, **same} if same else slots
    inside = {str(name): value for name, value in given.items() if isinstance(value, Mapping)}
    inside |= {f"{a}/{b}": v for a, value in list(inside.items()) for b, v in value.items() if isinstance(v, Mapping)}
    roots = {path: facts(value) for path, value in inside.items()}
    return Attempt(facts(given), facts(slots), options, roots=roots)


def facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """What planning asks of the values, without the values."""
    return {str(name): _known(value) for name, value in values.items()}


def below(slots: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The slots of the module at a path, by their names from there."""
    inside = f"{path}."
    return {name.removeprefix(inside): value for name, value in slots.items() if name.startswith(inside)}


def _known(value: Any) -> Any:
    if value is _FITTING or isinstance(value, Absent):
        return value
    if isinstance(value, Leaf):
        return value.spec
    shape = shape_of(value)
    if shape is None:
        return Unknown()
    strided = not (isinstance(value, Compound) or getattr(value, "is_quantized", False))
    return Known(shape, getattr(value, "dtype", None), getattr(value, "layout", "torch.strided") if strided else None)


def written(arguments: Mapping[str, Any]) -> str:
    """The call of `load_state_dict` with these arguments, as a person would write it."""
    if not arguments:
        return "statedict.load_state_dict(model, source)"
    said = ", ".join(f"{name}={_literal(name, value)}" for name, value in arguments.items())
    return f"load_state_dict(model, source, {said})"


def _literal(name: str, value: Any) -> str:
    """The value as Python; the argument's own name where the caller alone can write it."""
    from ..names._keymap import KeyMap

    if isinstance(value, KeyMap):
        value = [str(rule) for rule in value.rules]
    if name == "rename" and isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    if name in ("dtype", "device") and not isinstance(value, Mapping):
        return repr(str(value))
    return repr(value) if _is_plain(value) else name


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _listed(given: Any) -> list[Any]:
    """Rules or patterns as a list, which can be joined with others."""
    return list(given) if isinstance(given, (list, tuple)) else [given]
