"""The dtypes that a tensor can have: those of PyTorch, under PyTorch's names.

A DType has a name and a size; the NumPy dtype that carries its elements is looked up on first use, so that listing a file
imports neither numpy nor ml_dtypes. For dtypes that NumPy does not have (sub-byte integers, quantised types, bits), the
carrier is an integer of the same size: it preserves the bytes, but is not meant for arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["float", "complex", "int", "uint", "bool", "quantized", "bits"]


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """A dtype. Each exists once: compare with `is` or `==`, and look one up with `dtype("float32")`.

    Attributes:
        name: PyTorch's name without the `torch.`, for example `"bfloat16"`.
        itemsize: bytes per element.
        kind: the kind of its elements.
        carrier: the NumPy dtype that carries its elements, such as `"<f4"` or `"ml_dtypes.bfloat16"`.
    """

    name: str
    itemsize: int
    kind: Kind
    carrier: str

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype that carries the elements (little-endian).

        >>> dtype("float16").numpy
        dtype('float16')
        """
        import numpy as np

        if not self.carrier.startswith("ml_dtypes."):
            return np.dtype(self.carrier) if "," not in self.carrier else np.dtype([("real", "<f2"), ("imag", "<f2")])
        import ml_dtypes

        found: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, self.carrier.removeprefix("ml_dtypes.")))
        return found

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        return self.kind == "complex"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"dtype({self.name!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return dtype, (self.name,)


def dtype(given: object) -> DType:
    """Return the DType of a name, with or without `torch.`, or for a dtype of torch or NumPy.

    Raises KeyError if it does not exist.

    >>> import numpy
    >>> dtype("torch.float32").itemsize, dtype(numpy.float16), dtype("bf16")
    (4, dtype('float16'), dtype('bfloat16'))
    """
    short = (given.__name__ if isinstance(given, type) else str(given)).removeprefix("torch.")
    return DTYPES[ALIASES.get(short, short)]


def _rows() -> list[DType]:
    ml = "ml_dtypes."
    rows = [
        DType("float64", 8, "float", "<f8"),
        DType("float32", 4, "float", "<f4"),
        DType("float16", 2, "float", "<f2"),
        DType("bfloat16", 2, "float", ml + "bfloat16"),
        DType("float8_e4m3fn", 1, "float", ml + "float8_e4m3fn"),
        DType("float8_e4m3fnuz", 1, "float", ml + "float8_e4m3fnuz"),
        DType("float8_e5m2", 1, "float", ml + "float8_e5m2"),
        DType("float8_e5m2fnuz", 1, "float", ml + "float8_e5m2fnuz"),
        DType("float8_e8m0fnu", 1, "float", ml + "float8_e8m0fnu"),
        DType("float4_e2m1fn_x2", 1, "bits", "|u1"),
        DType("complex128", 16, "complex", "<c16"),
        DType("complex64", 8, "complex", "<c8"),
        DType("complex32", 4, "complex", "<f2,<f2"),
        DType("bool", 1, "bool", "|b1"),
        DType("quint8", 1, "quantized", "|u1"),
        DType("qint8", 1, "quantized", "|i1"),
        DType("qint32", 4, "quantized", "<i4"),
        DType("quint4x2", 1, "quantized", "|u1"),
        DType("quint2x4", 1, "quantized", "|u1"),
        DType("bits1x8", 1, "bits", "|u1"),
        DType("bits2x4", 1, "bits", "|u1"),
        DType("bits4x2", 1, "bits", "|u1"),
        DType("bits8", 1, "bits", "|u1"),
        DType("bits16", 2, "bits", "<u2"),
    ]
    rows += [DType(f"int{8 * n}", n, "int", f"{'<' if n > 1 else '|'}i{n}") for n in (8, 4, 2, 1)]
    rows += [DType(f"uint{8 * n}", n, "uint", f"{'<' if n > 1 else '|'}u{n}") for n in (8, 4, 2, 1)]
    rows += [DType(f"int{n}", 1, "bits", "|i1") for n in range(1, 8)]
    rows += [DType(f"uint{n}", 1, "bits", "|u1") for n in range(1, 8)]
    return rows


ALIASES = {
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "float": "float32",
    "fp32": "float32",
    "double": "float64",
    "fp64": "float64",
}
DTYPES: dict[str, DType] = {row.name: row for row in _rows()}
