"""Open a file, good or damaged, and read all tensors in it: what happened, as a value."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from statedict.errors import FormatError, PartError, RootError
from statedict.formats import Checkpoint
from statedict.state import Absent, Compound, Leaf, read_array

from .._law import HangError, no_hang

Result = TypeVar("Result")


class ReadAttempt(NamedTuple):
    """The result of opening and reading a file.

    Attributes:
        error: what opening raised, or None.
        found: for each name the array, or what reading it raised.
        beyond: names of tensors that do not lie within their storage.
        notes: those of the checkpoint, and its unopened parts.
    """

    error: BaseException | None
    found: Mapping[str, Any]
    beyond: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> Iterator[BaseException]:
        """Every exception that was raised."""
        if self.error is not None:
            yield self.error
        yield from (value for value in self.found.values() if isinstance(value, BaseException))

    def noted(self, file: str) -> bool:
        """Return whether a note names a file."""
        return any(file in note for note in self.notes)


def attempt(
    open: Callable[[], Checkpoint], tensors: Callable[[Checkpoint], Mapping[str, Leaf | Compound]]
) -> ReadAttempt:
    """Open a checkpoint, read its tensors one by one, close it."""
    notes: tuple[str, ...] = ()
    try:
        with no_hang(), open() as checkpoint:
            notes = (*checkpoint.notes, *(f"{root}: {error}" for root, error in checkpoint.unopened.items()))
            leaves = tensors(checkpoint)
            beyond = tuple(name for name, tensor in leaves.items() if not all(map(lies_within, parts_of(tensor))))
            return ReadAttempt(None, read_each(leaves), beyond, notes)
    except RootError:
        return ReadAttempt(None, {}, (), notes)  # the file has no state dict any more
    except (Exception, HangError) as error:  # noqa: BLE001  # the suites judge it
        return ReadAttempt(error, {})


def parts_of(tensor: Leaf | Compound) -> Iterable[Leaf]:
    """Return a leaf itself, or the leaves of a compound."""
    return [tensor] if isinstance(tensor, Leaf) else list(tensor.parts.values())


def lies_within(leaf: Leaf) -> bool:
    """Return whether every element of a leaf lies within its storage. (An absent one has none.)"""
    if isinstance(leaf, Absent):
        return True
    spec = leaf.spec
    inside = spec.reach * spec.dtype.itemsize <= leaf.storage.nbytes
    return inside and min((spec.offset, *spec.shape, *spec.strides)) >= 0


def names_file(error: BaseException, names: Iterable[str]) -> bool:
    """Return whether an error is a FormatError, or one for a part that is not there, and names one of these files."""
    return isinstance(error, (FormatError, PartError)) and any(name in str(error) for name in names)


@contextmanager
def traced() -> Iterator[None]:
    """Trace allocations in this block, for `peak_of`."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def peak_of(act: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of `act`, and the most bytes that Python and NumPy had allocated for it at a time."""
    with traced():
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = act()
        return result, tracemalloc.get_traced_memory()[1] - before


def read_each(tensors: Mapping[str, Leaf | Compound]) -> dict[str, Any]:
    """Return for each tensor its array, or what reading it raised."""
    return {name: _read(tensor) for name, tensor in tensors.items()}


def _read(tensor: Leaf | Compound) -> Any:
    try:
        arrays = [read_array(leaf) for leaf in parts_of(tensor)]
    except (Exception, HangError) as error:  # noqa: BLE001
        return error
    return arrays[0] if isinstance(tensor, Leaf) else arrays
