"""The names of dtypes, storage types and tensor types in torch's pickles: one table for both directions.

PyTorch froze the list of `<type>Storage` classes. A dtype in it is saved as `torch.FloatStorage` and rebuilt by
`_rebuild_tensor_v2`; a newer one is saved as bytes (`torch.storage.UntypedStorage`) and rebuilt by
`_rebuild_tensor_v3`, which takes the dtype.
"""

from __future__ import annotations

from statedict.state import DTYPES, DType

from ._values import TorchConstant

_STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
    "bfloat16": "BFloat16",
    "complex128": "ComplexDouble",
    "complex64": "ComplexFloat",
    "quint8": "QUInt8",
    "qint8": "QInt8",
    "qint32": "QInt32",
    "quint4x2": "QUInt4x2",
    "quint2x4": "QUInt2x4",
}
_ALIASES = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
_UNTYPED = ("UntypedStorage", "_UntypedStorage")

STORAGE_NAME: dict[DType, str] = {DTYPES[name]: f"{prefix}Storage" for name, prefix in _STORAGES.items()}
"""The storage class in `torch` of each DType; other dtypes are saved untyped."""

STORAGE_DTYPE: dict[str, DType | None] = {
    **{name: dtype for dtype, name in STORAGE_NAME.items()},
    **dict.fromkeys(_UNTYPED, None),
}
"""The inverse; None for untyped storages."""

PACKED = {"quint4x2": 2, "quint2x4": 4}
"""Elements per byte of the quantised dtypes with packed rows."""

TENSOR_NAMES = {f"{prefix}Tensor" for prefix in _STORAGES.values()} | {"Tensor"}


def storage_dtype(module: str, name: str) -> DType | None:
    """Return the element type of a storage class, None for the untyped one; raise KeyError for anything else."""
    if module.partition(".")[0] != "torch":
        raise KeyError(name)
    return STORAGE_DTYPE[name]


def is_tensor_type(module: str, name: str) -> bool:
    """Return whether the global is a class of plain tensors: `torch.Tensor`, `torch.cuda.FloatTensor` …"""
    return name in TENSOR_NAMES and module in ("torch", "torch.cuda", "torch.tensor", "torch._tensor", "torch.sparse")


TORCH_CONSTANTS: dict[str, object] = {
    **DTYPES,
    **{alias: DTYPES[name] for alias, name in _ALIASES.items()},
    **{
        name: TorchConstant("layout", name)
        for name in ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged")
    },
    **{
        name: TorchConstant("memory_format", name)
        for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
    },
    **{
        name: TorchConstant("qscheme", name)
        for name in (
            "per_tensor_affine",
            "per_channel_affine",
            "per_tensor_symmetric",
            "per_channel_symmetric",
            "per_channel_affine_float_qparams",
        )
    },
}
"""The inert value of each constant `torch.<name>`."""

# Names that Tensor computes or keeps in C: setting them is not an ordinary attribute assignment.
RESERVED = frozenset(
    name
    for line in (
        "T H mT mH data grad grad_fn requires_grad real imag names shape dtype device layout itemsize nbytes ndim name",
        "is_leaf output_nr retains_grad volatile grad_dtype _grad _grad_fn _base _cdata _version _backward_hooks",
        "_post_accumulate_grad_hooks _python_dispatch _has_symbolic_sizes_strides",
    )
    for name in line.split()
)


def is_attribute(name: object) -> bool:
    """Return whether a file may set an attribute of this name on a tensor."""
    return type(name) is str and name.isidentifier() and not name.startswith("__") and name not in RESERVED
