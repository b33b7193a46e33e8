"""JSON as headers and indexes are allowed to be: UTF-8, no key twice, no NaN, no numbers or nesting without end.

Readers of JSON differ in what they make of all these, and a file must mean one thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NoReturn

from ..errors import FormatError
from ._limits import Limits

# Longer than any size or offset (20 digits); converting longer ones is quadratic.
DIGITS = 40
# Possessive: remembering where it could go back to would cost a hundred bytes for each of the string's.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
OTHERS = bytes(set(range(256)) - set(STEPS))
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(data: bytes, file: str, limits: Limits, member: str | None = None) -> Any:
    """The value that `data` is the JSON of; raises FormatError where it is none, or one that readers disagree on."""
    if len(data) > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"JSON of {len(data):,} bytes").located(file=file, member=member)
    depth = max(accumulate(map(STEPS.__getitem__, STRING.sub(b"", data).translate(None, OTHERS))), default=0)
    if depth > limits.json_depth:
        raise limits.exceeded("json_depth", f"JSON nested {depth:,} deep").located(file=file, member=member)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer
        )
        # Half a character can only be an escape, and there are hardly any.
        if SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        problem = FormatError("a text in it holds half a character")
    except UnicodeDecodeError as error:
        problem = FormatError(f"it is not UTF-8: {error.reason}", offset=error.start)
    except json.JSONDecodeError as error:
        problem = FormatError(f"it is no JSON: {error.msg}", offset=error.pos)
    except FormatError as error:
        problem = error
    raise problem.located(file=file, member=member) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"the key {twice[:100]!r} is there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise FormatError(f"a number has {len(digits):,} digits")
    return int(digits)
