"""Copy many tensors at once, with their ties.

The copies have the same values, and the strides that `clone` gives. Tensors that share memory share it in the copy, and with
no other tensor. Tensors of one storage are copied as one run of bytes and viewed again; small tensors are placed in one
arena, each with its own storage, so that saving one of them does not save them all.

One `torch._foreach_copy_` over all tensors runs at memory bandwidth. The page faults of fresh memory cost up to ten times as
much, so memory can be reused (`onto`), and large blocks use huge pages (docs/performance.md, row
"snapshot into reused memory").
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from statedict.state import arena

from ..tensors._copy_pairs import addresses
from ..tensors._kinds import examples_of
from ..tensors._wrapper import inner_tensors, is_wrapper, with_parts
from ._shared_memory import ALIGNMENT, Block, MemoryLayout, address_of, alike, layout, overlap, place, strides

# Bytes. Allocating smaller blocks individually costs more than keeping their neighbours alive in an arena.
SMALL = 1 << 20
# The types that are just strided memory; all others have their own `clone`.
PLAIN_TYPES = {torch.Tensor, torch.nn.Parameter}
# Creating a tensor over memory is faster through NumPy than with `frombuffer` and `view`.
NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(np.bool_),
}
Onto = Sequence[torch.Tensor | None]


def copies(tensors: Sequence[torch.Tensor], onto: Onto = (), *, host: bool = False) -> list[torch.Tensor]:
    """Return a detached copy of each tensor, in order.

    `onto[i]`, if it has the layout that the copy of `tensors[i]` would have, is overwritten and returned. `host` brings
    every copy to the CPU, into pinned memory if that speeds up the transfer; otherwise each copy stays on its tensor's
    device.

    >>> whole = torch.arange(6.0)
    >>> one, two = copies([whole, whole[2:4]])
    >>> one[3] = 9.0
    >>> two, whole[3]
    (tensor([2., 9.]), tensor(3.))
    """
    if not PLAIN_TYPES.issuperset(map(type, tensors)) and any(map(_is_flat, tensors)):
        return _inner_copies(tensors, onto, host)
    # Tensors created in inference mode could not be modified outside of it.
    with torch.inference_mode(False), torch.no_grad():
        examples, which = examples_of(tensors)
        plain = [_is_plain(tensors[n]) for n in examples]
        found = layout(tensors, [n for n, kind in enumerate(which) if plain[kind]])
        made = _reused(found, tensors, which, onto, host) if onto else {}
        pinned = host and any(tensor.is_cuda for tensor in tensors)
        made.update(_lone([n for n in found.lone if n not in made], tensors, host, pinned))
        for block in found.blocks:
            if block.members[0] not in made:
                made.update(zip(block.members, _views(block, tensors, host, pinned)))
        _copy(
            [made[n] for n in found.lone] + [_shown(block, tensors, made) for block in found.blocks],
            [tensors[n] for n in found.lone] + [_bytes(tensors[b.members[0]], b.start, b.nbytes) for b in found.blocks],
        )
        return [made[n] if n in made else _alone(tensor, host) for n, tensor in enumerate(tensors)]


def _is_flat(tensor: torch.Tensor) -> bool:
    """Whether the tensor wraps others, and its class can make one of other inner tensors."""
    if not is_wrapper(tensor) or not hasattr(tensor, "__tensor_unflatten__"):
        return False
    return all(isinstance(part, torch.Tensor) for part in inner_tensors(tensor).values())


def _inner_copies(tensors: Sequence[torch.Tensor], onto: Onto, host: bool) -> list[torch.Tensor]:
    """Return copies where some tensors wrap others: their inner tensors are copied with the rest, so that ties are kept."""
    expanded: list[torch.Tensor] = []
    targets: list[torch.Tensor | None] = []
    ranges = []
    for number, tensor in enumerate(tensors):
        inner = inner_tensors(tensor) if _is_flat(tensor) else None
        ranges.append((inner, len(expanded)))
        expanded += [tensor] if inner is None else inner.values()
        targets += [(onto[number] if onto else None) if inner is None else None] * (1 if inner is None else len(inner))
    made = copies(expanded, targets, host=host)
    return [
        made[at] if inner is None else with_parts(tensor.detach(), dict(zip(inner, made[at : at + len(inner)])))
        for tensor, (inner, at) in zip(tensors, ranges)
    ]


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_neg() or tensor.is_conj() or tensor.is_nested)
        and tensor.numel() > 0
    )


def _alone(tensor: torch.Tensor, host: bool) -> torch.Tensor:
    """Copy a tensor by its own method: sparse, quantised, nested, meta, subclass, empty."""
    if torch.nn.parameter.is_lazy(tensor):
        return lazy_copy(tensor)
    if host and tensor.device.type not in ("cpu", "meta"):
        return tensor.detach().to("cpu", copy=True)
    return tensor.detach().clone()


def lazy_copy(tensor: Any) -> torch.Tensor:
    """Copy a lazy parameter or buffer. (PyTorch can copy only lazy parameters.)"""
    with torch._C.DisableTorchFunctionSubclass():
        made: torch.Tensor = type(tensor)(tensor.requires_grad, tensor.data.device, tensor.data.dtype)
    made.__dict__.update(deepcopy(tensor.__dict__))
    return made


# memory for the copies


def _reused(
    found: MemoryLayout, tensors: Sequence[torch.Tensor], which: Sequence[int], onto: Onto, host: bool
) -> dict[int, torch.Tensor]:
    """The tensors of `onto` that are reused; none if they overlap each other or the source."""
    kept = _fitting(found.lone, tensors, which, onto, host)
    starts = [*found.live, *addresses(list(kept.values()))]
    sizes = [*found.live.values(), *(k.nbytes for k in kept.values())]
    for block in found.blocks:
        address = address_of(block, tensors, onto, _device(tensors[block.members[0]], host))
        if address is not None:
            starts.append(address)
            sizes.append(block.nbytes)
            kept.update((n, k) for n in block.members if (k := onto[n]) is not None)
    return {} if overlap(starts, sizes) else kept


def _fitting(
    lone: Sequence[int], tensors: Sequence[torch.Tensor], which: Sequence[int], onto: Onto, host: bool
) -> dict[int, torch.Tensor]:
    """The tensors of `onto` that fit tensors without shared memory; each pair of kinds is compared once."""
    offered = {n: k for n in lone if (k := onto[n]) is not None}
    pairs = list(zip(map(which.__getitem__, offered), examples_of(list(offered.values()))[1]))
    fits = {
        pair: alike(tensors[n], onto[n], _device(tensors[n], host), strides(tensors[n]))
        for pair, n in dict(zip(pairs, offered)).items()
    }
    return {n: k for (n, k), pair in zip(offered.items(), pairs) if fits[pair]}


def _device(tensor: torch.Tensor, host: bool) -> torch.device:
    return torch.device("cpu") if host else tensor.device


def _lone(chosen: Sequence[int], tensors: Sequence[torch.Tensor], host: bool, pinned: bool) -> dict[int, torch.Tensor]:
    """Fresh memory for tensors without shared memory."""
    here = [n for n in chosen if host or tensors[n].is_cpu]
    small = sum(_rounded(tensors[n].nbytes) for n in here if tensors[n].nbytes < SMALL)
    shared, at = _memory(small, pinned), 0
    made = {}
    for n in here:
        nbytes = tensors[n].nbytes
        if nbytes < SMALL:
            made[n] = _over(shared, at, tensors[n])
            at += _rounded(nbytes)
        else:
            made[n] = _over(_memory(nbytes, pinned), 0, tensors[n])
    return made | {n: torch.empty_like(tensors[n]) for n in chosen if n not in made}


def _over(memory: memoryview, at: int, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor like `tensor`, over the memory from byte `at` on."""
    dtype = NUMPY_DTYPES.get(tensor.dtype)
    if dtype is not None and tensor.is_contiguous():
        return torch.from_numpy(np.ndarray(tensor.shape, dtype, memory, at))
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=at)
    return flat.as_strided(tensor.shape, strides(tensor))


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _memory(nbytes: int, pinned: bool) -> memoryview:
    if not pinned:
        return arena(nbytes)
    # PyTorch's pinned allocator rounds up to a power of two and caches freed memory for the next snapshot.
    view: memoryview = torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True).numpy().data
    return view


