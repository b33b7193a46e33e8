"""Print a plan: counts, then the tensors that are renamed or changed, folded over layers, then the problems."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from statedict.state import fold

from ..errors import printable
from .names._generalise import folded_pairs

if TYPE_CHECKING:
    from ._plan import Plan
    from .tensors._step import Step

_LINES = 10


def plan_text(plan: Plan) -> str:
    """Return the plan as text; the length does not depend on the number of tensors."""
    changed = [step for step in plan.steps if step.change]
    renamed = [step for step in plan.steps if step.renamed and not step.change]
    lines = [f"{len(plan.steps):,} of {len(plan.slots):,} tensors filled, {len(plan.problems):,} problems"]
    lines += _section("renamed", folded_pairs((step.sources[0], step.target) for step in renamed))
    lines += _section("changed", Counter(_step_text(step) for step in changed))
    for title, names in (("missing", plan.missing), ("unexpected", plan.unexpected), ("excluded", plan.excluded)):
        lines += _section(title, Counter({group.text: len(group.names) for group in fold(names)}))
    for title, some in (("mismatched", plan.mismatched), ("skipped", plan.skipped)):
        lines += _section(title, Counter(f"{one.name}: {one.found} for {list(one.expected)}" for one in some))
    lines += [f"warning: {note}" for note in plan.notes]
    return "\n".join(map(printable, lines))


def _step_text(step: Step) -> str:
    """Return a changed step as one line, with a placeholder for its layer."""
    rule = next(iter(folded_pairs([(step.sources[0], step.target)])))
    joined = f" and {len(step.sources) - 1} more" if len(step.sources) > 1 else ""
    return f"{rule.replace(' -> ', f'{joined} -> ')}  ({step.change})"


def _section(title: str, lines: Counter[str]) -> list[str]:
    """Return a titled list of at most `_LINES` lines."""
    if not lines:
        return []
    shown = [f"  {line}" + (f"  ×{count:,}" if count > 1 else "") for line, count in list(lines.items())[:_LINES]]
    more = sum(list(lines.values())[_LINES:])
    return [f"{title} {sum(lines.values()):,}:", *shown, *([f"  … and {more:,} more"] if more else [])]
