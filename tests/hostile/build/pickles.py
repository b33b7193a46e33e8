"""Pickles put together opcode by opcode: each function gives the bytes that push one value.

The pickle module writes only what it means; a hostile file says what it likes.
"""

from __future__ import annotations

import struct

NONE, TRUE, FALSE, POP = b"N", b"\x88", b"\x89", b"0"

# What a payload would do if it ran: leave this file in the working directory.
TRACE = "statedict-ran-something"
COMMAND = f"touch {TRACE}"


def pickled(*body: bytes, protocol: int = 2, stop: bytes = b".") -> bytes:
    return bytes([0x80, protocol]) + b"".join(body) + stop


def name(module: str, attribute: str) -> bytes:
    """The GLOBAL opcode."""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """The STACK_GLOBAL opcode (protocol 4): the name comes from the stack, and may hold anything."""
    return text(module) + text(attribute) + b"\x93"


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def tuple_(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def list_(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict_(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def integers(values: tuple[int, ...]) -> bytes:
    return tuple_(*(integer(value) for value in values))


def call(function: bytes, *args: bytes) -> bytes:
    """The REDUCE opcode."""
    return function + tuple_(*args) + b"R"


def build(value: bytes, state: bytes) -> bytes:
    """The BUILD opcode."""
    return value + state + b"b"


def put(slot: int) -> bytes:
    return b"q" + bytes([slot])


def get(slot: int) -> bytes:
    return b"h" + bytes([slot])


def ordered_dict() -> bytes:
    return call(name("collections", "OrderedDict"))


def storage(
    key: bytes | str = "0", numel: int = 4, kind: bytes | str = "FloatStorage", location: str = "cpu", *more: bytes
) -> bytes:
    """A storage's persistent id, as torch.save writes it."""
    key = text(key) if isinstance(key, str) else key
    kind = name("torch", kind) if isinstance(kind, str) else kind
    return tuple_(text("storage"), kind, key, text(location), integer(numel), *more) + b"Q"


def tensor(
    place: bytes | None = None, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    """A tensor as torch.save writes it: four float32 in storage "0", unless told otherwise."""
    return rebuilt(place or storage(), integer(offset), integers(size), integers(stride))


def rebuilt(place: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, place, offset, size, stride, FALSE, ordered_dict())


def state(**values: bytes) -> bytes:
    """A state dict, in a pickle of its own."""
    return pickled(dict_(*((text(key), value) for key, value in values.items())))


def shell(command: str = COMMAND) -> bytes:
    """A call that runs a shell, if it is ever made."""
    return call(name("posix", "system"), text(command))
