"""What `match` infers: steps with their reasons, the KeyMap, and what is not certain."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import printable
from ..names._keymap import KeyMap
from ._folded import folded

_LINES = 20


class Inferred(NamedTuple):
    """A source name matched with a model tensor.

    Attributes:
        source: the name in the source.
        target: the name in the model. If tensors are joined or split, there is a step for each pair of names.
        reason: why they belong together.
        certain: False if other matches would fit as well.
        operations: how the tensor is converted, as in a rule (`"transpose"`); empty if it is only renamed.
        decides: what would make sure of a match that is not certain; otherwise empty.
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
        matched = len({step.target for step in self.steps})
        unsure = len({step.target for step in self.steps if not step.certain})
        lines = [
            f"{matched:,} of {matched + len(self.unfilled):,} model tensors matched"
            + (f" ({unsure:,} not certain)" if unsure else "")
            + f", {len(self.unmatched):,} checkpoint tensors unused"
        ]
        for certain in (True, False):
            lines += self._grouped(certain)
        lines += list(self.notes[:_LINES])
        return "\n".join(map(printable, [*lines, "key map:", *(f"  {rule}" for rule in self.key_map.rules)]))

    def _grouped(self, certain: bool) -> list[str]:
        """Return the steps by reason, those that differ only in their numbers as one line."""
        groups: dict[str, list[Inferred]] = {}
        for step in self.steps:
            if step.certain is certain:
                groups.setdefault(step.reason, []).append(step)
        lines = []
        for reason, steps in groups.items():
            lines.append(f"{'' if certain else 'not certain: '}{reason}: {len(steps):,}")
            shown = folded(
                (s.source, s.target, s.operations) for s in steps if s.source != s.target or s.operations or not certain
            )
            lines += [f"  {line}" + (f"  ×{count:,}" if count > 1 else "") for line, count in shown[:_LINES]]
            lines += [f"  … and {len(shown) - _LINES:,} more"] if len(shown) > _LINES else []
            lines += [f"  to be sure: {steps[0].decides}"] if steps[0].decides else []
        return lines
