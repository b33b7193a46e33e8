"""The real libraries beside ours: the same states written and read by both, and damaged files read by both.

A `Library` is torch, safetensors or NumPy, with the same functions of this library. `written_alike` compares the four
ways to write a state with one and read it with the other; `damaged_alike` changes a file, and compares what both read.
"""

from __future__ import annotations

import io
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from tests.hostile.reading import read_all

import statedict
from statedict.errors import FormatError
from statedict.state import Opaque
from statedict.torch import save as save_like_torch

from .targets import Change, change_legacy, change_members, change_npz, change_safetensors, change_zip, changed

State = dict[str, Any]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
OTHERS = (torch.bool, torch.complex64, torch.complex128)
IN_SAFETENSORS = (*FLOATS, *EIGHT_BITS, *INTEGERS, torch.bool, torch.complex64)
IN_NUMPY = (*FLOATS[:3], *INTEGERS, *OTHERS)
NAMES = (
    "weight",
    "bias",
    "layers.0.weight",
    "layers.0.bias",
    "layers.10.norm.weight",
    "ä",
    "名前.x",
    "a b",
    "0",
    "x" * 99,
)


class Library(NamedTuple):
    """How a state is written and read by a real library (`theirs`) and by this one (`ours`).

    Attributes:
        dtypes: the element types that both can write.
        views: whether tensors that share memory can be written.
        changes: changes that suit the format.
        read: reads a file with the real library; raises anything if it refuses the file.
    """

    dtypes: tuple[torch.dtype, ...]
    views: bool
    changes: tuple[Change, ...]
    theirs: Callable[[State], bytes]
    ours: Callable[[State], bytes]
    read: Callable[[bytes], Mapping[Any, Any]]


def some_state(library: Library, random: Random) -> State:
    """A state of one to six tensors of any element type, shape, content and strides; some share their memory."""
    state: State = {}
    for name in random.sample(NAMES, random.randint(1, 6)):
        if state and library.views and random.random() < 0.2:
            state[name] = some_view(random.choice(list(state.values())), random)
        else:
            state[name] = some_tensor(random.choice(library.dtypes), random)
            if library.views and random.random() < 0.3:
                state[name] = some_view(state[name], random)
    return state


def some_tensor(dtype: torch.dtype, random: Random) -> torch.Tensor:
    """A tensor of up to three dimensions with any bytes."""
    shape = [random.choice((0, 1, 1, 2, 3, 5)) for _ in range(random.randrange(4))]
    if dtype == torch.bool:
        return torch.tensor([random.random() < 0.5 for _ in range(math.prod(shape))], dtype=dtype).reshape(shape)
    nbytes = math.prod(shape) * dtype.itemsize
    return (
        torch.frombuffer(bytearray(random.randbytes(nbytes)), dtype=dtype).reshape(shape)
        if nbytes
        else torch.empty(shape, dtype=dtype)
    )


