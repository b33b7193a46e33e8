"""Short texts for values from a file, for messages and paths: `repr` can fail or run for very long on them."""

from __future__ import annotations

from statedict.state import DType, Leaf, arguments

LONGEST = 200


def shown(value: object) -> str:
    """Return a number or text as a Python literal, shortened; for anything else, its type.

    >>> shown("w"), shown(1 << 9999), shown([[]])
    ("'w'", 'an int of 10,000 bits', 'a list')
    """
    if isinstance(value, Leaf):
        return f"a tensor of {value.spec.dtype} {list(value.spec.shape)}"
    if type(value) is int and value.bit_length() > LONGEST:
        return f"an int of {value.bit_length():,} bits"
    if type(value) in (str, bytes):
        return repr(value[:LONGEST])  # type: ignore[index]
    if value is None or type(value) in (int, float, bool, DType):
        return repr(value)
    return arguments.a(value)


def step_of(key: object) -> str:
    """Return a key as a step of a path: text unchanged, a tuple as a Python literal, shortened."""
    if type(key) is tuple:
        inside = ", ".join(map(shown, key[:LONGEST]))
        return f"({inside}{',' * (len(key) == 1)})"[:LONGEST]
    return key[:LONGEST] if type(key) is str else shown(key)
