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
    in `"rng"`; the entries of the root `""` are put beside the other roots. `values` are put beside them too. A member that
    cannot be opened, or whose pickle would run code, is left out; `verify` and an error about its root say why. Raises the
    error of the first one if none can be opened.
    """
    found: dict[str, Checkpoint] = {}
    failed: dict[str, FormatError | OSError] = {}
    for root, member in members.items():
        try:
            checkpoint = opened(folder, member, limits) if isinstance(member, str) else member()
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
    tree: dict[str, Any] = dict(values or {})
    for root, checkpoint in found.items():
        _put(tree, root, checkpoint.object)
    model = found.get(MODEL) or found.get("")
    return Checkpoint(
        folder.path,
        format,
        tree,
        size=sum(checkpoint.size for checkpoint in found.values()),
        producer=producer
        or ", ".join(dict.fromkeys(each.producer for each in found.values() if each.producer != "unknown")),
        more_globals=partial(_globals, found.values()),
        notes=[*notes, *_notes(found)],
        metadata={**(model.metadata if model else {}), **(metadata or {})},
        checks=lambda: chain(checks(), _problems(failed), _checks(found)),
        unopened=failed,
    )


def _put(tree: dict[str, Any], root: str, value: Any) -> None:
    if not root:
        return tree.update(value)
    *above, last = root.split("/")
    for step in above:
        tree = tree.setdefault(step, {})
    tree[last] = value


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
        yield f"{', '.join(roots)}: {text}" if any(roots) else text


def _problems(failed: Mapping[str, FormatError | OSError]) -> Iterator[Finding]:
    for root, error in failed.items():
        yield Finding("error", root, f"cannot be read: {error}")


def _checks(members: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    for root, member in members.items():
        for finding in member._checks():
            where = "/".join(filter(None, (root, finding.where)))
            yield finding._replace(where=where)
