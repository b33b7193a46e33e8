"""Join the checkpoints of several files into one, whose roots are the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..storages._describe import step_of
from ._opened import OpenCheckpoints, opened

MODEL = "model"

# The name of a file or folder, or a function that opens its checkpoint.
Member = str | Callable[[], Checkpoint]


def numbered(root: str, number: str | None, *, keep_zero: bool = False) -> str:
    """Return the root of one of several objects of a kind. The first one, number 0, has the name without a number.

    >>> numbered("optimizer", None), numbered("optimizer", "0"), numbered("optimizer", "1")
    ('optimizer', 'optimizer', 'optimizer_1')
    """
    return root if number is None or (int(number) == 0 and not keep_zero) else f"{root}_{int(number)}"


def read_roots(
    folder: Folder,
    format: str,
    members: Mapping[str, Member],
    limits: Limits,
    *,
    values: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    producer: str = "",
    metadata: Mapping[str, str] | None = None,
    checks: Callable[[], Iterable[Finding]] = tuple,
) -> Checkpoint:
    """Open the Checkpoint whose tree has one entry for each member, with the content of that file or folder.

    `members`: root → the name of a file or folder in `folder`, or a function that opens it. A root `"rng/0"` is an entry
    in `"rng"`; the entries of the root `""` are beside the other roots, as `values` are. A member that cannot be opened, or
    whose pickle would run code, is left out; `verify` and an error about its root say why. Raises the error of the first
    one if none can be opened.
    """
    every = OpenCheckpoints()
    for root, member in members.items():
        every.add(root, partial(_member, folder, root, member, limits))
    every.require_one()
    found = every.checkpoints
    model = found.get(MODEL) or found.get("")
    return Checkpoint(
        folder.path,
        format,
        _tree_of(values or {}, found),
        size=sum(checkpoint.size for checkpoint in found.values()),
        producer=producer
        or ", ".join(dict.fromkeys(each.producer for each in found.values() if each.producer != "unknown")),
        more_globals=every.globals,
        notes=[*notes, *_notes(found)],
        metadata={**(model.metadata if model else {}), **(metadata or {})},
        checks=lambda: chain(checks(), every.checks()),
        unopened=every.failed,
        joined=True,
    )


def _member(folder: Folder, root: str, member: Member, limits: Limits) -> Checkpoint:
    """Open one member; raise FormatError if its pickle would run code, or if it has entries but is not a dict."""
    try:
        checkpoint = opened(folder, member, limits) if isinstance(member, str) else member()
        if not root and not isinstance(checkpoint.object, dict):
            raise FormatError("it should contain a dict", file=checkpoint.path)
        # The imports of a distributed checkpoint are not known yet; they are checked when the whole is used.
        if checkpoint._more_globals is None:
            checkpoint.require_safe()
        return checkpoint
    except FormatError as error:
        if isinstance(member, str):
            error.located(file=folder.path_of(member))
        raise


def _tree_of(values: Mapping[str, Any], members: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """Return the tree of all members, and values beside them."""
    tree = dict(values)
    if "" in members and isinstance(members[""].object, dict):
        tree |= members[""].object
    own = {id(tree): tree}
    for root, checkpoint in members.items():
        *above, last = root.split("/")
        place = tree
        for step in above:
            if id(place.get(step)) not in own:
                made = place[step] = _entries(place.get(step))
                own[id(made)] = made
            place = place[step]
        if root:
            place[last] = checkpoint.object
    return tree


def _entries(value: Any) -> dict[str, Any]:
    """Return a copy of a container, to which other entries can be added; a list becomes a dict by position."""
    if isinstance(value, dict):
        return dict(value)
    return {str(index): part for index, part in enumerate(value)} if isinstance(value, (list, tuple)) else {}


def read_with_values(
    folder: Folder, format: str, tensors: Callable[[], Checkpoint], file: str, limits: Limits, **described: Any
) -> Checkpoint:
    """Open the Checkpoint of `tensors` and of the file with the values that are not tensors; their trees are merged.

    `described` are further arguments of `read_roots`. If both have a value at the same path, that of `tensors` is used, and
    a note says so. Raises the error of `tensors` if they cannot be opened.
    """
    whole = tensors()
    checkpoint = read_roots(folder, format, {"": lambda: whole, file: file}, limits, **described)
    others = checkpoint.object.pop(file, {})
    twice = _merge(checkpoint.object, others) if isinstance(others, dict) else ["its content, which is not a dict,"]
    checkpoint.notes += [f"{file}: {path} was not used: the tensors have a value of the same name" for path in twice]
    return checkpoint


def _merge(tree: dict[Any, Any], others: Mapping[Any, Any], path: str = "") -> list[str]:
    """Add entries to a tree, also to the dicts in it; return the paths of those that it has already."""
    twice: list[str] = []
    for key, value in others.items():
        place = f"{path}/{step_of(key)}" if path else step_of(key)
        if key not in tree:
            tree[key] = value
        elif isinstance(tree[key], dict) and isinstance(value, dict):
            twice += _merge(tree[key], value, place)
        else:
            twice.append(place)
    return twice


def _notes(members: Mapping[str, Checkpoint]) -> Iterator[str]:
    """Return the notes of all members; one that several have is given once."""
    by_text: dict[str, list[str]] = {}
    for root, member in members.items():
        for note in member.notes:
            by_text.setdefault(note, []).append(root)
    for text, roots in by_text.items():
        yield text if "" in roots else f"{', '.join(roots)}: {text}"
