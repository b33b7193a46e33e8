"""Names of the objects of a checkpoint, and portable names for their files.

An object in a list or mapping is named by its path: `optimizers/0`, whose file is `optimizers.0.pt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from unicodedata import normalize

from statedict.formats.runs import RANDOM as RANDOM
from statedict.formats.runs import VALUES as VALUES

MANIFEST_STEM = "manifest"
# Reserved for the checkpoint's own files.
OWN = (VALUES, RANDOM, MANIFEST_STEM)
# Names that an object cannot have, and what they are: files, and parameters by which it could not be passed.
RESERVED = {
    **dict.fromkeys(OWN, "reserved for a file of the checkpoint"),
    **dict.fromkeys(("at", "options", "limits"), "a parameter of resume()"),
    "metrics": "a parameter of save()",
    "step": "a parameter of save() (to resume from a step, pass at=)",
}
# Maximum bytes of one part of a name, and of the whole: file names are limited to 255 with suffix and shard number.
LONGEST_PART, LONGEST = 100, 180

ODD = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
# Names that the files of another object, or of a rank, may have.
TAKEN = re.compile(r"random-\d{5}|.*-\d{5}-of-\d{5}|.*\.(pt|json)", re.IGNORECASE)


def check(name: str) -> None:
    """Raise ValueError for an object name that is reserved or cannot be part of a file name."""
    parts = name.split("/")
    check_reserved(parts[0])
    for part in parts:
        reason = _fault(part)
        if reason:
            raise ValueError(f"{name!r} is not a valid object name: {reason}; rename the object")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"{name!r} is not a valid object name: it is longer than {LONGEST} bytes")


def check_reserved(name: str) -> None:
    """Raise ValueError for the name of an argument that cannot be an object's."""
    if name in RESERVED:
        raise ValueError(f"{name!r} is {RESERVED[name]}; rename the object")


def _fault(part: str) -> str | None:
    """The reason why a part of a name is not portable as a file name; None if it is."""
    odd = ODD.search(part)
    if not part:
        return "a part of the name is empty"
    if odd:
        return f"file names cannot contain {odd[0]!r}"
    if part[0] == "." or part[-1] in ". ":
        return "a file name must not begin with a dot, or end with a dot or a space"
    if part.partition(".")[0].strip().casefold() in DEVICES:
        return f"{part!r} is a reserved device name on Windows"
    if len(part.encode()) > LONGEST_PART:
        return f"{part[:20] + '…'!r} is longer than {LONGEST_PART} bytes"
    return None


def stems(names: Iterable[str]) -> dict[str, str]:
    """A file name without suffix for each object. The names are unique, also on file systems that ignore case, or how
    letters are composed.
    """
    found: dict[str, str] = {}
    taken = {*OWN}
    for name in names:
        stem = plain = name.replace("/", ".")
        number = 2
        while name not in OWN and (_folded(stem) in taken or TAKEN.fullmatch(stem)):
            stem, number = f"{plain}-{number}", number + 1
        taken.add(_folded(stem))
        found[name] = stem
    return found


def _folded(stem: str) -> str:
    return normalize("NFC", stem.casefold())
