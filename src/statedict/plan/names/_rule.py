"""Rules: one line of a KeyMap.

Grammar of a line (`_template` says what a template is, `_operation` what an operation is):

    rule     =  side "->" side { "|" operation }  |  "/" regular expression "/" "->" replacement
    side     =  template { "," template }

    encoder -> backbone                                          this name, or this module and all below it
    model.{*p} -> {*p}                                           a prefix dropped
    h.{i}.{ln_1,ln_2}.{*p} -> layers.{i}.{norm1,norm2}.{*p}      two rules in one line
    h.{i}.fc.weight -> layers.{i}.fc.weight | transpose          the tensor is changed too
    head.weight -> head.weight | reshape 10 512                  the same elements as another shape
    attn.{q,k,v}.weight -> attn.qkv.weight | cat 0               three tensors become one
    attn.qkv.weight -> attn.{q,k,v}.weight | split 0 64 16 16    one becomes three
    experts.{e}.w -> experts.w | stack 0                         as many as there are become one
    /(.+)\\.gamma/ -> \\1.weight                                   the escape hatch; has no inverse

Each side's holes must be the other's, except that one hole may be open where tensors are stacked, unstacked or
concatenated: it counts them, from 0. Operations read from left to right.
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

_COMMA = re.compile(r",(?![^{}]*\})")
_REGEX = re.compile(r"/(.*)/\s*->(.*)", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """Names that fit `sources` become those of `targets`; their tensors go through `operations`."""

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
        """The open hole that counts the sources, if there is one."""
        return _open(self.sources, self.targets) if any(map(joins, self.operations)) else None

    @cached_property
    def scattered(self) -> str | None:
        """The open hole that counts the targets, if there is one."""
        return _open(self.targets, self.sources) if any(map(parts, self.operations)) else None

    @property
    def renames_only(self) -> bool:
        """Whether it leaves the tensors alone."""
        return not self.operations

    @cached_property
    def obstacle(self) -> str | None:
        """Why it has no exact inverse, or None where it has one."""
        for template in (*self.sources, *self.targets):
            if not template.exact:
                return f"{str(template)!r} can be read in two ways: put a dot between its holes, and only one {{*hole}}"
        if self.gathered and any(isinstance(op, Cat) for op in self.operations):
            return f"'cat' over {{{self.gathered}}} forgets how many there were: use 'stack', or name each"
        if any(isinstance(op, Reshape) for op in self.operations):
            return "'reshape' does not say which shape there was"
        lost = {hole for t in self.sources for hole in t.holes} - {hole for t in self.targets for hole in t.holes}
        if lost - {self.gathered}:
            return f"its right side does not have {{{min(lost)}}}"
        return None

    def inverse(self) -> Rule:
        """The rule that undoes it; ValueError where there is none."""
        if self.obstacle:
            raise ValueError(f"'{self}' cannot be inverted: {self.obstacle}")
        return Rule(self.targets, self.sources, undone(self.operations))


@dataclass(frozen=True)
class Escape:
    """Names are renamed by a regular expression or a function: not invertible, and a function cannot be written down."""

    function: Callable[[str], str]
    text: str | None = None
    obstacle = "a regular expression or a function has no exact inverse; write it with templates"

    @property
    def line(self) -> str:
        """The regular expression as `parse` reads it, or the function's name."""
        return self.text or f"<{getattr(self.function, '__qualname__', repr(self.function))}>"

    def __str__(self) -> str:
        return printable(self.line)

    def inverse(self) -> Rule:
        """There is none: ValueError."""
        raise ValueError(f"'{self}' cannot be inverted: {self.obstacle}")


AnyRule = Rule | Escape


def parse(line: str) -> list[AnyRule]:
    """The rules of one line; ValueError with the line and what is wrong in it."""
    regex = _REGEX.fullmatch(line.strip())
    if regex:
        return [_escape(regex[1], regex[2].strip(), line.strip())]
    sides = line.split("->")
    if len(sides) != 2:
        raise ValueError(f"{line!r} is no rule: a rule is 'OLD -> NEW', with '{{i}}' and '{{*p}}' for what varies")
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
    """The rules that rename one template to another; a name may have commas, bars and arrows here."""
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
    return tuple(template for text in _COMMA.split(side) for template in expand(text.strip()))


def _paired(sources: Sequence[Template], targets: Sequence[Template], operations: tuple[Operation, ...]) -> list[Rule]:
    """One rule where tensors are joined or parted, otherwise one for each pair."""
    if any(joins(op) or parts(op) for op in operations):
        return [Rule(tuple(sources), tuple(targets), operations)]
    if len(sources) != len(targets):
        raise ValueError(
            f"{len(sources)} names on the left and {len(targets)} on the right; several become one with '| cat 0' or "
            "'| stack 0', one becomes several with '| split 0' or '| unstack 0'"
        )
    return [Rule((source,), (target,), operations) for source, target in zip(sources, targets)]


def _check(rule: Rule) -> None:
    """ValueError where the counts or holes of a rule do not fit together."""
    gathers, scatters = any(map(joins, rule.operations)), any(map(parts, rule.operations))
    if gathers and len(rule.sources) == 1 and not rule.gathered:
        raise ValueError(
            "only one tensor to join: name several, or leave a hole open, as in 'experts.{e}.w -> experts.w'"
        )
    if scatters and len(rule.targets) == 1 and not rule.scattered:
        raise ValueError("a tensor is split into one: name several targets, as in '{q,k,v}'")
    if (len(rule.sources) > 1 and not gathers) or (len(rule.targets) > 1 and not scatters):
        raise ValueError(
            "more names than tensors: 'cat' and 'stack' make one of several, 'split' and 'unstack' several of one"
        )
    if rule.scattered and any(isinstance(op, Split) for op in rule.operations):
        raise ValueError(f"'split' cannot tell how many {{{rule.scattered}}} there are: use 'unstack', or name each")
    known = {hole for template in rule.sources for hole in template.holes}
    if any(set(template.holes) - {rule.gathered} != known - {rule.gathered} for template in rule.sources):
        raise ValueError("the names on the left must have the same holes")
    unknown = {hole for template in rule.targets for hole in template.holes} - known - {rule.scattered}
    if unknown:
        raise ValueError(f"{{{min(unknown)}}} is on the right only")


def _open(many: Sequence[Template], one: Sequence[Template]) -> str | None:
    """The one hole that a single template has beyond those of the other side."""
    extra = set(many[0].holes) - {hole for template in one for hole in template.holes}
    return extra.pop() if len(many) == 1 == len(extra) else None


def _side(templates: Sequence[Template]) -> str:
    """The text of a side, with a choice where its templates differ in one component."""
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
    """How many components all rows begin with."""
    alike = 0
    for column in zip(*rows):
        if len(set(column)) > 1:
            break
        alike += 1
    return alike
