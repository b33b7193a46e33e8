"""Whatever happens to a file with checksums is noticed, or makes no difference; a file that was cut never loads."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hostile.build import npz, streams, tensors, torch_zips
from tests.hostile.reading import Found, read_all

from statedict import formats
from statedict.errors import FormatError

STATE = {"w": np.arange(6, dtype="<f4").reshape(2, 3), "n": np.array([7, -1])}


def written(form: str) -> bytes:
    """What we write in that format."""
    out = io.BytesIO()
    formats.write(STATE, out, format=form)
    return out.getvalue()


# Each has a checksum over every byte that matters, or makes its contents contradict each other where one changes.
CHECKED: dict[str, Callable[[], bytes]] = {
    "torch, by torch": torch_zips.as_torch_writes,
    "torch, re-zipped": lambda: torch_zips.torch_zip(every={"method": 8}),
    "torch, ours": lambda: written("torch"),
    "safetensors, ours": lambda: written("safetensors"),
    "npz": npz.npz,
    "npz, ours": lambda: written("npz"),
}
UNCHECKED = {"legacy": streams.legacy, "tar": streams.tar, "safetensors": tensors.safetensors, "npy": npz.npy}


@cache
def good(name: str) -> tuple[bytes, Found]:
    raw = {**CHECKED, **UNCHECKED}[name]()
    return raw, read_all(io.BytesIO(raw))


def refused_or_same(name: str, raw: bytes) -> bool:
    """Whether reading the damaged bytes raises one of our errors, or gives what the good ones give."""
    try:
        found = read_all(io.BytesIO(raw))
    except FormatError:
        return True
    expected = good(name)[1]
    return list(found) == list(expected) and all(_same(found[key], expected[key]) for key in expected)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF], ids=hex)
def test_every_changed_byte_is_noticed(name: str, change: int):
    """One byte changed anywhere in a file with checksums gives an error, or the same values."""
    raw, _ = good(name)
    wrong = [at for at in range(len(raw)) if not refused_or_same(name, _changed(raw, at, change))]
    assert wrong == []


def _changed(raw: bytes, at: int, change: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ change]) + raw[at + 1 :]


@pytest.mark.parametrize("name", [*CHECKED, *UNCHECKED])
def test_every_truncation_is_noticed(name: str):
    """A file that ends early, at whatever byte, gives an error, unless only padding is missing."""
    raw, _ = good(name)
    for size in range(len(raw) if name != "tar" else len(raw) - 1024):
        with pytest.raises(FormatError):
            read_all(io.BytesIO(raw[:size]))


@pytest.mark.parametrize("name", CHECKED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_damage_is_noticed(name: str, data: st.DataObject):
    """A run of bytes overwritten, zeroed, moved or repeated gives an error, or the same values."""
    raw, _ = good(name)
    start = data.draw(st.integers(0, len(raw) - 1))
    stop = data.draw(st.integers(start, min(len(raw), start + 64)))
    new = data.draw(
        st.one_of(st.binary(max_size=64), st.just(bytes(stop - start)), st.just(raw[start:stop] * 2), st.just(b""))
    )
    assert refused_or_same(name, raw[:start] + new + raw[stop:])
