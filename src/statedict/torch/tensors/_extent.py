"""The range of a tensor's elements, for `cast_kind`; one pass if all of them are finite."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from statedict.state import ValueRange, joined

# Dtypes without `aminmax` in PyTorch are widened, this many elements at a time.
PIECE = 1 << 22
_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}
_TOP = 1 << 63


def extent(tensor: torch.Tensor) -> ValueRange:
    """Return the range of the elements (of a sparse or nested tensor: of its stored elements).

    >>> extent(torch.tensor([3.0, -torch.inf, 1.5]))
    ValueRange(low=1.5, high=3.0, nan=False, infinite=True)
    """
    with torch.no_grad():
        return joined(map(_of_piece, _pieces(_elements(tensor.detach()))))


def _elements(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_nested or tensor.layout is not torch.strided:
        tensor = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if not tensor.numel():
        return
    wider = torch.float32 if tensor.is_floating_point() and tensor.itemsize == 1 else _WIDER.get(tensor.dtype)
    if wider is None:
        yield tensor
    else:
        yield from (piece.to(wider) for piece in torch.split(tensor.reshape(-1), PIECE))


def _of_piece(piece: torch.Tensor) -> ValueRange:
    if piece.dtype is torch.uint64:
        # With the highest bit flipped, unsigned integers have the order of signed ones.
        least, greatest = _bounds(piece.view(torch.int64) ^ -_TOP)
        return ValueRange(least + _TOP, greatest + _TOP)
    low, high = _bounds(piece)
    if not piece.is_floating_point() or (abs(low) < torch.inf and abs(high) < torch.inf):
        return ValueRange(low, high)
    finite = piece[piece.isfinite()]
    low, high = _bounds(finite) if finite.numel() else (0, 0)
    return ValueRange(low, high, bool(piece.isnan().any()), bool(piece.isinf().any()))


def _bounds(piece: torch.Tensor) -> tuple[float, float]:
    low, high = piece.aminmax()
    return low.item(), high.item()
