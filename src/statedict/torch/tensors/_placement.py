"""Place tensors on the device they were saved from, or on the one the caller names.

A file records the location of each storage (`"cuda:1"`). By default a tensor is placed there if this machine has that
device, and on the CPU otherwise, so a GPU checkpoint opens on a laptop. Whole storages are moved, so ties are preserved.
Data for a CUDA device is sent in pieces, without a complete copy in CPU memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from statedict.errors import FormatError
from statedict.state import DTYPES, Compound, Leaf, Storage, by_source, contiguous, materialize, rows_of

from ._dtypes import TORCH_DTYPES
from ._library import TORCH, with_traits
from ._ring import is_sendable, reaches, send
from ._wrapper import is_wrapped

_CPU = torch.device("cpu")
MapLocation = str | torch.device | Mapping[str, str] | Callable[[Any, str], Any] | None


def materialize_on(
    leaves: Sequence[Leaf | Compound], where: MapLocation, *, mapped: bool = False, verify: bool = True
) -> list[torch.Tensor]:
    """Return tensors for the leaves, in order, on their devices; `mapped` and `verify` as in `materialize`.

    `where` is a device for all tensors, a mapping of saved location to device, a function as `torch.load` accepts it (called
    once per location, with an empty storage), or None: the saved location, if this machine has it.
    Raises RuntimeError (from torch) if the caller names a device that this machine does not have.
    """
    choose = _chooser(where)
    rows = rows_of(leaves)
    locations = list(map(_location, leaves)) if rows is None else rows.of_each(lambda kind: kind.location)
    chosen = {location: choose(location) for location in set(locations)}
    if {_CPU}.issuperset(chosen.values()):
        return materialize(leaves, TORCH, mapped=mapped, verify=verify)
    if rows is None and any(map(is_wrapped, leaves)):
        return _with_wrappers(leaves, where, mapped=mapped, verify=verify)
    devices = [chosen[location] for location in locations]
    sent = [] if mapped else [n for n, leaf in enumerate(leaves) if _is_sent(leaf, devices[n])]
    made = dict(zip(sent, _sent([leaves[n] for n in sent], [devices[n] for n in sent], verify=verify)))
    rest = [n for n in range(len(leaves)) if n not in made]
    tensors = materialize([leaves[n] for n in rest], TORCH, mapped=mapped, verify=verify)
    moved: dict[Hashable, torch.UntypedStorage] = {}
    made |= {n: _placed(tensor, devices[n], moved) for n, tensor in zip(rest, tensors)}
    return [made[n] for n in range(len(leaves))]


def _with_wrappers(leaves: Sequence[Any], where: MapLocation, *, mapped: bool, verify: bool) -> list[Any]:
    """Do the same where some leaves are tensors that wrap others (Compounds): each part goes to its own device."""
    parts = [list(leaf.parts.values()) if is_wrapped(leaf) else [leaf] for leaf in leaves]
    made = iter(materialize_on([part for each in parts for part in each], where, mapped=mapped, verify=verify))
    return [
        TORCH.compound(leaf, dict(zip(leaf.parts, islice(made, len(leaf.parts))))) if is_wrapped(leaf) else next(made)
        for leaf in leaves
    ]


def available(location: str) -> bool:
    """Return whether this machine has the device named by a location.

    >>> available("cpu"), available("cuda:4096")
    (True, False)
    """
    kind, _, index = location.partition(":")
    if kind in ("cpu", "meta"):
        return True
    module: Any = getattr(torch, kind, None)
    try:
        return bool(module.is_available() and int(index or 0) < module.device_count())
    except (AttributeError, ValueError):
        return kind == "mps" and torch.backends.mps.is_available()


def _is_sent(leaf: Leaf | Compound, device: torch.device) -> bool:
    """Whether the leaf's storage can be sent to the device in pieces."""
    return (
        reaches(device)
        and isinstance(leaf, Leaf)
        and leaf.spec.dtype in TORCH_DTYPES
        and is_sendable(_all_of(leaf.storage))
    )


