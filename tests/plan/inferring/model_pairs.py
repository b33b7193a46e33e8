"""The pairs of models in `pairs/`: the names and shapes of two implementations, and the rules that convert one to the other.

A file has three parts, `# source`, `# target` and `# truth`, after lines that say where it comes from. Names are written as
a tree; a number range such as `0-2` stands for equal modules. The truth is a KeyMap.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from statedict import StateDict
from statedict.plan import KeyMap

FOLDER = Path(__file__).parent / "pairs"
Shapes = dict[str, tuple[int, ...]]


class ModelPair(NamedTuple):
    """Two implementations of one model."""

    name: str
    source: Shapes
    target: Shapes
    truth: KeyMap


def read(path: Path) -> ModelPair:
    """Read the pair in a file."""
    _, source, target, truth = path.read_text().split("# ")[-4:]
    trees = (_tree(text.splitlines()[1:]) for text in (source, target))
    return ModelPair(path.stem, *trees, KeyMap(truth.partition("\n")[2]))


def _tree(lines: list[str]) -> Shapes:
    """Return the names and shapes below a list of lines with equal indentation."""
    shapes: Shapes = {}
    number = 0
    while number < len(lines):
        line, below = lines[number].strip(), []
        depth = len(lines[number]) - len(lines[number].lstrip())
        number += 1
        while number < len(lines) and lines[number].startswith(" " * (depth + 1)):
            below.append(lines[number])
            number += 1
        name, *sizes = line.split()
        inside = _tree(below) if below else {"": tuple(map(int, sizes))}
        for one in _expanded(name):
            shapes |= {f"{one}.{rest}" if rest else one: shape for rest, shape in inside.items()}
    return shapes


def _expanded(name: str) -> list[str]:
    first, _, last = name.partition("-")
    return [str(n) for n in range(int(first), int(last) + 1)] if first.isdecimal() and last.isdecimal() else [name]


def written(shapes: Shapes, depth: int = 0) -> list[str]:
    """Return the lines of a tree; `read` is the inverse."""
    groups: dict[str, Shapes] = {}
    last = None
    for name, shape in shapes.items():
        head, _, rest = name.partition(".")
        if head in groups and head != last:
            raise ValueError(f"the names below {head!r} are not together")
        groups.setdefault(head, {})[rest] = shape
        last = head
    lines: list[str] = []
    heads = list(groups)
    while heads:
        head = heads.pop(0)
        label = head
        while heads and heads[0].isdecimal() and head.isdecimal() and groups[heads[0]] == groups[head]:
            label = f"{head}-{heads.pop(0)}"
        below = groups[head]
        if list(below) == [""]:
            lines.append(" ".join([" " * depth + label, *map(str, below[""])]))
        else:
            lines += [" " * depth + label, *written(below, depth + 1)]
    return lines


def converted(rules: KeyMap, source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the rules make of a source; rules for tensors that it does not have are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rules.rename(StateDict(source)).numpy()


def filled(shapes: Shapes) -> dict[str, np.ndarray]:
    """Return tensors of these shapes in which no two elements are equal."""
    start = 0
    made = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        made[name] = np.arange(start, start + size, dtype="f8").reshape(shape)
        start += size
    return made
