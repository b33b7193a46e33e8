"""Lookup tables between PyTorch's dtypes and this library's."""

from __future__ import annotations

import torch

from statedict.state import DTYPES, DType

TORCH_DTYPES: dict[DType, torch.dtype] = {
    dtype: found for name, dtype in DTYPES.items() if isinstance(found := getattr(torch, name, None), torch.dtype)
}
DTYPES_OF_TORCH: dict[torch.dtype, DType] = {theirs: ours for ours, theirs in TORCH_DTYPES.items()}
# The ordinary dtype that stores the elements of a quantised dtype; the quantised tensor is made from it.
CARRIERS: dict[DType, torch.dtype] = {
    ours: {"qint8": torch.int8, "qint32": torch.int32}.get(name, torch.uint8)
    for name, ours in DTYPES.items()
    if ours.kind == "quantized"
}
# Several elements share one byte; a leaf contains the bytes.
PACKED = frozenset({"quint4x2", "quint2x4"})
# The dtypes that can be copied and cast to each other.
NUMBERS = frozenset(
    theirs for ours, theirs in TORCH_DTYPES.items() if ours.kind in ("float", "complex", "int", "uint", "bool")
)
