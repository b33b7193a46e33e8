"""Names of the objects of a checkpoint, and the names of their files, which are good on every system.

An object inside a list or a mapping is named by its path: `optimizers/0`, whose file is `optimizers.0.pt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

VALUES, RANDOM, MANIFEST = "values", "random", "manifest"
# Names of the checkpoint's own files.
OWN = (VALUES, RANDOM, MANIFEST)
# Parameters of `resume`, which could not be given an object of that name.
PARAMETERS = ("at", "options", "limits")
# Bytes of one part of a name, and of all of it: file names end at 255, with a suffix and a number of shards.
LONGEST_PART, LONGEST = 100, 180

ODD = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
# What a file of another object, or of a rank, may be called.
TAKEN = re.compile(r"random-\d{5}|.*-\d{5}-of-\d{5}|.*\.(pt|json)", re.IGNORECASE)


def check(name: str) -> None:
    """Raise ValueError for an object's name that cannot be part of a file name, or is needed for something else."""
    parts = name.split("/")
    if parts[0] in OWN:
        raise ValueError(f"{parts[0]!r} names a file of the checkpoint itself; give the object another name")
    if parts[0] in PARAMETERS:
        raise ValueError(f"{parts[0]!r} is a parameter of resume; give the object another name")
    for part in parts:
        reason = _fault(part)
        if reason:
            raise ValueError(f"an object cannot be called {name!r}: {reason}; give it another name")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"an object cannot be called {name!r}: it has more than {LONGEST} bytes")


def _fault(part: str) -> str | None:
    """Why a part of a name cannot be part of a file's name on some system; None where it can."""
    odd = ODD.search(part)
    if not part:
        return "a part of the name is empty"
    if odd:
        return f"file names cannot contain {odd[0]!r}"
    if part[0] == "." or part[-1] in ". ":
        return "file names should not begin with a dot, or end with a dot or a space"
    if part.partition(".")[0].strip().casefold() in DEVICES:
        return f"{part!r} is the name of a device on Windows"
    if len(part.encode()) > LONGEST_PART:
        return f"{part[:20] + '…'!r} has more than {LONGEST_PART} bytes"
    return None


def stems(names: Iterable[str]) -> dict[str, str]:
    """A file name, without its suffix, for each object; two are never the same, whatever the case of letters is worth."""
    found: dict[str, str] = {}
    taken = {VALUES, RANDOM, MANIFEST}
    for name in names:
        stem = plain = name.replace("/", ".")
        number = 2
        while name not in OWN and (stem.casefold() in taken or TAKEN.fullmatch(stem)):
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.casefold())
        found[name] = stem
    return found
