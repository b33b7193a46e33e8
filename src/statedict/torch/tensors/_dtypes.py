"""PyTorch's dtypes and this library's, both ways."""

from __future__ import annotations

import torch

from statedict.state import DTYPES, DType

TORCH_DTYPES: dict[DType, torch.dtype] = {
    dtype: found for name, dtype in DTYPES.items() if isinstance(found := getattr(torch, name, None), torch.dtype)
}
DTYPES_OF_TORCH: dict[torch.dtype, DType] = {theirs: ours for ours, theirs in TORCH_DTYPES.items()}
# What carries a quantised dtype's elements in an ordinary tensor; the quantised tensor is made around it.
CARRIERS: dict[DType, torch.dtype] = {
    ours: {"qint8": torch.int8, "qint32": torch.int32}.get(name, torch.uint8)
    for name, ours in DTYPES.items()
    if ours.kind == "quantized"
}
# Several elements lie in one byte: a leaf shows the bytes.
PACKED = frozenset({"quint4x2", "quint2x4"})
# Those that can be copied and cast among one another.
NUMBERS = frozenset(
    theirs for ours, theirs in TORCH_DTYPES.items() if ours.kind in ("float", "complex", "int", "uint", "bool")
)
