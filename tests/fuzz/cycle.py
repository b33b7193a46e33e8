"""Every way to read one file, which must agree: by item, verified or not, and what is saved of it and read again."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from tests.hostile.build import streams
from tests.hostile.reading import read_all

import statedict
from statedict.errors import StateDictError

OURS = (StateDictError, OSError, MemoryError)


def honest() -> list[bytes]:
    """Files of what people save: views, ties, scalars, odd types and values beside the tensors, in every format."""
    whole = np.arange(12, dtype="f4")
    state: dict[str, Any] = {
        "w": whole,
        "tied": whole,
        "scale": np.array(1.5),
        "empty": np.zeros((0, 3), "i8"),
        "half": np.ones(3, "f2"),
        "flags": np.array([True, False]),
        "complex": np.array([1 + 2j], "c8"),
    }
    views = {"view": whole[2:8:2], "matrix": whole.reshape(3, 4).T, "names": np.array(["a", "b"])}
    values = {"epoch": 3, "lr": 0.1, "done": None, "betas": (0.9, 0.99), "raw": b"\0\xff", "list": [1, "x", {2}]}
    torch = ({**state, **views}, {"model": statedict.StateDict({**state, **views}), **values})
    made = [(obj, "torch") for obj in torch] + [(state, "safetensors"), (state, "npz"), (whole, "npy")]
    return [*map(_file, *zip(*made)), streams.legacy()]


def _file(obj: object, format: str) -> bytes:
    out = io.BytesIO()
    statedict.save(obj, out, format=format)
    return out.getvalue()


class Different(Exception):
    """Two ways to read a file give different elements, or what is saved of it does not come back."""


def read(raw: bytes) -> object:
    """All that `read_all` reads, after every other way to read the file; raises FormatError, or Different."""
    found = _attempt(partial(_state, raw))
    unverified = _attempt(partial(statedict.load, io.BytesIO(raw), backend="numpy", verify=False))
    verified = _attempt(partial(statedict.load, io.BytesIO(raw), backend="numpy"))
    for name, loaded in (("with verification", verified), ("without", unverified)):
        if isinstance(found, dict) and isinstance(loaded, Mapping) and set(found) <= set(loaded):
            _compare(found, loaded, name)
    _attempt(partial(statedict.load, io.BytesIO(raw), backend="torch"))
    for format in ("torch", "safetensors", "npz"):
        _saved(raw, format)
    return read_all(io.BytesIO(raw))


def _attempt(act: Any) -> Any:
    with suppress(*OURS):
        return act()
    return None


def _state(raw: bytes) -> dict[str, Any]:
    with statedict.open(io.BytesIO(raw)) as checkpoint:
        state = checkpoint.state_dict().numpy()
        return {str(name): value for name, value in state.items()}


def _saved(raw: bytes, format: str) -> None:
    """What `save` takes of a file is read again, with the same elements."""
    out = io.BytesIO()
    with suppress(*OURS), statedict.open(io.BytesIO(raw)) as checkpoint:
        state = checkpoint.state_dict()
        statedict.save(state, out, format=format)
        elements = state.fingerprint()
        out.seek(0)
        try:
            with statedict.open(out) as again:
                copy = again.state_dict()
                if list(copy) != list(state):
                    raise Different(f"saved as {format}: names {list(copy)} instead of {list(state)}")
                if copy.fingerprint() != elements:
                    raise Different(f"saved as {format}: other elements")
        except OURS as error:
            raise Different(f"saved as {format}: {type(error).__name__}: {error}") from error


def _compare(found: Mapping[str, Any], loaded: Mapping[Any, Any], name: str) -> None:
    for key, value in found.items():
        other = loaded[key]
        if isinstance(value, np.ndarray) and isinstance(other, np.ndarray):
            corner = tuple(slice(0, 4) for _ in value.shape)
            same = value.shape == other.shape and value.dtype == other.dtype
            if not same or value[corner].tobytes() != other[corner].tobytes():
                raise Different(f"{key!r} is another when it is loaded {name}")
