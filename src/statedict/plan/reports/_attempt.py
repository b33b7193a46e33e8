"""Plan the same load with other arguments, without reading or changing anything.

An Attempt holds shapes and dtypes, not tensors: a report that is kept must not keep a model in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import Absent, contiguous
from statedict.state import dtype as find_dtype

from ..operations._specs import Shape, shape_of, spec_of

if TYPE_CHECKING:
    from .._plan import Plan
    from ._report import LoadReport


def call_text(arguments: Mapping[str, Any], *, infer: bool = False) -> str:
    """Return the call of `load_state_dict`, or of `match` to `infer` the names, with these arguments as Python source."""
    said = "".join(f", {name}={_literal(name, value)}" for name, value in arguments.items())
    if infer:
        return f"print(statedict.match(model, source{said}))"
    return f"{'' if said else 'statedict.'}load_state_dict(model, source{said})"


# Arguments that are lists of patterns: new patterns are added to those given.
_PATTERNS = ("allow_missing", "allow_unexpected")


class TensorInfo(NamedTuple):
    """The facts that planning needs about a tensor that is not strided, or whose dtype PyTorch does not have."""

    shape: Shape
    dtype: Any
    layout: None = None


# Stands for a tensor that is known to fit.
_FITTING = contiguous(find_dtype("float32"), ())


class Proposal(NamedTuple):
    """Arguments that may fix a load, and a text that says why."""

    text: str
    arguments: dict[str, Any]


class NotATensor:
    """Stands for a value that is not a tensor, or does not have a shape yet."""


@dataclass(frozen=True)
class Attempt:
    """A load that was planned, and can be planned again with other arguments.

    Attributes:
        given, slots: a description of the source's values, and of the model's.
        options: the arguments that were given, without default values.
        fixed: the arguments that select source and target, which every call must repeat.
        roots: descriptions of other state dicts of the source, by path.
        tied: the slots that are tied, each with a number of what it is tied to.
        call: returns the text of a suggested call.
    """

    given: Mapping[str, Any]
    slots: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    roots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tied: Mapping[str, int] = field(default_factory=dict)
    call: Callable[..., str] = call_text
    _reports: dict[str, LoadReport | None] = field(default_factory=dict, repr=False)

    def with_options(self, options: Mapping[str, Any]) -> Attempt:
        """Return the same attempt with further options."""
        return replace(self, options={**self.options, **options})

    def arguments(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options merged with `more`."""
        merged = dict(self.options)
        for name, value in more.items():
            old = merged.get(name)
            if old and name in _PATTERNS:
                value = [*_listed(old), *_listed(value)]
            elif old and name == "rename":
                # The first matching rule is used, and the added rules are for names that did not match one so far.
                value = [*_listed(value), *_listed(old)]
            elif old and isinstance(old, Mapping) and isinstance(value, Mapping):
                value = {**old, **value}
            merged[name] = value
        return merged

    def needed(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call with `more`; options that were given are left out if they are not needed."""
        if not self.options:
            return {**self.fixed, **more}
        alone = replace(self, options={})(**more)
        return {**self.fixed, **(more if alone is not None and alone.ok else self.arguments(more))}

    def __call__(self, **more: Any) -> LoadReport | None:
        """Return the report of the load with `more` arguments; None if it cannot be planned."""
        options = self.arguments(more)
        allowed = [options.pop(name, ()) for name in _PATTERNS]
        planned = {name: options[name] for name in _PLANNED if name in options}
        # Proposals often differ only in the names that they allow, which the plan does not depend on.
        key = repr((more.get("root"), more.get("into"), planned))
        if key not in self._reports:
            self._reports[key] = self._report(more, planned)
        report = self._reports[key]
        return None if report is None else report.allowing(missing=allowed[0], unexpected=allowed[1])

    def _report(self, more: Mapping[str, Any], planned: Mapping[str, Any]) -> LoadReport | None:
        from statedict.errors import StateDictError

        from .._plan import match

        given = self.roots[more["root"]] if "root" in more else self.given
        slots = below(self.slots, more["into"]) if "into" in more else self.slots
        try:
            plan = match(given, slots, **planned)
        except (StateDictError, ValueError):
            return None
        return plan.report(advised=False) if not self.tied else self._with_ties(plan, more.get("into"))

    def _with_ties(self, plan: Plan, into: str | None) -> LoadReport:
        """Return the report of a plan for a model with tied parameters: one name fills all."""
        tied = self.tied if into is None else below(self.tied, into)
        filled = {tied[step.target] for step in plan.steps if step.target in tied}
        shared = [name for name in plan.missing if tied.get(name) in filled]
        report = plan.report(missing=[name for name in plan.missing if name not in set(shared)], advised=False)
        report.loaded += shared
        return report


_PLANNED = ("include", "exclude", "rename", "mismatched", "dtype")


def attempt(
    given: Mapping[str, Any], slots: Mapping[str, Any], options: Mapping[str, Any], loaded: Collection[str]
) -> Attempt:
    """Return the Attempt for a load of `given` into `slots`; nested mappings in `given` are roots.

    Tensors that were loaded under their own names are known to fit, so their shapes are not looked up.
    """
    counted = Counter(map(id, slots.values()))
    tied = {name: id(value) for name, value in slots.items() if counted[id(value)] > 1 and shape_of(value) is not None}
    fitting = dict.fromkeys(loaded, _FITTING)
    same = {name: _FITTING for name in given if name in fitting}
    given = {**given, **same} if same else given
    slots = {**slots, **same} if same else slots
    inside = {str(name): value for name, value in given.items() if isinstance(value, Mapping)}
    inside |= {f"{a}/{b}": v for a, value in list(inside.items()) for b, v in value.items() if isinstance(v, Mapping)}
    roots = {path: tensor_info(value) for path, value in inside.items()}
    return Attempt(tensor_info(given), tensor_info(slots), options, roots=roots, tied=tied)


def tensor_info(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return descriptions of the values, sufficient for planning, that do not keep the values alive."""
    return {str(name): _known(value) for name, value in values.items()}


def below(slots: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the slots of the module at a path, under names relative to it."""
    inside = f"{path}."
    return {name.removeprefix(inside): value for name, value in slots.items() if name.startswith(inside)}


def _known(value: Any) -> Any:
    if isinstance(value, Absent):
        return value
    if spec := spec_of(value):
        return spec
    shape = shape_of(value)
    return NotATensor() if shape is None else TensorInfo(shape, getattr(value, "dtype", None))


def _literal(name: str, value: Any) -> str:
    """Return the value as Python source; the argument's name if it cannot be written as a literal."""
    from ..names._keymap import KeyMap

    if isinstance(value, KeyMap):
        if type(value).__repr__ is not KeyMap.__repr__:
            return repr(value)
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
    """Return rules or patterns as a list."""
    return list(given) if isinstance(given, (list, tuple)) else [given]
