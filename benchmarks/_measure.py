"""Measure time and memory of several ways to do the same thing, interleaved so that other load affects all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

Action = Callable[[], object]


class Loaded(NamedTuple):
    """New tensors that an action returns, and their bytes, which are not counted as additional memory."""

    values: object
    nbytes: int


class Figure(NamedTuple):
    """The measurements of one way.

    Attributes:
        seconds: the median elapsed time.
        cpu: the median processor time of all threads of this process, which matters on a busy machine.
        extra: the peak of additional memory in bytes, beyond the tensors that are returned.
        rounds: the number of measurements.
    """

    seconds: float
    cpu: float
    extra: int
    rounds: int


def measure(ways: Mapping[str, Action], rounds: int, seconds: float) -> dict[str, Figure]:
    """Return each way's Figure. All run once to warm up, then in turn, `rounds` times or until `seconds` have passed.

    Each round begins with a different way. A virtual machine returns memory that was unused for a while to its host, and the
    first to request it again has to wait: for a gigabyte, ten times as long as the work itself takes.
    """
    gc.collect()
    extra = {name: extra_memory(act) for name, act in ways.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    began = perf_counter()
    for number in range(rounds):
        if number and perf_counter() - began > seconds:
            break
        first = number % len(ways)
        for name in [*ways][first:] + [*ways][:first]:
            times[name].append(_time(ways[name]))
    return {name: _figure(times[name], extra[name]) for name in ways}


def _figure(times: Sequence[tuple[float, float]], extra: int) -> Figure:
    return Figure(median(wall for wall, _ in times), median(cpu for _, cpu in times), extra, len(times))


def _time(act: Action) -> tuple[float, float]:
    start, used = perf_counter(), process_time()
    result = act()
    used, elapsed = process_time() - used, perf_counter() - start
    del result
    return elapsed, used


def extra_memory(act: Action) -> int:
    """Return the additional resident memory at the peak of `act`, beyond the tensors that it returns; 0 if the system does
    not report it.
    """
    try:
        # Linux: 5 resets the peak to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        act()
        return 0
    before = _resident("VmRSS")
    result = act()
    peak = _resident("VmHWM") - (result.nbytes if isinstance(result, Loaded) else 0)
    del result
    return max(0, peak - before)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
