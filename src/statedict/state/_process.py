"""This process: whether it has enough memory for a backup of a model, and pauses of its garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from .mapping._short import few

# Always assumed to be available: less than Python needs to start.
FLOOR = 8 << 20
MEMORY, LIMITS, STATUS = "/proc/meminfo", "/proc/self/limits", "/proc/self/status"
GROUP, GROUPS = "/proc/self/cgroup", "/sys/fs/cgroup"
UNLIMITED = 1 << 60
# The number of tensor names in a message.
SHOWN = 20
# The limits of a process (`ulimit -v`, `ulimit -d`), and what it uses of each.
OWN = (("Max address space", "VmSize:"), ("Max data size", "VmData:"))
# The files of a control group: its limit, its usage, and the cached part of that, which the kernel can reclaim.
VERSIONS = (
    (GROUPS, "memory.max", "memory.current", "inactive_file"),
    (f"{GROUPS}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def have_room(nbytes: int) -> bool:
    """Whether `nbytes` bytes are at most half of the memory that is available without swapping.

    >>> have_room(1 << 20), have_room(1 << 60)
    (True, False)
    """
    return nbytes <= FLOOR or 2 * nbytes <= min(_available(), default=0)


def not_put_back(changed: Sequence[str]) -> str:
    """Return the note on an error that lists the tensors of a model that have changed."""
    have = "has" if len(changed) == 1 else "have"
    return (
        f"There is no backup of the model, and {len(changed):,} of its tensors {have} changed ({few(changed, SHOWN)}). "
        "All others are unchanged."
    )


def _available() -> Iterator[int]:
    """Return the memory that each limit leaves; limits that the system does not report are left out."""
    yield from _left_by_system()
    for limit, used in OWN:
        # Without a limit, the file has the word `unlimited`.
        for most in _numbers(LIMITS, limit):
            yield from (most - 1024 * number for number in _numbers(STATUS, used))
    groups = {line.rpartition(":")[2].strip("/") for line in _lines(GROUP)}
    for root, limit, used, cached in VERSIONS:
        for folder in {folder for group in groups for folder in _up(root, group)}:
            for most in _numbers(f"{folder}/{limit}"):
                # Without a limit, the file has a huge number, or a word. The other files are slow to read.
                if most < UNLIMITED:
                    yield most - sum(_numbers(f"{folder}/{used}")) + sum(_numbers(f"{folder}/memory.stat", cached))


def _left_by_system() -> list[int]:
    """Return the memory that the system can give without swapping; an empty list if that is not known."""
    if found := _numbers(MEMORY, "MemAvailable:"):
        return [1024 * number for number in found]
    try:
        import psutil

        return [psutil.virtual_memory().available]
    except (ImportError, OSError, RuntimeError):
        return []


def _up(root: str, group: str) -> list[str]:
    """Return the folder of a control group and its parents, up to the root."""
    steps = group.split("/") if group else []
    return ["/".join([str(root), *steps[:count]]) for count in range(len(steps), -1, -1)]


def _numbers(file: str, name: str = "") -> list[int]:
    """Return the number that follows `name` at the start of a line, for each such line of a file."""
    words = [line.removeprefix(name).split()[:1] for line in _lines(file) if line.startswith(name)]
    return [int(word) for found in words for word in found if word.isdecimal()]


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read().splitlines()
    except OSError:
        return []


P = ParamSpec("P")
R = TypeVar("R")

# With fewer new objects, the first collection after the pause is fast enough.
_MANY = 10_000


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection, unless it is already disabled."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _resume()


def without_collector(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it runs with garbage collection paused; faster than the context manager as a decorator."""

    @wraps(function)
    def paused(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            _resume()

    return paused


def _resume() -> None:
    # Freezing and unfreezing moves the new objects to the oldest generation without traversing them, so that the next
    # collection is fast. It is not done if the program has frozen objects itself, because it would unfreeze them.
    if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
    gc.enable()
