"""The pickle machine: a stack, a memo, and a table with one handler for each opcode.

*Theory of operation.* A pickle is a program for a stack machine; only the instructions that import and call are
dangerous. Here a global is a (module, name) pair: pushing it creates an inert reference (or a known constant), and
calling it looks up our own constructor in a closed table, or creates an `Opaque`. So a pickle cannot reach anything.
What remains is cost: every length is compared with the bytes left before it is used, nothing here recurses, and
constructors that copy are charged for what they copy, because a memoised value can be reused any number of times for
three bytes each. The memory of all values is estimated from the number of opcodes, containers and memo slots, and must
be in proportion to the file.

Freeing a deeply nested value recurses in C and overflows small thread stacks (CPython 3.13.0 does not prevent it). So
every container is also kept in `made` while the pickle is read: a child before the tuple around it. At the end either
nothing is nested deeper than the limit, or all containers are emptied and released in reverse order (`_release_all`).

A handler takes the machine and the offset after its opcode, and returns the offset of the next one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from mmap import mmap
from typing import Any, NoReturn

from statedict.errors import FormatError, LimitError, TruncatedError
from statedict.state import PLAIN, Compound, Leaf, Opaque

from ..._limits import Limits
from .._values import Import, Parsed, RowMaker, StorageId, TypedStorage
from .._walk import check_depth
from ._record_syntax import Seen

Data = bytes | mmap
Handler = Callable[["Machine", int], int]
Args = tuple[Any, ...]
Constructor = Callable[["Machine", Args], Any]
OFF = object()
_CHECKED_AFTER = 100_000
WAITING = 4
# Bytes of a value, of a container in addition, and of a memo slot (CPython 3.11, 64 bits), rounded up.
_VALUE, _CONTAINER, _SLOT = 32, 64, 100
# The largest cost of one opcode: an Opaque has three containers.
_MOST = _VALUE + 3 * _CONTAINER
# Exceptions of value constructors, hashes, comparisons and NumPy for arguments that a pickler does not write.
UNMAKEABLE = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError, SystemError)


class Unfit(Exception):
    """Raised by a constructor for arguments of an unknown form: the call becomes an Opaque."""


def fit(args: Args, *kinds: type | tuple[type, ...] | frozenset[type]) -> Args:
    """Return the arguments if they are of exactly these types; raise Unfit otherwise."""
    if len(args) != len(kinds):
        raise Unfit
    for arg, kind in zip(args, kinds):
        allowed = (kind,) if isinstance(kind, type) else kind
        if type(arg) not in allowed:
            raise Unfit
    return args


@dataclass(slots=True, eq=False)
class Machine:
    """The state of one parse.

    Attributes:
        made: every container, in the order in which they were created.
        rebuild: the reference that begins a record (OFF: the fast path is disabled).
        top: the next memo slot (-1: slots are out of order).
        seen: the forms of records already read.
        budget: the bytes that calls may still copy.
        asked: how often `nested` was called.
        attributes: for each use of `getattr`, whether it was for a method or an inner class.
        attributed: whether any tensor has attributes.
        empty: NumPy arrays without their state.
        built: NumPy dtypes whose state is set, with their depth and number of fields.
        hashes: how many keys of a container have each hash.
        depths: how deep deques and defaultdicts are nested, and whether they are inside another value.
    """

    data: Data
    start: int
    limits: Limits
    paid: int
    storage: Callable[[StorageId], TypedStorage]
    rows: RowMaker | None
    persistent: Callable[[object], object] | None
    nested: Callable[[bytes], Parsed] | None
    size: int = 0
    end: int = -1
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    made: list[Any] = field(default_factory=list)
    references: dict[tuple[str, str], Any] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    rebuild: object = OFF
    top: int = 0
    seen: Seen = field(default_factory=Seen)
    budget: int = 0
    asked: int = 0
    attributes: list[bool] = field(default_factory=list)
    attributed: bool = False
    empty: dict[int, tuple[object, int, Any]] = field(default_factory=dict)
    built: dict[int, tuple[Any, int, int]] = field(default_factory=dict)
    hashes: dict[int, tuple[Any, dict[int, int]]] = field(default_factory=dict)
    depths: dict[int, tuple[Any, int, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = min(len(self.data), self.start + self.limits.pickle_bytes)
        self.budget = self.limits.copied_bytes + 4 * self.paid

    def run(self, handlers: Sequence[Handler]) -> Any:
        """Run until STOP; return the value it leaves. Errors carry the offset of the opcode that failed."""
        try:
            self.made.append(self._run(handlers))
            self._check_depth()
        except BaseException as error:
            # The frames in the traceback keep values alive too.
            _clear_frames(error)
            self._release_all()
            raise
        return self.made.pop()

    def _run(self, handlers: Sequence[Handler]) -> Any:
        data, size, at = self.data, self.size, self.start
        opcode = at
        operations, next_check, turns = 0, 0, _CHECKED_AFTER
        try:
            while at < size:
                turns = min(turns, self.limits.operations - operations)
                for _ in repeat(None, turns):
                    opcode = at
                    at = handlers[data[at]](self, at + 1)
                    if at >= size:
                        break
                else:
                    operations += turns
                    left = self._check_cost(operations)
                    if operations >= next_check:
                        self._check_depth()
                        next_check = 2 * operations
                    turns = max(_CHECKED_AFTER, min(operations, left // _MOST))
            opcode = at
            if self.end < 0:
                self.ended(at)
            if len(self.stack) != 1 or self.marks:
                raise FormatError("the pickle leaves more than one value on the stack at STOP")
        except FormatError as error:
            raise self._placed(error, opcode) from None
        except IndexError:
            if at < size - 1:
                raise self._placed(FormatError("an opcode needs more values than are on the stack"), opcode) from None
            raise self._placed(TruncatedError("the pickle ends before STOP"), opcode) from None
        except UNMAKEABLE as error:
            what = f"a value cannot be constructed: {type(error).__name__}: {error}"
            raise self._placed(FormatError(what), opcode) from None
        return self.stack.pop()

    def _check_cost(self, operations: int) -> int:
        """Raise LimitError if the values exceed the cost allowed for the file; return the bytes that they may still
        use.
        """
        if operations >= self.limits.operations:
            raise self.limits.exceeded("operations", "the number of opcodes")
        # Values that a pickler leaves outside of marks belong to an unfinished value: a callable and three arguments
        # per level.
        if not self.marks and len(self.stack) > WAITING * self.limits.depth:
            raise self.limits.exceeded("depth", f"{len(self.stack):,} values nested in unfinished values")
        cost = _VALUE * operations + _CONTAINER * len(self.made) + _SLOT * len(self.memo)
        allowed = self.limits.value_bytes + self.limits.value_ratio * self.paid
        if cost > allowed:
            raise LimitError(
                f"the values take at least {cost:,} bytes; a file of {self.paid:,} bytes may use at most {allowed:,}",
                hint="if you trust the file, raise the limit: statedict.open(path, limits=statedict.Limits(value_bytes=…))",
            )
        return allowed - cost

    def _check_depth(self) -> None:
        """Raise LimitError for values nested too deep. This takes as long as reading them, so it runs ever more rarely."""
        # Each may be nested in the one before.
        if len(self.made) > self.limits.depth:
            check_depth(self.made, self.limits.depth + 1, attributes=self.attributed)

    def _release_all(self) -> None:
        """Release all values without recursion, however deep they are."""
        made = self.made
        for holder in (
            self.stack,
            self.marks,
            self.memo,
            self.references,
            self.hashes,
            self.depths,
            self.empty,
            self.built,
        ):
            holder.clear()
        # A local variable must not keep a container, and so its contents, alive.
        for number in range(len(made)):
            _EMPTIED.get(type(made[number]), id)(made[number])
        while made:
            made.pop()

    def popped(self) -> list[Any]:
        """Pop the values since the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def take(self, at: int, count: int) -> bytes:
        """Return the `count` bytes at `at`; raise TruncatedError if they do not exist."""
        if count > self.size - at:
            self.ended(at, count)
        return self.data[at : at + count]

    def line(self, at: int, limit: int) -> tuple[bytes, int]:
        """Return the text up to the newline, and the offset after it."""
        stop = self.data.find(b"\n", at, min(self.size, at + limit + 1))
        if stop < 0:
            if self.size - at <= limit:
                self.ended(at, self.size - at + 1)
            raise FormatError(f"a line of text is longer than the limit of {limit:,} bytes")
        return self.data[at:stop], stop + 1

    def ended(self, at: int, count: int = 1) -> NoReturn:
        if at + count > len(self.data):
            left = max(len(self.data) - at, 0)
            raise TruncatedError(f"the pickle is truncated: expected at least {count:,} more bytes, found {left:,}")
        raise self.limits.exceeded("pickle_bytes", f"a pickle of more than {self.size - self.start:,} bytes")

    def charge(self, nbytes: int) -> None:
        """Account for `nbytes` copied from values that can be reused."""
        self.budget -= nbytes
        if self.budget < 0:
            raise self.limits.exceeded("copied_bytes", "memory used by the calls in the pickle")

    def _placed(self, error: FormatError, opcode: int) -> FormatError:
        if error.offset is None:
            error.offset = opcode
        named = [each.path for each in self.imports if each.risk == "dangerous"]
        if named and error.hint is None:
            error.hint = f"it also names imports that would run code if unpickled: {', '.join(named[:5])}"
        return error


def _clear_frames(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _empty_mapping(value: Any) -> None:
    value.clear()
    vars(value).clear()


def _empty_opaque(value: Opaque) -> None:
    value.args, value.kwargs, value.state, value.items = None, {}, None, []


def _empty_tensor(value: Leaf | Compound) -> None:
    value.traits = PLAIN


_EMPTIED: dict[type, Callable[[Any], object]] = {
    list: list.clear,
    dict: dict.clear,
    deque: deque.clear,
    defaultdict: defaultdict.clear,
    OrderedDict: _empty_mapping,
    Counter: _empty_mapping,
    Opaque: _empty_opaque,
    Leaf: _empty_tensor,
    Compound: _empty_tensor,
}
