"""Rules: the lines of a KeyMap.

The grammar of a line (see `_template` for templates, `_operation` for operations):

    rule     =  side "->" side { "|" operation }  |  "/" regular expression "/" "->" replacement
    side     =  template { "," template }

    encoder -> backbone                                          rename a tensor, or a module with everything below it
    model.{*p} -> {*p}                                           remove a prefix
    h.{i}.{ln_1,ln_2}.{*p} -> layers.{i}.{norm1,norm2}.{*p}      two rules in one line
    h.{i}.fc.weight -> layers.{i}.fc.weight | transpose          also convert the tensor
    head.weight -> head.weight | reshape 10 512                  the same elements in another shape
    attn.{q,k,v}.weight -> attn.qkv.weight | cat 0               join three tensors into one
    attn.qkv.weight -> attn.{q,k,v}.weight | split 0 64 16 16    split one tensor into three
    experts.{e}.w -> experts.w | stack 0                         stack all tensors of this form into one
    /(.+)\\.gamma/ -> \\1.weight                                   a regular expression; cannot be inverted

Both sides must have the same placeholders. There is one exception: if tensors are stacked, unstacked or concatenated, one
placeholder may be on one side only; it numbers them, from 0. Operations are applied from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...errors import printable
from ..operations._joins import Cat
from ..operations._operation import Operation, joins, parse_operation, parts, undone
from ..operations._reshape import Reshape
from ..operations._views import Split
from ._template import Template, expand

# A text up to the next brace.
_RUN = re.compile(r"[^{}]*[{}]?")
_REGEX = re.compile(r"/(.*)/\s*->(.*)", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """Renames names that match `sources` to `targets`, and applies `operations` to their tensors."""

    sources: tuple[Template, ...]
    targets: tuple[Template, ...]
    operations: tuple[Operation, ...] = ()

    @property
    def line(self) -> str:
        """The rule as `parse` reads it."""
        arrow = f"{_side(self.sources)} -> {_side(self.targets)}"
        return " | ".join([arrow, *map(str, self.operations)])

    def __str__(self) -> str:
        return printable(self.line)

    @cached_property
    def gathered(self) -> str | None:
        """The placeholder that numbers the sources, or None."""
        return _open(self.sources, self.targets) if any(map(joins, self.operations)) else None

    @cached_property
    def scattered(self) -> str | None:
        """The placeholder that numbers the targets, or None."""
        return _open(self.targets, self.sources) if any(map(parts, self.operations)) else None

    @cached_property
    def obstacle(self) -> str | None:
        """Why the rule does not have an exact inverse, or None if it has one."""
        for template in (*self.sources, *self.targets):
            if not template.exact:
                return f"{str(template)!r} is ambiguous: put a dot between its placeholders, and use only one {{*name}}"
        if self.gathered and any(isinstance(op, Cat) for op in self.operations):
            return f"'cat' over {{{self.gathered}}} loses the number of tensors: use 'stack', or list each name"
        if any(isinstance(op, Reshape) for op in self.operations):
            return "'reshape' loses the original shape"
        lost = _placeholders(self.sources) - _placeholders(self.targets)
        if lost - {self.gathered}:
            return f"{{{min(lost)}}} is not on its right side"
        return None

    def inverse(self) -> Rule:
        """Return the rule that undoes this one; raises ValueError if there is none."""
        if self.obstacle:
            raise ValueError(f"'{self}' cannot be inverted: {self.obstacle}")
        return Rule(self.targets, self.sources, undone(self.operations))


@dataclass(frozen=True)
class Escape:
    """Renames by a regular expression or a function: not invertible, and a function cannot be saved as text."""

    function: Callable[[str], str]
    text: str | None = None
    obstacle = "a regular expression or a function does not have an exact inverse; use '{i}' and '{*p}' instead"

    @property
    def line(self) -> str:
        """The regular expression as `parse` reads it, or the function's name."""
        return self.text or f"<{getattr(self.function, '__qualname__', repr(self.function))}>"

    def __str__(self) -> str:
        return printable(self.line)

    def inverse(self) -> Rule:
        """Raise ValueError: there is no inverse."""
        raise ValueError(f"'{self}' cannot be inverted: {self.obstacle}")


AnyRule = Rule | Escape


def parse(line: str) -> list[AnyRule]:
    """Parse the rules of one line; raises ValueError with the line and what is wrong in it."""
    regex = _REGEX.fullmatch(line.strip())
    if regex:
        return [_escape(regex[1], regex[2].strip(), line.strip())]
    sides = line.split("->")
    if len(sides) != 2:
        raise ValueError(
            f"{line!r} is not a rule: expected 'OLD -> NEW', with '{{i}}' and '{{*p}}' for the parts that vary"
        )
    right, *operations = sides[1].split("|")
    try:
        sources, targets = (_templates(side) for side in (sides[0], right))
        rules = _paired(sources, targets, tuple(map(parse_operation, operations)))
        for rule in rules:
            _check(rule)
    except ValueError as error:
        raise ValueError(f"{line.strip()!r}: {error}") from None
    return list(rules)


