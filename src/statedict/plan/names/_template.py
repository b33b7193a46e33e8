"""Templates of names: `"transformer.h.{i}.ln_1.{*p}"`.

A template goes both ways: `match` takes the holes' values out of a name, `fill` puts them into one.

    {i}        one or more characters, none of them a dot: a component, or a part of one
    {*p}       one or more characters, dots included: the rest of a path
    {q,k,v}    each of these in turn: the template stands for three (`expand`)
    {{ and }}  a brace that is part of the name

A template is *exact* when no name can be taken apart in two ways: it has at most one `{*p}`, and there is a dot between
any two holes. Only exact templates can be filled and matched again without a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

_TOKEN = re.compile(r"\{\{|\}\}|\{(\*?)([A-Za-z_]\w*)\}|\{([^{}]*,[^{}]*)\}|([{}])")


@dataclass(frozen=True)
class Hole:
    """What a template leaves open; `deep` where it may hold dots."""

    name: str
    deep: bool

    def __str__(self) -> str:
        return f"{{{'*' * self.deep}{self.name}}}"


@dataclass(frozen=True)
class Template:
    """A name with holes: literal text and `Hole`s in turn."""

    parts: tuple[str | Hole, ...]

    def __str__(self) -> str:
        return "".join(str(part) if isinstance(part, Hole) else escaped(part) for part in self.parts)

    @cached_property
    def holes(self) -> tuple[str, ...]:
        """The holes' names, each once, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Hole)))

    @property
    def literal(self) -> str | None:
        """The one name that it stands for where it has no holes."""
        return None if self.holes else "".join(map(str, self.parts))

    @property
    def exact(self) -> bool:
        """Whether every name that fits can be taken apart in one way only."""
        holes = [n for n, part in enumerate(self.parts) if isinstance(part, Hole)]
        between = [self.parts[a + 1 : b] for a, b in pairwise(holes)]
        apart = all(any("." in str(part) for part in parts) for parts in between)
        return apart and sum(part.deep for part in self.parts if isinstance(part, Hole)) <= 1

    def regex(self, prefix: str) -> str:
        """A regular expression for the names that fit; hole `i` is the group `{prefix}i`."""
        seen: set[str] = set()
        text = ""
        for part in self.parts:
            if not isinstance(part, Hole):
                text += re.escape(part)
            elif part.name in seen:
                text += f"(?P={prefix}{part.name})"
            else:
                seen.add(part.name)
                text += f"(?P<{prefix}{part.name}>{'.+?' if part.deep else '[^.]+'})"
        return text

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.regex(""), re.DOTALL)

    @cached_property
    def _format(self) -> str:
        return "".join(f"{{{part.name}}}" if isinstance(part, Hole) else escaped(part) for part in self.parts)

    def match(self, name: str) -> dict[str, str] | None:
        """The holes' values in `name`, or None where it does not fit; the partner of `fill`."""
        found = self._compiled.fullmatch(name)
        return None if found is None else found.groupdict()

    def fill(self, values: Mapping[str, str]) -> str:
        """The name with these values in the holes; the partner of `match`."""
        return self._format.format_map(values)


def expand(text: str) -> list[Template]:
    """The templates that a text stands for: several where it has choices, the last choice varying first.

    Raises ValueError where a brace is not part of a hole.

    >>> [str(template) for template in expand("layers.{i}.attn.{q,k}.weight")]
    ['layers.{i}.attn.q.weight', 'layers.{i}.attn.k.weight']
    """
    if not text:
        raise ValueError("a template is empty; '{*p}' stands for a whole name")
    choices: list[list[str | Hole]] = []
    end = 0
    for found in _TOKEN.finditer(text):
        if found[4]:
            raise ValueError(
                f"{text!r}: the {found[4]!r} at character {found.start()} is no part of a hole such as '{{i}}', '{{*p}}' "
                f"or '{{q,k,v}}'; a brace in a name is written twice"
            )
        choices += [[text[end : found.start()]], _options(found)]
        end = found.end()
    choices.append([text[end:]])
    return [Template(_merged(parts)) for parts in product(*choices)]


def escaped(name: str) -> str:
    """The text of the template that stands for `name` alone."""
    return name.replace("{", "{{").replace("}", "}}")


def _options(found: re.Match[str]) -> list[str | Hole]:
    if found[2]:
        return [Hole(found[2], bool(found[1]))]
    if found[3]:
        return [option.strip() for option in found[3].split(",")]
    return [found[0][0]]


def _merged(parts: tuple[str | Hole, ...]) -> tuple[str | Hole, ...]:
    """The parts with neighbouring literals made one."""
    merged: list[str | Hole] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part:
            merged.append(part)
    return tuple(merged)