def some_view(tensor: torch.Tensor, random: Random) -> torch.Tensor:
    """The tensor itself, or a transposed, cut, stepped, flattened or expanded view of it."""
    if not tensor.ndim:
        return tensor.expand(random.choice((1, 3)))
    first = tensor.shape[0]
    return random.choice(
        (tensor, tensor.mT if tensor.ndim > 1 else tensor, tensor[first // 2 :], tensor[::2], tensor[:1])
    )


def written_alike(library: Library, random: Random) -> None:
    """Write one state with both, read each file with both; raise AssertionError if any result differs from the state."""
    state = some_state(library, random)
    for raw in (library.theirs(state), library.ours(state)):
        for found in (_read_quietly(library, raw), read_all(io.BytesIO(raw))):
            assert_equal(found, state)


def damaged_alike(library: Library, random: Random) -> bool:
    """Change a file of either; return whether both read it. Raises AssertionError if they read different values."""
    state = some_state(library, random)
    raw = random.choice((library.theirs, library.ours))(state)
    change = random.choice((*library.changes, changed))
    raw = change(raw, random)
    with suppress(FormatError):
        ours = read_all(io.BytesIO(raw))
        try:
            theirs = _read_quietly(library, raw)
        except Exception:  # the errors of the real libraries for damaged files are of a dozen types
            return False
        if ours and theirs:
            # An Opaque is a refusal of one value: NumPy takes more spellings of a dtype.
            assert_equal(
                ours, {name: ours[name] if type(ours.get(name)) is Opaque else theirs[name] for name in theirs}
            )
            return True
    return False


def _with_tied_names(raw: bytes) -> Mapping[str, Any]:
    """Read safetensors, and give tied tensors their other names, which are metadata, as `load_model` does."""
    tensors = safetensors.torch.load(raw)
    texts = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__") or {}
    return {**{name: tensors[kept] for name, kept in texts.items() if kept in tensors}, **tensors}


def differences(library: Library, seconds: float, seed: int) -> tuple[int, list[str]]:
    """Return the number of states tried in so many seconds, and how the two libraries differed, by number."""
    found: list[str] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for act in (written_alike, damaged_alike):
            try:
                act(library, Random(f"{seed} {number}"))
            except Exception as error:
                found.append(f"state {number}, {act.__name__}: {type(error).__name__}: {str(error)[:500]}")
        number += 1
    return number, found


def _read_quietly(library: Library, raw: bytes) -> Mapping[Any, Any]:
    """Read with the real library, without its warnings; those of this library are errors in a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.read(raw)


def assert_equal(found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    """Raise AssertionError unless both have the same names, and tensors with the same dtype, shape and bytes."""
    assert {str(name) for name in found} == {str(name) for name in expected}
    named = {str(name): value for name, value in expected.items()}
    for name, value in found.items():
        assert contents(value) == contents(named[str(name)]), name


def contents(value: Any) -> object:
    """What must be equal: dtype, shape and bytes of a tensor or array; None for other values, which have no common form."""
    if str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        # Every byte but 0 is True, and copying it may replace it by 1.
        return "bool", tuple(value.shape), _corner(value).tolist()
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch."), tuple(value.shape), _bytes_of(_corner(value))
    if isinstance(value, np.ndarray) and value.dtype.kind not in "USMmO":
        swapped = value.dtype.byteorder == ">"
        native = _corner(value).astype(value.dtype.newbyteorder("=")) if swapped else _corner(value)
        return native.dtype.name, value.shape, np.ascontiguousarray(native).tobytes()
    return None


def _corner(value: Any) -> Any:
    """A corner of the array: expanded views may show terabytes."""
    return value[tuple(slice(0, 8) for _ in value.shape)]


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).tolist())


def _saved(save: Callable[..., object], **options: Any) -> Callable[[State], bytes]:
    def saved(state: State) -> bytes:
        file = io.BytesIO()
        save(state, file, **options)
        return file.getvalue()

    return saved


def _dense(state: State) -> State:
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def _arrays(state: State) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def _read_torch(raw: bytes) -> Mapping[Any, Any]:
    found = torch.load(io.BytesIO(raw), weights_only=True)
    return found if isinstance(found, dict) else {}


def _read_npz(raw: bytes) -> Mapping[Any, Any]:
    with np.load(io.BytesIO(raw)) as opened:
        return dict(opened)


# Legacy files name the classes of storages, and younger dtypes do not have one.
IN_LEGACY = (*FLOATS, *INTEGERS[:5], *OTHERS)
EVERY_DTYPE = (*FLOATS, *EIGHT_BITS, *INTEGERS, *OTHERS)
LIBRARIES = {
    "torch": Library(
        EVERY_DTYPE, True, (change_zip, change_members), _saved(torch.save), _saved(statedict.save), _read_torch
    ),
    "torch, legacy": Library(
        IN_LEGACY,
        True,
        (change_legacy,),
        _saved(torch.save, _use_new_zipfile_serialization=False),
        _saved(save_like_torch, _use_new_zipfile_serialization=False),
        _read_torch,
    ),
    "safetensors": Library(
        IN_SAFETENSORS,
        True,
        (change_safetensors,),
        lambda state: safetensors.torch.save(_dense(state)),
        _saved(statedict.save, format="safetensors"),
        _with_tied_names,
    ),
    "numpy": Library(
        IN_NUMPY,
        True,
        (change_zip, change_npz),
        lambda state: _saved(lambda arrays, file: np.savez(file, **arrays))(_arrays(state)),
        _saved(statedict.save, format="npz"),
        _read_npz,
    ),
    "numpy, compressed": Library(
        IN_NUMPY,
        True,
        (change_zip, change_npz),
        lambda state: _saved(lambda arrays, file: np.savez_compressed(file, **arrays))(_arrays(state)),
        _saved(statedict.save, format="npz"),
        _read_npz,
    ),
}
