"""Decode the blocks of quantised tensors in GGUF files.

Each function gets blocks as rows of bytes, and the byte order of the file, and returns their elements. A block is some
numbers of a few bits each, and the scales and offsets that make elements of them. The order of the operations is that of
llama.cpp and its `gguf` package, so the values are the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def _half(blocks: Bytes, at: int, order: str) -> Floats:
    """Return the float16 at this byte of each block, such as its scale."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(f"{order}f2").astype(np.float32)


def _unpack(packed: Bytes, bits: int, group: int) -> Bytes:
    """Return numbers of a few bits: in each group of bytes, the lowest bits of all bytes, then the next bits …"""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    found = packed.reshape(len(packed), -1, 1, group) >> shifts & np.uint8(2**bits - 1)
    return found.reshape(len(packed), -1)


def _scaled(scales: Floats, numbers: Any, offsets: Floats | None = None) -> Floats:
    """Return `scales * numbers - offsets`; each scale and offset is that of as many consecutive numbers."""
    count = len(scales)
    found: Floats = numbers.astype(np.float32).reshape(count, scales.shape[1], -1) * scales[..., None]
    if offsets is not None:
        found -= offsets[..., None]
    return found.reshape(count, -1)


def q4_0(blocks: Bytes, order: str) -> Floats:
    return _scaled(_half(blocks, 0, order), _unpack(blocks[:, 2:], 4, 16).view(np.int8) - np.int8(8))


def q4_1(blocks: Bytes, order: str) -> Floats:
    return _scaled(_half(blocks, 0, order), _unpack(blocks[:, 4:], 4, 16)) + _half(blocks, 2, order)


def _five(high: Bytes, low: Bytes, order: str) -> Bytes:
    """Return numbers of five bits, whose highest bits are together in one integer."""
    return _unpack(low, 4, 16) | _unpack(high[:, :: 1 if order == "<" else -1], 1, 1) << np.uint8(4)


def q5_0(blocks: Bytes, order: str) -> Floats:
    numbers = _five(blocks[:, 2:6], blocks[:, 6:], order)
    return _scaled(_half(blocks, 0, order), numbers.view(np.int8) - np.int8(16))


def q5_1(blocks: Bytes, order: str) -> Floats:
    numbers = _five(blocks[:, 4:8], blocks[:, 8:], order)
    return _scaled(_half(blocks, 0, order), numbers) + _half(blocks, 2, order)


def q8_0(blocks: Bytes, order: str) -> Floats:
    return _scaled(_half(blocks, 0, order), blocks[:, 2:].view(np.int8))


def q2_k(blocks: Bytes, order: str) -> Floats:
    scales = _half(blocks, 80, order) * (blocks[:, :16] & 15).astype(np.float32)
    offsets = _half(blocks, 82, order) * (blocks[:, :16] >> 4).astype(np.float32)
    return _scaled(scales, _unpack(blocks[:, 16:80], 2, 32), offsets)


def q3_k(blocks: Bytes, order: str) -> Floats:
    scales = _unpack(blocks[:, 96:104], 4, 8) | _unpack(blocks[:, 104:108], 2, 4) << np.uint8(4)
    high = _unpack(blocks[:, :32], 1, 32) ^ np.uint8(1)
    numbers = _unpack(blocks[:, 32:96], 2, 32).view(np.int8) - (high << np.uint8(2)).view(np.int8)
    return _scaled(_half(blocks, 108, order) * (scales.view(np.int8) - np.int8(32)).astype(np.float32), numbers)


def _scales_of(blocks: Bytes, order: str) -> tuple[Floats, Floats]:
    """Return the scales and offsets of Q4_K and Q5_K: eight of six bits, whose highest bits are with those of the others."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], axis=1)
    offsets = np.concatenate([middle & 63, high >> 4 | middle >> 2 & 48], axis=1)
    return (
        _half(blocks, 0, order) * scales.astype(np.float32),
        _half(blocks, 2, order) * offsets.astype(np.float32),
    )


def q4_k(blocks: Bytes, order: str) -> Floats:
    scales, offsets = _scales_of(blocks, order)
    return _scaled(scales, _unpack(blocks[:, 16:], 4, 32), offsets)


def q5_k(blocks: Bytes, order: str) -> Floats:
    scales, offsets = _scales_of(blocks, order)
    numbers = _unpack(blocks[:, 48:], 4, 32) | _unpack(blocks[:, 16:48], 1, 32) << np.uint8(4)
    return _scaled(scales, numbers, offsets)


def q6_k(blocks: Bytes, order: str) -> Floats:
    numbers = _unpack(blocks[:, :128], 4, 64) | _unpack(blocks[:, 128:192], 2, 32) << np.uint8(4)
    scales = _half(blocks, 208, order) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return _scaled(scales, numbers.view(np.int8) - np.int8(32))


def iq4_nl(blocks: Bytes, order: str) -> Floats:
    return _scaled(_half(blocks, 0, order), np.array(IQ4, np.int8)[_unpack(blocks[:, 2:], 4, 16)])


def iq4_xs(blocks: Bytes, order: str) -> Floats:
    high = _unpack(blocks[:, 2:4][:, :: 1 if order == "<" else -1], 2, 1)
    scales = (_unpack(blocks[:, 4:8], 4, 1) | high << np.uint8(4)).view(np.int8) - np.int8(32)
    numbers = np.array(IQ4, np.int8)[_unpack(blocks[:, 8:], 4, 16)]
    return _scaled(_half(blocks, 0, order) * scales.astype(np.float32), numbers)


def mxfp4(blocks: Bytes, order: str) -> Floats:
    exponents = blocks[:, :1].astype(np.uint32)
    # A power of two, halved because the numbers are doubled; the first two are subnormal.
    scales = np.where(exponents < 2, np.uint32(1 << 21) << exponents, exponents - 1 << 23).view(np.float32)
    return _scaled(scales, np.array(MXFP4, np.int8)[_unpack(blocks[:, 1:], 4, 16)])


# The numbers that indices of four bits stand for.
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
MXFP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
DECODERS = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "MXFP4": mxfp4,
}