def pairs(old: str, new: str) -> list[AnyRule]:
    """Return the rules that rename one template to another; here, names may contain commas, bars and arrows."""
    return list(_paired(expand(old), expand(new), ()))


def _escape(pattern: str, replacement: str, line: str) -> Escape:
    try:
        compiled = re.compile(pattern, re.DOTALL)
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        raise ValueError(f"{line!r}: {error}") from None

    def replaced(name: str) -> str:
        found = compiled.fullmatch(name)
        return name if found is None else found.expand(replacement)

    return Escape(replaced, line)


def _templates(side: str) -> tuple[Template, ...]:
    texts = [""]
    for run in _RUN.findall(side):
        # Commas before a closing brace separate the choices of one template.
        first, *more = [run] if run.endswith("}") else run.split(",")
        texts[-1] += first
        texts += more
    return tuple(template for text in texts for template in expand(text.strip()))


def _paired(sources: Sequence[Template], targets: Sequence[Template], operations: tuple[Operation, ...]) -> list[Rule]:
    """Return one rule if tensors are joined or split, otherwise one for each pair of templates."""
    if any(joins(op) or parts(op) for op in operations):
        return [Rule(tuple(sources), tuple(targets), operations)]
    if len(sources) != len(targets):
        raise ValueError(
            f"{len(sources)} names on the left and {len(targets)} on the right; join several tensors with '| cat 0' or "
            "'| stack 0', split one with '| split 0' or '| unstack 0'"
        )
    return [Rule((source,), (target,), operations) for source, target in zip(sources, targets)]


def _check(rule: Rule) -> None:
    """Raise ValueError if the counts or placeholders of both sides do not match."""
    gathers, scatters = any(map(joins, rule.operations)), any(map(parts, rule.operations))
    if gathers and len(rule.sources) == 1 and not rule.gathered:
        raise ValueError(
            "only one tensor to join: list several names, or use a placeholder on the left only, as in "
            "'experts.{e}.w -> experts.w'"
        )
    if scatters and len(rule.targets) == 1 and not rule.scattered:
        raise ValueError("the tensor is split, but there is only one target: list several, as in '{q,k,v}'")
    if (len(rule.sources) > 1 and not gathers) or (len(rule.targets) > 1 and not scatters):
        raise ValueError(
            "more names than tensors: 'cat' and 'stack' have one target, 'split' and 'unstack' have one source"
        )
    if rule.scattered and any(isinstance(op, Split) for op in rule.operations):
        raise ValueError(f"'split' needs a fixed number of {{{rule.scattered}}}: use 'unstack', or list each name")
    known = _placeholders(rule.sources)
    if any(set(template.placeholders) - {rule.gathered} != known - {rule.gathered} for template in rule.sources):
        raise ValueError("the names on the left must have the same placeholders")
    unknown = _placeholders(rule.targets) - known - {rule.scattered}
    if unknown:
        raise ValueError(f"{{{min(unknown)}}} is on the right only")


def _placeholders(templates: Sequence[Template]) -> set[str]:
    return {placeholder for template in templates for placeholder in template.placeholders}


def _open(many: Sequence[Template], one: Sequence[Template]) -> str | None:
    """Return the one placeholder of a single template that is not on the other side, or None."""
    extra = set(many[0].placeholders) - _placeholders(one)
    return extra.pop() if len(many) == 1 == len(extra) else None


def _side(templates: Sequence[Template]) -> str:
    """Return the text of one side, with a choice `{a,b}` if its templates differ in one component."""
    texts = [str(template) for template in templates]
    if len(texts) == 1:
        return texts[0]
    rows = [text.split(".") for text in texts]
    start, end = _shared(rows), _shared([row[::-1] for row in rows])
    middles = [".".join(row[start : len(row) - end]) for row in rows]
    if start + end and all(middle and not set(middle) & set("{},") for middle in middles):
        choice = f"{{{','.join(middles)}}}"
        return ".".join([*rows[0][:start], choice, *rows[0][len(rows[0]) - end :]])
    return ", ".join(texts)


def _shared(rows: Sequence[Sequence[str]]) -> int:
    """Return the number of components that all rows have in common at the start."""
    alike = 0
    for column in zip(*rows):
        if len(set(column)) > 1:
            break
        alike += 1
    return alike
