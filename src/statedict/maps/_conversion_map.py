"""The conversion that transformers (5 or later) makes when it loads a file into a model, as a KeyMap.

transformers names some modules otherwise than the files of the model, and keeps the experts of a layer in one tensor. Its
`from_pretrained` converts; a map made by `conversion` lets `load_state_dict` do the same. The names are computed by
transformers' own rules (`WeightRenaming`, `WeightConverter`), the tensors by ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from statedict.errors import MapError, StateDictError
from statedict.plan import KeyMap, Resolved, SpecOf, escaped

from ._conversions import of_transformers


class ConversionMap(KeyMap):
    """The conversion of transformers for one model: its rules depend on the names that are given (`rules_for`).

    It can be used wherever renaming rules can, and does not have an inverse: `from_pretrained` also reads the names that the
    model has in memory.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(self._renamed_name, optional=True)
        transforms = of_transformers("transformers.conversion_mapping").get_model_conversion_mapping(model)
        self._converters = [transform for transform in transforms if hasattr(transform, "operations")]
        self._renamings = [transform for transform in transforms if not hasattr(transform, "operations")]
        self._slots = {
            name: tuple(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")
        }
        self._prefix = f"{model.base_model_prefix}."

    def __repr__(self) -> str:
        return "statedict.maps.conversion(model)"

    def seen(self, names: Any) -> dict[str, str]:
        """Return the names unchanged: transformers' rules see whole names."""
        return {name: name for name in names}

    def resolve(self, names: Mapping[str, str], spec: SpecOf) -> Resolved:
        """Apply the rules for these names. Raises MapError if that is not possible."""
        try:
            rules = self.rules_for(names, lambda name: spec(names[name]))
        except StateDictError:
            raise
        except Exception as error:
            # It is from transformers' code, or the tensors do not have the dimensions that its rules expect.
            found = f"{type(error).__name__}: {error}"
            reason = f"the rules of transformers do not apply ({found}); use its from_pretrained"
            raise MapError("conversion", None, reason) from error
        return rules.resolve(names, spec)

    def rules_for(self, names: Any, spec: SpecOf) -> KeyMap:
        """Return the rules for the tensors with these names, as a KeyMap that can be printed and saved."""
        renamed: dict[str, str] = {}
        converted: dict[str, _Conversion] = {}
        for name in sorted(names, key=_in_number_order):
            new, pattern, converter = self._found(name)
            if new not in self._slots:
                continue
            if converter is None:
                renamed[escaped(name)] = escaped(new)
            else:
                one = converted.setdefault(new, _Conversion(new, converter, {}))
                one.sources.setdefault(pattern, []).append(name)
        lines = [one.rule(spec, self._slots) for one in converted.values() if one.complete]
        return KeyMap([{old: new for old, new in renamed.items() if old != new}, *lines], optional=True)

    def _renamed_name(self, name: str) -> str:
        new, _, converter = self._found(name)
        return new if converter is None and new in self._slots else name

    def _found(self, name: str) -> tuple[str, str, Any]:
        """Return the new name, and the pattern and the converter that match it, if any."""
        new = name
        for renaming in self._renamings:
            new, _ = renaming.rename_source_key(new)
        for converter in self._converters:
            made, pattern = converter.rename_source_key(new)
            if pattern is not None and self._placed(made) in self._slots:
                return self._placed(made), str(pattern), converter
        return (name if self._placed(new) not in self._slots and name in self._slots else self._placed(new)), "", None

    def _placed(self, name: str) -> str:
        """Return the name with or without the prefix of the base model, as the model has it."""
        for other in (name.removeprefix(self._prefix), self._prefix + name):
            if name not in self._slots and other in self._slots:
                return other
        return name


class _Conversion(NamedTuple):
    """The tensors that one converter makes into `target` (and others, if it splits): names by source pattern."""

    target: str
    converter: Any
    sources: dict[str, list[str]]

    @property
    def complete(self) -> bool:
        """Whether there are as many tensors of each pattern; otherwise all keep their names, and are reported."""
        return len({len(self.sources.get(pattern, ())) for pattern in self.converter.source_patterns}) == 1

    def rule(self, spec: SpecOf, slots: Mapping[str, tuple[int, ...]]) -> str:
        """Return the rule as text; `slots` has the shapes of the model. Older versions of some operations lack options."""
        listed = [self.sources[pattern] for pattern in self.converter.source_patterns]
        operations = [(type(one).__name__, one) for one in self.converter.operations]
        shapes = [[found.shape if (found := spec(name)) else () for name in names] for names in listed]
        match operations:
            case [("MergeModulelist", merge)] if len(listed) == 1:
                return self._line(listed[0], [self.target], f"stack {merge.dim}")
            case [("MergeModulelist", merge), ("Concatenate", cat)] if (merge.dim, cat.dim) == (0, 1):
                first = shapes[0][0]
                shape = (len(listed[0]), len(listed) * first[0], *first[1:])
                each = [name for names in zip(*listed) for name in names]  # the parts of an expert side by side
                return self._line(each, [self.target], f"cat 0 | reshape {_spaced(shape)}")
            case [("Concatenate", cat)]:
                sizes = [shape[cat.dim] for some in shapes for shape in some]
                return self._line(
                    [name for names in listed for name in names], [self.target], f"cat {cat.dim} {_spaced(sizes)}"
                )
            case [("Chunk", chunk)] if getattr(chunk, "num_shards_attribute", None) is None:
                return self._line(listed[0], list(self._targets()), f"split {chunk.dim}")
            case [("Split", split)]:
                sizes = [slots[name][split.dim] for name in self._targets()]
                return self._line(listed[0], list(self._targets()), f"split {split.dim} {_spaced(sizes)}")
            case [("Transpose", swap)] if getattr(swap, "check_dims", False) and shapes[0][0] == slots[self.target]:
                return self._line(listed[0], [self.target], "")
            case [("Transpose", swap)]:
                return self._line(listed[0], [self.target], f"transpose {swap.dim0} {swap.dim1}")
        shown = ", ".join(map(repr, self.converter.operations))
        reason = f"transformers converts tensors to {self.target!r} by {shown}; use its from_pretrained"
        raise MapError("conversion", None, reason)

    def _targets(self) -> Iterator[str]:
        """Yield the names of all results: the target has the first pattern where the others have theirs."""
        first, *_ = patterns = self.converter.target_patterns
        before, _, after = self.target.partition(first)
        yield from (before + pattern + after for pattern in patterns)

    def _line(self, sources: Sequence[str], targets: Sequence[str], operations: str) -> str:
        sides = (", ".join(map(escaped, names)) for names in (sources, targets))
        return " -> ".join(sides) + (f" | {operations}" if operations else "")


def conversion(model: Any) -> ConversionMap:
    """Return the conversion that transformers makes when it loads a file into this model, as a KeyMap.

    `load_state_dict(model, folder, rename=conversion(model))` fills a live model from what `save_pretrained` wrote, or from
    a folder of the Hub. Raises MissingDependencyError without transformers 5 or later, TypeError if the model is not one of
    transformers; MapError, when it is applied, for an operation that only transformers can do.

    Source: `transformers.conversion_mapping.get_model_conversion_mapping`.
    """
    if not isinstance(model, of_transformers("transformers").PreTrainedModel):
        raise TypeError(f"the conversions of transformers are for its own models, not for a {type(model).__name__}")
    return ConversionMap(model)


def _in_number_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which expert 2 is before expert 10, as transformers sorts them."""
    return [(len(part) if part.isdecimal() else 0, part) for part in name.split(".")]


def _spaced(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
