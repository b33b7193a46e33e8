"""What `match` infers: steps with their reasons, the KeyMap, and what is not certain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from statedict.state import Section, as_html, as_text, listed

from ...errors import printable
from ..names._keymap import KeyMap
from ._folded import folded

_LINES = 20
# Rules are copied from the output, so they are not cut.
_WHOLE = 10_000


class Inferred(NamedTuple):
    """A source name matched with a model tensor.

    Attributes:
        source: the name in the source.
        target: the name in the model. If tensors are joined or split, there is a step for each pair of names.
        reason: why they belong together.
        certain: False if other matches would fit as well.
        operations: how the tensor is converted, as in a rule (`"transpose"`); empty if it is only renamed.
        decides: what would confirm a match that is not certain; otherwise empty.
    """

    source: str
    target: str
    reason: str
    certain: bool = True
    operations: str = ""
    decides: str = ""


class Inference(NamedTuple):
    """The result of `match`. Print it and check what is not certain, then load with `rename=inference.key_map`.

    Attributes:
        key_map: the rules that rename and convert as `steps` say.
        steps: the matched names, each with its reason.
        unmatched: source names without a model tensor.
        unfilled: names of model tensors without a source.
        notes: known reasons why names could not be matched.

    >>> import numpy as np, statedict
    >>> found = statedict.match({"encoder.weight": np.zeros(2)}, {"net.encoder.weight": np.ones(2)})
    >>> str(found.key_map), found.unmatched, found.certain
    ('net.{*p} -> {*p}', (), True)
    """

    key_map: KeyMap
    steps: tuple[Inferred, ...]
    unmatched: tuple[str, ...]
    unfilled: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether every step is certain."""
        return all(step.certain for step in self.steps)

    def __str__(self) -> str:
        return as_text(self._counts(), self._sections())

    def _repr_html_(self) -> str:
        return as_html(self._counts(), self._sections())

    def _counts(self) -> str:
        matched = len({step.target for step in self.steps})
        unsure = len({step.target for step in self.steps if not step.certain})
        return (
            f"{matched:,} of {matched + len(self.unfilled):,} model tensors matched"
            + (f" ({unsure:,} not certain)" if unsure else "")
            + f", {len(self.unmatched):,} checkpoint tensors unused"
        )

    def _sections(self) -> list[Section]:
        rules = [(printable(str(rule)), "") for rule in self.key_map.rules]
        return [
            *self._grouped(certain=True),
            *self._grouped(certain=False),
            listed("notes", self.notes, _LINES, _WHOLE),
            Section("key map:", rules or [("(empty: no name changes)", "")], width=_WHOLE),
        ]

    def _grouped(self, *, certain: bool) -> Iterator[Section]:
        """Return a section for each reason; the steps that differ only in their numbers are one line."""
        groups: dict[str, list[Inferred]] = {}
        for step in self.steps:
            if step.certain is certain:
                groups.setdefault(step.reason, []).append(step)
        for reason, steps in groups.items():
            shown = folded(
                (s.source, s.target, s.operations) for s in steps if s.source != s.target or s.operations or not certain
            )
            lines = [(printable(line), f"×{count:,}" if count > 1 else "") for line, count in shown[:_LINES]]
            lines += [("to be sure:", printable(steps[0].decides))] if steps[0].decides else []
            more = f"… and {len(shown) - _LINES:,} more" if len(shown) > _LINES else ""
            title = f"{'' if certain else 'not certain: '}{reason}: {len(steps):,}"
            yield Section(printable(title), lines or [("(under the same names)", "")], more, _WHOLE)
