"""Whether there is memory for a backup of what is about to be overwritten: what the system has, within the limits of this
process's control groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Always taken to be there: less than starting Python takes.
FLOOR = 8 << 20
MEMORY, GROUP, GROUPS = "/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"
UNLIMITED = 1 << 60
# Names of tensors in a message.
SHOWN = 20
# The files of a control group: its limit, what it uses, and the cached part of that, which is given up when needed.
VERSIONS = (
    (GROUPS, "memory.max", "memory.current", "inactive_file"),
    (f"{GROUPS}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def have_room(nbytes: int) -> bool:
    """Whether `nbytes` bytes more are at most half of the memory that is available without swapping.

    >>> have_room(1 << 20), have_room(1 << 60)
    (True, False)
    """
    return nbytes <= FLOOR or 2 * nbytes <= min(_available(), default=0)


def not_put_back(changed: Sequence[str]) -> str:
    """The note on an error that says which tensors of a model have other elements than before."""
    shown = ", ".join(changed[:SHOWN])
    more = f" and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
    return (
        "Not all could be put back, as there was no backup of the whole model: "
        f"{len(changed):,} of its tensors have other elements now ({shown}{more}). All others are as they were."
    )


def _available() -> Iterator[int]:
    """What each of the limits leaves; nothing for those that the system does not tell."""
    yield from (1024 * number for number in _numbers(MEMORY, "MemAvailable:"))
    groups = {line.rpartition(":")[2].strip("/") for line in _lines(GROUP)}
    for root, limit, used, cached in VERSIONS:
        for folder in {folder for group in groups for folder in _up(root, group)}:
            for most in _numbers(f"{folder}/{limit}"):
                # Without a limit the number is enormous, or a word. The files are slow to read.
                if most < UNLIMITED:
                    yield most - sum(_numbers(f"{folder}/{used}")) + sum(_numbers(f"{folder}/memory.stat", cached))


def _up(root: str, group: str) -> list[str]:
    """The folder of a control group and those around it, up to the root."""
    steps = group.split("/") if group else []
    return ["/".join([str(root), *steps[:count]]) for count in range(len(steps), -1, -1)]


def _numbers(file: str, name: str = "") -> list[int]:
    """The numbers in a file after a name, one a line; without a name, those that are all of a line."""
    words = [line.removeprefix(name).split()[:1] for line in _lines(file) if line.startswith(name)]
    return [int(word) for found in words for word in found if word.isdecimal()]


def _lines(file: str) -> list[str]:
    try:
        with open(file) as opened:
            return opened.read().splitlines()
    except OSError:
        return []
