"""One input after the other: what a reader must not do with any of them, and the loop that watches for it."""

from __future__ import annotations

import hashlib
import resource
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from random import Random
from typing import Any, NamedTuple

from statedict import formats, plugins
from statedict.errors import FormatError
from statedict.formats import _entry_points

from .targets import Target

# All that reading can need is imported now, so that no import of ours is taken for one of the file's.
for package in (formats, plugins):
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        import_module(module.name)
for name in (
    "datetime",
    "decimal",
    "fractions",
    "pathlib",
    "uuid",
    "ml_dtypes",
    "numpy.random",
):  # whose values files can hold
    import_module(name)

_entry_points.plugins()

FOUND = Path(__file__).parent / "found"
SECONDS = 1.0
FLOOR, TIMES = 64 << 20, 4
# What the machinery around the reader does; anything else that Python tells of while a reader runs is a finding.
HARMLESS = (
    "builtins.id",
    "mmap.",
    "sys._getframe",
    "object.__",
    "gc.",
    "array.",
    "os.scandir",
    "os.listdir",
    "open",
    "_thread",
)


class Hang(BaseException):
    """Raised into a reader that has used its second of processor time."""


class Finding(NamedTuple):
    """An input, the target that it was for, and what went wrong."""

    target: str
    raw: bytes
    what: str

    def keep(self, folder: Path) -> Path:
        """Write the input to the folder, under a name that begins with its target's; gives its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(self.raw).hexdigest()[:12]}"
        path.write_bytes(self.raw)
        return path


def attempt(target: Target, raw: bytes) -> str | None:
    """What is wrong with how the target reads the input; None where it is read, or refused as it should be."""
    _watch.begin()
    before = _peak()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        target.read(raw)
    except FormatError as error:
        problem = None if str(error) else "an error without a text"
    except Hang:
        problem = f"more than {SECONDS} s: {_where()}"
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error)[:200]} {_where()}"
    else:
        problem = None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    used, ran = _peak() - before, _watch.end()
    if ran:
        return f"it ran {ran[0]}"
    if used > FLOOR + TIMES * len(raw):
        return f"{used >> 20} MiB for {len(raw):,} bytes"
    return problem


def fuzz(target: Target, seed: int, *, seconds: float = 0, least: int = 50) -> tuple[int, list[Finding]]:
    """The number of inputs tried (for so many seconds, and at least so many), and one finding for each place that went
    wrong."""
    random = Random(f"{target.name} {seed}")
    found: dict[str, Finding] = {}
    for raw in target.seeds:
        target.read(raw)
    with watching():
        end, count = time.monotonic() + seconds, 0
        while count < least or time.monotonic() < end:
            raw = target.mutant(random)
            count += 1
            what = attempt(target, raw)
            if what is not None:
                found.setdefault(what.rpartition(" at ")[2], Finding(target.name, raw, what))
    return count, list(found.values())


class watching:
    """A context in which processor time is limited by `attempt`, and the interpreter's events are seen."""

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGVTALRM, _hang)
        _watch.install()

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGVTALRM, self.before)


class _Watch:
    """The audit hook, once a process (it cannot be taken out): what was run since `begin`."""

    def __init__(self) -> None:
        self.on = self.installed = False
        self.seen: list[str] = []

    def install(self) -> None:
        if not self.installed:
            self.installed = True
            sys.addaudithook(self)

    def begin(self) -> None:
        self.seen, self.on = [], True

    def end(self) -> list[str]:
        self.on = False
        return self.seen

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and not event.startswith(HARMLESS) and not (event == "import" and _ours(args[0])):
            self.seen.append(f"{event} {args[0] if args else ''}"[:200])


def _ours(module: str) -> bool:
    """Whether an import can only be the reader's own: its modules, or those it has asked for since the start."""
    return module.partition(".")[0] in OWN


OWN = {
    "statedict",
    "numpy",
    "ml_dtypes",
    "isal",
    "zlib",
    "json",
    "unicodedata",
    "difflib",
    "traceback",
    "linecache",
    "encodings",
}
_watch = _Watch()


def _hang(*_: object) -> None:
    raise Hang


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _where() -> str:
    """The innermost place in the library that the exception at hand went through."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if "statedict" in frame.filename] or list(frames)
    return f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
