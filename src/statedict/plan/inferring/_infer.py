"""Infer the KeyMap for a model whose names differ from those of the source, from names and shapes only.

First, names that are equal with or without wrappers are matched, and then the rest, by `_modules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import sub
from typing import Any

from statedict.errors import CollisionError
from statedict.state import raw_values

from ..names._parts import WeightPart, notes_on_parts, parts_of
from ..names._wrappers import bare, pair
from ..operations._specs import shape_of
from ..tensors._fit import fits
from ._consistent import Shapes
from ._doubts import doubted
from ._inference import Inference, Inferred
from ._modules import Matched, Matcher
from ._nodes import Entries, Numbers, TensorBelow, inventory, numbers, pattern
from ._operations import operation
from ._reasons import CONTRARY, NOT_TURNED, OTHER_SHAPE, SAME_NAME, TURNED, UNMERGED, UNWRAPPED, Reason
from ._rules import Converted, key_map
from ._square import squares

Parts = Mapping[str, WeightPart]
# Names of the source, and of the model.
Left = tuple[list[str], list[str]]


def infer(target: Mapping[str, Any], source: Mapping[str, Any]) -> Inference:
    """Infer the KeyMap that renames the tensors of `source` to those of `target`. Reads no tensor and changes nothing.

    >>> old = {f"h.{i}.{n}": np.zeros(s) for i in range(2) for n, s in [("ln.weight", 3), ("fc.weight", (4, 3))]}
    >>> new = {f"blocks.{i}.{n}": np.zeros(s) for i in range(2) for n, s in [("norm.weight", 3), ("fc.weight", (4, 3))]}
    >>> print(infer(new, old).key_map)
    h.{i}.ln.{*p} -> blocks.{i}.norm.{*p}
    h.{*p} -> blocks.{*p}
    """
    shapes, wanted = ({name: shape_of(value) for name, value in raw_values(side).items()} for side in (source, target))
    sides, parts = (shapes, wanted), (parts_of(list(shapes)), parts_of(list(wanted)))
    matches, own = _same_names(shapes, wanted)
    others = _left([name for name in shapes if name not in own], [name for name in wanted if name not in own], matches)
    matches += _by_contents(others, sides, parts)
    unmerged = {
        m.sources[0]: m.targets[0] for m in matches if m.sources[0] in parts[0] and m.targets[0] not in parts[1]
    }
    matches = [m._replace(reason=UNMERGED) if m.sources[0] in unmerged else m for m in matches]
    matches = _own_names(matches, shapes, wanted)
    unmatched, unfilled = left = _left(*others, matches)
    place = {name: number for number, name in enumerate(shapes)}
    matches.sort(key=lambda match: place[match.sources[0]])
    matches = doubted(_squares(matches, shapes, _has_turned(left, sides)), sides, left)
    rules = key_map([Converted(*match[:3]) for match in matches], unmatched, wanted)
    in_parts = unmerged.keys() | unmatched
    notes = notes_on_parts([*unfilled, *unmerged.values()], [name for name in shapes if name in in_parts], *parts)
    return Inference(rules, tuple(_steps(matches)), tuple(unmatched), tuple(unfilled), tuple(notes))


def _left(sources: Iterable[str], targets: Iterable[str], matches: Iterable[Matched]) -> Left:
    """Return the names of both sides that are in no match."""
    used = {name for match in matches for name in match.sources}, {name for match in matches for name in match.targets}
    return [name for name in sources if name not in used[0]], [name for name in targets if name not in used[1]]


def _by_contents(names: Left, sides: tuple[Shapes, Shapes], parts: tuple[Parts, Parts]) -> Iterator[Matched]:
    """Match tensors by the contents of their modules; a part of a weight never matches a whole weight."""
    for is_part in (False, True):
        theirs, ours = (
            _entries((name for name in some if _is_part(known, name) is is_part), side)
            for some, side, known in zip(names, sides, parts)
        )
        yield from Matcher(_convention(theirs, ours))(theirs, ours)


def _has_turned(left: Left, sides: tuple[Shapes, Shapes]) -> bool:
    """Whether a remaining matrix of the source has the shape of a remaining one of the model, transposed."""
    found, wanting = (inventory(_entries(names, side)) for names, side in zip(left, sides))
    return any(shape[::-1] in wanting for shape in found)


def _same_names(shapes: Shapes, wanted: Shapes) -> tuple[list[Matched], frozenset[str]]:
    """Match equal names, with or without wrappers; return the names that belong to wrappers, too."""
    try:
        pairs, _, own = pair(shapes, wanted)
    except CollisionError:  # not an error in a proposal: the load itself raises it
        pairs, _, own = pair(shapes, wanted, wrappers=False)
    shifted = _shifted(shapes, wanted)
    equal = ((old, new) for old, new in pairs.items() if pattern(bare(new)) not in shifted)
    return [Matched((old,), (new,), *_as_it_is(old, new, shapes, wanted)) for old, new in equal], own


def _own_names(matches: list[Matched], shapes: Shapes, wanted: Shapes) -> list[Matched]:
    """Match tensors that keep their names with the model's tensors of these names, instead of matches to other names."""
    left = shapes.keys() - {name for match in matches for name in match.sources}
    while clash := [match for match in matches if not left.isdisjoint(match.targets)]:
        matches = [match for match in matches if left.isdisjoint(match.targets)]
        own = [name for match in clash for name in match.targets if name in left]
        matches += [Matched((name,), (name,), _as_it_is(name, name, shapes, wanted)[0], CONTRARY) for name in own]
        left = shapes.keys() - {name for match in matches for name in match.sources}
    return matches


