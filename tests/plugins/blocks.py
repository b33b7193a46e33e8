"""Blocks of each quantised kind of GGUF, with every pattern of bits but only finite scales."""

from typing import NamedTuple

import numpy as np

COUNT = 40


class Blocks(NamedTuple):
    """The number of a kind, the bytes of a block, where its float16 numbers are, and the CRC-32 of the float32 values that
    the package `gguf` 0.19.0 decodes from `blocks_of`."""

    number: int
    nbytes: int
    halves: tuple[int, ...]
    crc: int


KINDS = {
    "Q4_0": Blocks(2, 18, (0,), 0x8FB8C02F),
    "Q4_1": Blocks(3, 20, (0, 2), 0x6ED9E68A),
    "Q5_0": Blocks(6, 22, (0,), 0x8C952F5D),
    "Q5_1": Blocks(7, 24, (0, 2), 0xFE06BB28),
    "Q8_0": Blocks(8, 34, (0,), 0x8A5FDD52),
    "Q2_K": Blocks(10, 84, (80, 82), 0xBD05FEA3),
    "Q3_K": Blocks(11, 110, (108,), 0x7FAAEEAF),
    "Q4_K": Blocks(12, 144, (0, 2), 0x4ACF7380),
    "Q5_K": Blocks(13, 176, (0, 2), 0x844F030C),
    "Q6_K": Blocks(14, 210, (208,), 0xB2CF26E9),
    "IQ4_NL": Blocks(20, 18, (0,), 0x4DF97B00),
    "IQ4_XS": Blocks(23, 136, (0,), 0x10701B19),
    "MXFP4": Blocks(39, 17, (), 0x359FFC78),
}


def blocks_of(kind: str) -> np.ndarray:
    """Return some blocks, one in each row."""
    state = np.arange(COUNT * KINDS[kind].nbytes, dtype=np.uint64) + np.uint64(KINDS[kind].number)
    # The finaliser of MurmurHash3: as good as random, and the same everywhere.
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        state = (state ^ state >> np.uint64(shift)) * np.uint64(factor)
    raw = (state >> np.uint64(56)).astype(np.uint8).reshape(COUNT, -1)
    for at in KINDS[kind].halves:
        raw[:, at : at + 2] = np.linspace(-3, 3, COUNT).astype("<f2").view(np.uint8).reshape(COUNT, 2)
    if kind == "MXFP4":
        raw[:, 0] = np.linspace(0, 250, COUNT).astype(np.uint8)
    return raw
