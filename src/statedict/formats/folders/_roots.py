"""Join the checkpoints of several files into one, whose roots are the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from statedict.files import Folder

from ...errors import FormatError, LimitError
from .._limits import Limits
from .._pickle import Import
from .._table import read, read_folder
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..storages._describe import step_of

MODEL = "model"

# The name of a file or folder, or a function that opens its checkpoint.
Member = str | Callable[[], Checkpoint]


def opened(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    """Open the checkpoint in a file of a folder, or in a folder of it."""
    return read_folder(folder.folder(name), limits) if name in folder.folders else read(folder.file(name), limits)


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
    found: dict[str, Checkpoint] = {}
    failed: dict[str, FormatError | OSError] = {}
    for root, member in members.items():
        try:
            checkpoint = opened(folder, member, limits) if isinstance(member, str) else member()
            if not root and not isinstance(checkpoint.object, dict):
                raise FormatError("it should contain a dict", file=checkpoint.path)
            # Those of a distributed checkpoint are not known yet, and checked when the whole is used.
            if checkpoint._more_globals is None:
                checkpoint.require_safe()
            found[root] = checkpoint
        except LimitError:
            raise
        except (FormatError, OSError) as error:
            failed[root] = error
            if isinstance(member, str) and isinstance(error, FormatError):
                error.located(file=folder.path_of(member))
    if failed and not found:
        raise next(iter(failed.values()))
    model = found.get(MODEL) or found.get("")
    return Checkpoint(
        folder.path,
        format,
        _joined(values or {}, found),
        size=sum(checkpoint.size for checkpoint in found.values()),
        producer=producer
        or ", ".join(dict.fromkeys(each.producer for each in found.values() if each.producer != "unknown")),
        more_globals=partial(_globals, found.values()),
        notes=[*notes, *_notes(found)],
        metadata={**(model.metadata if model else {}), **(metadata or {})},
        checks=lambda: chain(checks(), _problems(failed), _checks(found)),
        unopened=failed,
        joined=True,
    )


def _joined(values: Mapping[str, Any], members: Mapping[str, Checkpoint]) -> dict[str, Any]:
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


def read_beside(
    folder: Folder, format: str, tensors: Callable[[], Checkpoint], file: str, limits: Limits, **described: Any
) -> Checkpoint:
    """Open the Checkpoint of `tensors` and of the file with the other values beside it, whose trees are joined.

    `described` are further arguments of `read_roots`. Of two values at one place, that of `tensors` is used; a note says so.
    Raises the error of `tensors` if they cannot be opened.
    """
    whole = tensors()
    checkpoint = read_roots(folder, format, {"": lambda: whole, file: file}, limits, **described)
    others = checkpoint.object.pop(file, {})
    twice = _add(checkpoint.object, others) if isinstance(others, dict) else ["its content, which is not a dict,"]
    checkpoint.notes += [f"{file}: {path} was not used: there is a value of this name beside it" for path in twice]
    return checkpoint


def _add(tree: dict[Any, Any], others: Mapping[Any, Any], path: str = "") -> list[str]:
    """Add entries to a tree, also to the dicts in it; return the paths of those that it has already."""
    twice: list[str] = []
    for key, value in others.items():
        place = f"{path}/{step_of(key)}" if path else step_of(key)
        if key not in tree:
            tree[key] = value
        elif isinstance(tree[key], dict) and isinstance(value, dict):
            twice += _add(tree[key], value, place)
        else:
            twice.append(place)
    return twice


def _globals(members: Iterable[Checkpoint]) -> Iterator[Import]:
    for member in members:
        yield from member.globals


def _notes(members: Mapping[str, Checkpoint]) -> Iterator[str]:
    """Return the notes of all members; one that several have is given once."""
    by_text: dict[str, list[str]] = {}
    for root, member in members.items():
        for note in member.notes:
            by_text.setdefault(note, []).append(root)
    for text, roots in by_text.items():
        yield text if "" in roots else f"{', '.join(roots)}: {text}"


def _problems(failed: Mapping[str, FormatError | OSError]) -> Iterator[Finding]:
    for root, error in failed.items():
        yield Finding.of(root, error)


def _checks(members: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    for root, member in members.items():
        try:
            for finding in member._checks():
                yield finding._replace(where="/".join(filter(None, (root, finding.where))))
        except (FormatError, OSError) as error:
            yield Finding.of(root, error)