def _shifted(shapes: Shapes, wanted: Shapes) -> set[str]:
    """Return the patterns of names whose numbers begin elsewhere on the other side, such as layers 1 to 12 and 0 to 11.

    Equal names among them are not the same tensor.
    """
    families: dict[str, tuple[set[Numbers], set[Numbers]]] = {}
    for side, names in enumerate((shapes, wanted)):
        for name in map(bare, names):
            families.setdefault(pattern(name), (set(), set()))[side].add(numbers(name))
    return {
        family
        for family, (ours, theirs) in families.items()
        if ours != theirs
        and len(ours) == len(theirs)
        and len({tuple(map(sub, *both)) for both in zip(sorted(ours), sorted(theirs))}) == 1
    }


def _as_it_is(old: str, new: str, shapes: Shapes, wanted: Shapes) -> tuple[str, Reason]:
    found, expected = shapes[old], wanted[new]
    reason = SAME_NAME if old == new else UNWRAPPED
    if found is None or expected is None or fits(found, expected):
        return "", reason
    how, exact = operation(found, expected)
    return (how, reason) if exact else ("", OTHER_SHAPE)


def _is_part(parts: Parts, name: str) -> bool:
    """Whether a tensor is a part of a weight, other than the weight that LoRA adapts."""
    return name in parts and not parts[name].base


def _entries(names: Iterable[str], shapes: Shapes) -> Entries:
    """Return the tensors whose shape is known; a name with an empty part (`a..b`) is not a path through modules."""
    paths = (name for name in names if "" not in name.split("."))
    return tuple(TensorBelow(name, shape) for name in paths if (shape := shapes[name]) is not None)


def _convention(source: Entries, target: Entries) -> bool | None:
    """Whether matrices are transposed, by the shapes that only one side has; None if these do not show it."""
    ours, theirs = inventory(source), inventory(target)
    turned = [shape for shape in ours if ours[shape] != theirs[shape]]
    if not turned:
        return None if all(ours[shape] == ours[shape[::-1]] for shape in ours) else False
    return True if any(not theirs[shape] and ours[shape] == theirs[shape[::-1]] for shape in turned) else None


def _squares(matches: list[Matched], shapes: Shapes, any_turned: bool) -> list[Matched]:
    """Transpose the square matrices that are likely to be stored so; none of them is certain."""
    for number, turned in squares([Converted(*match[:3]) for match in matches], shapes, any_turned).items():
        how, reason = ("transpose", TURNED) if turned else ("", NOT_TURNED)
        matches[number] = matches[number]._replace(operations=how, reason=reason)
    return matches


def _steps(matches: Iterable[Matched]) -> Iterable[Inferred]:
    for sources, targets, operations, reason in matches:
        for old in sources:
            for new in targets:
                yield Inferred(old, new, reason.text, reason.certain, operations, reason.decides)
