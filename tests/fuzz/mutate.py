"""Changes to bytes, to pickles by the opcode, and to JSON by the value: small, blind, and often still well-formed."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Sequence
from random import Random

EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31)
WIDE_EDGES = (*EDGES, 2**32 - 2, 2**32 - 1, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)


def changed(raw: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to four blind changes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        raw = random.choice(BYTE_CHANGES)(raw, random) if raw or not others else random.choice(others)
    if others and random.random() < 0.05:
        other = random.choice(others)
        raw = raw[: random.randrange(len(raw) + 1)] + other[random.randrange(len(other) + 1) :]
    return raw


def _flip(raw: bytes, random: Random) -> bytes:
    at = random.randrange(len(raw) or 1)
    return raw[:at] + bytes([(raw[at : at + 1] or b"\0")[0] ^ 1 << random.randrange(8)]) + raw[at + 1 :]


def _overwrite(raw: bytes, random: Random) -> bytes:
    at = random.randrange(len(raw) + 1)
    new = random.randbytes(random.choice((1, 1, 2, 4)))
    return raw[:at] + new + raw[at + len(new) :]


def _edge(raw: bytes, random: Random) -> bytes:
    at, code = random.randrange(len(raw) + 1), random.choice("BHIQ")
    new = struct.pack(f"<{code}", random.choice(WIDE_EDGES) % (1 << 8 * struct.calcsize(code)))
    return raw[:at] + new + raw[at + len(new) :]


def _cut(raw: bytes, random: Random) -> bytes:
    start = random.randrange(len(raw) + 1)
    return raw[:start] + raw[start + random.choice((1, 1, 2, 4, 16, len(raw))) :]


def _repeat(raw: bytes, random: Random) -> bytes:
    start = random.randrange(len(raw) + 1)
    piece = raw[start : start + random.choice((1, 2, 8, 64))]
    return raw[:start] + piece * random.choice((1, 1, 3)) + raw[start:]


def _move(raw: bytes, random: Random) -> bytes:
    a, b = sorted(random.randrange(len(raw) + 1) for _ in range(2))
    return raw[b:] + raw[a:b] + raw[:a] if random.random() < 0.1 else raw[:a] + raw[a:b][::-1] + raw[b:]


BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (_flip, _overwrite, _edge, _cut, _repeat, _move)


def opcodes(pickle: bytes) -> list[bytes]:
    """A pickle's opcodes with their arguments; raises ValueError where it is none."""
    places = [at for _, _, at in pickletools.genops(pickle)]
    return [pickle[a:b] for a, b in zip(places, [*places[1:], len(pickle)])]


def changed_pickle(pickle: bytes, random: Random, pool: Sequence[bytes]) -> bytes:
    """The pickle with opcodes left out, repeated, exchanged, or replaced by some of `pool`."""
    try:
        parts = opcodes(pickle)
    except Exception:
        return changed(pickle, random)
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        at = random.randrange(len(parts) or 1)
        parts = random.choice(PART_CHANGES)(parts, at, random, pool)
    return b"".join(parts)


def _drop(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    return parts[:at] + parts[at + random.choice((1, 1, 3)) :]


def _double(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    return parts[:at] + parts[at : at + random.choice((1, 2, 8))] + parts[at:]


def _swap(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    return parts[:at] + parts[at : at + 2][::-1] + parts[at + 2 :]


def _insert(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    return parts[:at] + [random.choice(pool)] + parts[at:]


def _replace(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    return parts[:at] + [random.choice(pool)] + parts[at + 1 :]


def _argument(parts: list[bytes], at: int, random: Random, pool: Sequence[bytes]) -> list[bytes]:
    part = (parts[at : at + 1] or [b"N"])[0]
    return parts[:at] + [part[:1] + changed(part[1:] or b"\0", random)] + parts[at + 1 :]


PART_CHANGES = (_drop, _double, _swap, _insert, _replace, _argument)
TEXT_EDGES = (*WIDE_EDGES, -1, -(2**63), 10**30, 0.5, True, None, "", "F32", "x" * 300, [], {}, [0], "\ud800", "../x")


def changed_json(value: object, random: Random) -> object:
    """The value with one of its parts, at any depth, replaced, removed or repeated."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        return random.choice(
            [{**value, key: changed_json(value[key], random)}] * 6 + [rest, {**value, f"{key}2": value[key]}]
        )
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        new = [changed_json(value[at], random)]
        return value[:at] + random.choice([new, new, [], new * 2]) + value[at + 1 :]
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-4, -1, 1, 4))
    return random.choice(TEXT_EDGES)