def _views(block: Block, tensors: Sequence[torch.Tensor], host: bool, pinned: bool) -> list[torch.Tensor]:
    """The block's tensors over fresh memory."""
    size = _rounded(block.nbytes)
    device = _device(tensors[block.members[0]], host)
    if device.type == "cpu":
        raw = torch.frombuffer(_memory(size, pinned), dtype=torch.uint8, count=size)
    else:
        raw = torch.empty(size, dtype=torch.uint8, device=device)
    members = [tensors[n] for n in block.members]
    return [raw.view(t.dtype).as_strided(t.shape, t.stride(), place(block, t) // t.itemsize) for t in members]


# copying


def _shown(block: Block, tensors: Sequence[torch.Tensor], made: dict[int, torch.Tensor]) -> torch.Tensor:
    """The bytes of the block's copy, as one tensor."""
    first = block.members[0]
    at = made[first].data_ptr() - made[first].untyped_storage().data_ptr()
    return _bytes(made[first], at - place(block, tensors[first]), block.nbytes)


def _bytes(tensor: torch.Tensor, start: int, nbytes: int) -> torch.Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), start, (nbytes,), (1,))


def _copy(destinations: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Make one batched copy per device; those of CUDA devices run on their own streams and are synchronised at the end."""
    by_device: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for destination, source in zip(destinations, sources):
        to, from_ = by_device.setdefault(source.device, ([], []))
        to.append(destination)
        from_.append(source)
    streams = [_copy_cuda(d, *pair) for d, pair in by_device.items() if d.type == "cuda"]
    for device, pair in by_device.items():
        if device.type != "cuda":
            torch._foreach_copy_(*pair)
    for stream in streams:
        stream.synchronize()


def _copy_cuda(
    device: torch.device, destinations: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]
) -> torch.cuda.Stream:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # Wait for the operations that the model's stream has queued: their results belong to the state.
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        torch._foreach_copy_(list(destinations), list(sources), non_blocking=True)
    return stream
