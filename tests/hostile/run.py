"""Reads the cases of one group in this process, and says of each what happened: one JSON object a line.

    python -m tests.hostile.run bounds FOLDER [first case]

A process of its own, because it watches itself: an audit hook sees every import, call of the system and opened file; the
reading thread has a stack of 512 KiB, and the process 4 GiB of addresses; a case that hangs ends it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.cost import yardstick

from statedict import formats, load, plugins
from statedict.errors import ChecksumError, FormatError, UnsafeFileError
from statedict.formats import _entry_points
from statedict.testing.format_laws._watch import the_watch

from .build import pickles
from .cases._case import Case
from .cases.table import GROUPS
from .reading import is_clean_error, read_all

STACK = 512 << 10
ADDRESSES = 4 << 30
HANGS = 20  # seconds of processor time: the machine may be busy


def observed(case: Case, folder: Path, unit: float) -> dict[str, Any]:
    """Reads the case's file and tells how it went."""
    folder.mkdir()
    path = case.make(folder)
    size = sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    told: dict[str, Any] = {"name": case.name, "size": size}
    before, started = _peak(reset=True), time.process_time()
    reader = threading.Thread(target=lambda: told.update(_read(case, path)))
    reader.start()
    reader.join()
    told["cost"] = (time.process_time() - started) / unit
    told["memory"] = _peak() - before
    told["ran"] = os.path.exists(pickles.TRACE)
    return told


def _read(case: Case, path: Path) -> dict[str, Any]:
    # Files beside the case's own (a shard, a tensor's neighbour) may be opened, those of other folders not.
    with the_watch().on(str(path.parent)) as events:
        return {**_outcome(case, path), "events": events}


def _outcome(case: Case, path: Path) -> dict[str, Any]:
    try:
        found = read_all(path)
        if case.gives == "unsafe":
            return {"outcome": "loads", "refused": _refused(path)}
        return {"outcome": "loads", "wrong": _difference(case, found)}
    except FormatError as error:
        detected = isinstance(error, ChecksumError)
        return {"outcome": "error", "text": str(error), "clean": is_clean_error(error, path), "detected": detected}
    except BaseException as error:
        return {"outcome": "crash", "text": f"{type(error).__name__}: {str(error)[:300]}"}


def _refused(path: Path) -> bool:
    """Whether the verb that gives live objects refuses the file, which may be looked at all the same."""
    try:
        load(path, backend="numpy")
    except UnsafeFileError:
        return True
    return False


def _difference(case: Case, found: dict[str, Any]) -> str | None:
    if case.values is None:
        return None
    shown = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in found.items()}
    return None if {name: shown.get(name) for name in case.values} == dict(case.values) else repr(shown)[:300]


def _peak(*, reset: bool = False) -> int:
    """The most memory (bytes) that this process has had resident since the last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def main(group: str, folder: str, first: str = "") -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    threading.stack_size(STACK)
    os.chdir(folder)
    unit = yardstick()
    for module in ("datetime", "decimal", "fractions", "pathlib", "uuid"):
        import_module(module)
    # Every module that reading needs is imported before the watch is set: ours by name, others by reading.
    for package in (formats, plugins):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    # Which plugins are installed does not depend on the file.
    _entry_points.plugins = list  # type: ignore[assignment]
    for case in GROUPS["control"]:
        place = Path(folder, f"warm-{case.name}-{first}")
        observed(case, place, unit)
        load(case.make(place), backend="numpy")
    # What the signal does after the traceback is written is to end the process.
    faulthandler.register(signal.SIGPROF, chain=True)
    the_watch()
    names = [case.name for case in GROUPS[group]]
    for case in GROUPS[group][names.index(first) if first else 0 :]:
        print(json.dumps({"begins": case.name}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, HANGS)
        print(json.dumps(observed(case, Path(folder, case.name), unit)), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