def _sent(leaves: Sequence[Any], devices: Sequence[torch.device], *, verify: bool) -> list[torch.Tensor]:
    """Make tensors on their devices from leaves whose storages can be sent."""
    storages = {(leaf.storage.key, device): leaf.storage for leaf, device in zip(leaves, devices)}
    if verify:
        for some in by_source({storage.key: storage for storage in storages.values()}.values()):
            some[0].source.verify(some)
    there = {at: torch.empty(storage.nbytes, dtype=torch.uint8, device=at[1]) for at, storage in storages.items()}
    send(list(there.values()), list(map(_all_of, storages.values())))
    made = []
    for leaf, device in zip(leaves, devices):
        untyped = there[leaf.storage.key, device].untyped_storage()
        view = torch.empty(0, dtype=TORCH_DTYPES[leaf.spec.dtype], device=device)
        made.append(with_traits(view.set_(untyped, leaf.spec.offset, leaf.spec.shape, leaf.spec.strides), leaf.traits))
    return made


def _all_of(storage: Storage) -> Leaf:
    """All bytes of a storage, as a leaf."""
    return Leaf(contiguous(DTYPES["uint8"], (storage.nbytes,)), storage)


def _chooser(where: MapLocation) -> Callable[[str], torch.device]:
    if where is None:
        return lambda location: _device(location) if available(location) else _CPU
    if isinstance(where, (str, torch.device)):
        device = _required(where)
        return lambda location: device
    back = _chooser(None)
    if isinstance(where, Mapping):
        return lambda location: _required(where[location]) if location in where else back(location)
    if not callable(where) or isinstance(where, type):
        raise TypeError(
            "map_location must be a device, a mapping of locations to devices, a function, or None, "
            f"not {type(where).__name__}"
        )

    def chosen(location: str) -> torch.device:
        # The function is called once: all storages of one location go to the same device.
        moved = where(_empty(), location)
        if moved is None:
            return back(location)
        if not isinstance(getattr(moved, "device", None), torch.device):
            raise TypeError(f"map_location= returned {moved!r} for {location!r}: it returns a storage, or None")
        return torch.device(moved.device)

    return chosen


def _required(where: str | torch.device) -> torch.device:
    """The device; raises like `torch.load` if this machine does not have it, ValueError if it is not a device."""
    try:
        device = torch.device(where)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{where!r} is not a device: {str(error).splitlines()[0]}") from None
    if device.type not in ("cpu", "meta"):
        restore: Any = torch.serialization.default_restore_location
        restore(_empty(), str(device))
    return device


def _empty() -> Any:
    made: Any = torch.UntypedStorage
    return made(0)


def _device(location: str) -> torch.device:
    """The device that a file names; the CPU if PyTorch does not know the name (`"cpu:first"`)."""
    try:
        return torch.device(location)
    except RuntimeError:
        return _CPU


def _location(leaf: Leaf | Compound) -> str:
    first = leaf if isinstance(leaf, Leaf) else next(iter(leaf.parts.values()), None)
    return "cpu" if first is None else first.storage.location


def _placed(tensor: torch.Tensor, device: torch.device, moved: dict[Hashable, torch.UntypedStorage]) -> Any:
    if tensor.device == device or tensor.is_meta:
        return tensor
    plain = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested
    if plain and device.type == "meta":
        # `to` would allocate all elements of an expanded tensor.
        return _like(tensor, torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device))
    if not plain:
        try:
            return _like(tensor, tensor.detach().to(device))
        except NotImplementedError as error:
            kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else str(tensor.layout)
            raise FormatError(
                f"the file contains a {kind} tensor, which PyTorch cannot move to {device}",
                hint='load it with map_location="cpu"',
            ) from error
    storage = tensor.untyped_storage()
    if storage._cdata not in moved:
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        moved[storage._cdata] = flat.to(device).untyped_storage()
    view = torch.empty(0, dtype=tensor.dtype, device=device)
    return _like(tensor, view.set_(moved[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()))


def _like(tensor: torch.Tensor, moved: torch.Tensor) -> Any:
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(moved, tensor.requires_grad)
    return moved.requires_grad_() if tensor.requires_grad else moved
