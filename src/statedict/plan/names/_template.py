"""Templates for names: `"transformer.h.{i}.ln_1.{*p}"`.

`regex` finds the values of the placeholders in a name, and `fill` puts them into a template.

    {i}        one or more characters except dots: a component, or a part of one
    {*p}       one or more characters, including dots: the rest of a path
    {q,k,v}    one of these: the template stands for three templates (`expand`)
    {{ and }}  a brace that is part of the name

A template is *exact* if a name can match it in one way only: it has at most one `{*p}`, and there is a dot between any two
placeholders. For an exact template, `regex` is the inverse of `fill`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

_TOKEN = re.compile(r"\{\{|\}\}|\{(\*?)([A-Za-z_]\w*)\}|\{([^{}]*,[^{}]*)\}|([{}])")


@dataclass(frozen=True)
class Placeholder:
    """A placeholder `{i}` in a template, or `{*p}`, which is `deep`: its value may contain dots."""

    name: str
    deep: bool

    def __str__(self) -> str:
        return f"{{{'*' * self.deep}{self.name}}}"


@dataclass(frozen=True)
class Template:
    """A name with placeholders: a sequence of literal text and `Placeholder`s."""

    parts: tuple[str | Placeholder, ...]

    def __str__(self) -> str:
        return "".join(str(part) if isinstance(part, Placeholder) else escaped(part) for part in self.parts)

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the placeholders, each once, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Placeholder)))

    @property
    def literal(self) -> str | None:
        """The name that it stands for, or None if it has placeholders."""
        return None if self.placeholders else "".join(map(str, self.parts))

    @property
    def exact(self) -> bool:
        """Whether a name can match in one way only."""
        placeholders = [n for n, part in enumerate(self.parts) if isinstance(part, Placeholder)]
        between = [self.parts[a + 1 : b] for a, b in pairwise(placeholders)]
        apart = all(any("." in str(part) for part in parts) for parts in between)
        return apart and sum(part.deep for part in self.parts if isinstance(part, Placeholder)) <= 1

    def regex(self, prefix: str) -> str:
        """Return a regular expression for the matching names; placeholder `i` is the group `{prefix}i`."""
        seen: set[str] = set()
        text = ""
        for part in self.parts:
            if not isinstance(part, Placeholder):
                text += re.escape(part)
            elif part.name in seen:
                text += f"(?P={prefix}{part.name})"
            else:
                seen.add(part.name)
                text += f"(?P<{prefix}{part.name}>{'.+?' if part.deep else '[^.]+'})"
        return text

    @cached_property
    def _format(self) -> str:
        return "".join(f"{{{part.name}}}" if isinstance(part, Placeholder) else escaped(part) for part in self.parts)

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the name with these values for the placeholders."""
        return self._format.format_map(values)


def expand(text: str) -> list[Template]:
    """Return the templates that a text stands for: several if it has choices, the last choice varying first.

    Raises ValueError if the text is empty, or if a brace is not part of a placeholder.

    >>> [str(template) for template in expand("layers.{i}.attn.{q,k}.weight")]
    ['layers.{i}.attn.q.weight', 'layers.{i}.attn.k.weight']
    """
    if not text:
        raise ValueError("a name is empty: '{*p}' stands for any name, and 'prefix.{*p} -> {*p}' removes a prefix")
    choices: list[list[str | Placeholder]] = []
    end = 0
    for found in _TOKEN.finditer(text):
        if found[4]:
            raise ValueError(
                f"{text!r}: the {found[4]!r} at character {found.start()} is not part of a placeholder such as '{{i}}', "
                f"'{{*p}}' or '{{q,k,v}}'; write a brace in a name twice"
            )
        choices += [[text[end : found.start()]], _options(found)]
        end = found.end()
    choices.append([text[end:]])
    return [Template(merged(parts)) for parts in product(*choices)]


def escaped(name: str) -> str:
    """Return the text of the template that matches only `name`."""
    return name.replace("{", "{{").replace("}", "}}")


def _options(found: re.Match[str]) -> list[str | Placeholder]:
    if found[2]:
        return [Placeholder(found[2], bool(found[1]))]
    if found[3]:
        return [option.strip() for option in found[3].split(",")]
    return [found[0][0]]


def merged(parts: Iterable[str | Placeholder]) -> tuple[str | Placeholder, ...]:
    """Join neighbouring literals."""
    found: list[str | Placeholder] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part:
            found.append(part)
    return tuple(found)
