"""Read JSON strictly: UTF-8, no duplicate keys, no NaN, and limits on nesting and on the length of numbers.

JSON readers interpret such input differently, and a file must have one meaning.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NoReturn

from statedict.files import File

from ..errors import FormatError
from ._limits import Limits

# Longer than any size or offset (20 digits). Converting long integers takes quadratic time.
DIGITS = 40
# Deeper texts are not parsed.
DEEPEST = 100
# By how much a bracket changes the nesting depth, as a signed byte.
STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")
OTHERS = bytes(set(range(256)) - set(b"[{]}"))
ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(
    data: bytes, file: str, limits: Limits, member: str | None = None, constant: Callable[[str], Any] | None = None
) -> Any:
    """Parse `data` as JSON; raise FormatError if it is not valid, or if readers would interpret it differently.

    `constant` returns the value of `NaN`, `Infinity` and `-Infinity`, which are not valid JSON, but which Python writes.
    """
    if len(data) > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"JSON of {len(data):,} bytes").located(file=file, member=member)
    bare = _without_strings(data)
    depth = _depth(bare)
    if depth > limits.json_depth:
        raise limits.exceeded("json_depth", f"JSON nested {depth:,} deep").located(file=file, member=member)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=constant or _constant,
            # A call for each number would take as long as everything else.
            parse_int=_integer if b"0" * DIGITS in bare.translate(ZEROS) else None,
        )
        # An unpaired surrogate can only come from an escape, which is rare.
        if SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        problem = FormatError("invalid JSON: a string contains an unpaired surrogate")
    except UnicodeDecodeError as error:
        problem = FormatError(f"the JSON is not valid UTF-8: {error.reason}", offset=error.start)
    except json.JSONDecodeError as error:
        problem = FormatError(f"invalid JSON: {error.msg}", offset=error.pos)
    except FormatError as error:
        problem = error
    raise problem.located(file=file, member=member) from None


def read_json_file(file: File, limits: Limits, constant: Callable[[str], Any] | None = None) -> Any:
    """Parse a whole file as JSON, as `read_json` does. A file that is too large is not read."""
    if file.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"JSON of {file.size:,} bytes").located(file=file.name)
    return read_json(file.read(0, file.size), file.name, limits, constant=constant)


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8, as `json.loads` does.

    Raises ValueError if it is not valid, or nested more than 100 deep: Python's parser can end the process for a deeper
    text, in a thread with a small stack (with Python 3.13, 512 KiB).

    >>> parse_json(b'{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    depth = _depth(_without_strings(data))
    if depth > DEEPEST:
        raise ValueError(f"it is nested {depth:,} deep; at most {DEEPEST} are accepted")
    return json.loads(data.decode())


def _without_strings(data: bytes) -> bytes:
    """Return every second part between quotes that are not escaped."""
    return b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _depth(bare: bytes) -> int:
    return max(accumulate(array("b", bare.translate(STEPS, OTHERS))), default=0)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"the key {twice[:100]!r} appears twice in a JSON object")
    return found


def _constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not valid JSON")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise FormatError(f"a JSON number has {len(digits):,} digits; at most {DIGITS} are accepted")
    return int(digits)
