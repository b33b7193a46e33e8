"""Casts between all dtypes of numbers: exact numbers are the oracle of what is lost, PyTorch of the elements."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from statedict.state import DTYPES, cast_array, cast_kind, value_range

pytest.importorskip("torch")
import torch

from statedict.torch.tensors._dtypes import TORCH_DTYPES
from statedict.torch.tensors._extent import extent as torch_extent

NUMBERS = [d for d in DTYPES.values() if d.kind in ("float", "complex", "int", "uint", "bool")]
pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:Casting complex values to real"),
]


def others(found):
    return [dtype for dtype in NUMBERS if dtype is not found]


def elements(dtype, seed, count=64):
    """Elements of random bits, half of them of few bits, so that all magnitudes occur; NaN and infinities among them."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    if dtype.kind == "bool":
        raw &= 1
    elif dtype.kind in ("int", "uint"):
        words = raw.view(dtype.numpy)
        words[::2] >>= rng.integers(0, 8 * dtype.itemsize, words[::2].shape).astype(words.dtype)
    tensor = torch.from_numpy(raw).view(TORCH_DTYPES[dtype])
    if dtype.kind in ("float", "complex"):
        usual = torch.from_numpy(np.exp(rng.normal(0, 5, count // 2)) * rng.choice([-1, 1], count // 2))
        tensor[::2].copy_(usual)
    return tensor


def numpy_of(tensor, dtype):
    """The same elements as NumPy has them."""
    return tensor.view(torch.uint8).numpy().view(dtype.numpy)


def exact(tensor):
    """The parts of the elements as exact numbers; NaN and infinities as they are."""
    if tensor.is_complex():
        wide = tensor.to(torch.complex128)
        return exact(torch.cat([wide.real, wide.imag]))
    if tensor.is_floating_point():
        return [Fraction(x) if np.isfinite(x) else x for x in tensor.to(torch.float64).tolist()]
    return [Fraction(int(x)) for x in tensor.tolist()]


def largest(dtype):
    parts = {"complex128": torch.float64, "complex64": torch.float32, "complex32": torch.float16}
    return torch.finfo(parts.get(dtype.name, TORCH_DTYPES[dtype]))


def is_lost(value, wanted):
    """Whether the element is outside of the range: an exact number, or NaN or an infinity."""
    if wanted.kind in ("int", "uint", "bool"):
        bits = 1 if wanted.kind == "bool" else 8 * wanted.itemsize
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if wanted.kind == "int" else (0, 2**bits - 1)
        return not isinstance(value, Fraction) or not low <= int(value) <= high
    has_infinity = wanted.name not in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    if not isinstance(value, Fraction):
        return not np.isnan(value) and not has_infinity
    if wanted.name == "float8_e8m0fnu" and value < 0:
        return True
    facts = largest(wanted)
    top = Fraction(facts.max)
    precision = {"float8_e5m2fnuz": 2, "float8_e8m0fnu": 0}  # of which PyTorch says something else
    step = 2 ** (int(top).bit_length() - 1) * Fraction(2.0 ** -precision.get(wanted.name, -np.log2(facts.eps)))
    tie = top + step / 2
    return abs(value) > tie or (abs(value) == tie and wanted.name != "float8_e4m3fn")


@pytest.mark.parametrize("found", NUMBERS, ids=str)
def test_the_kind_is_that_of_the_exact_range(found):
    """A cast overflows if an element is outside of the wanted dtype's range, whichever library tells the range."""
    for wanted, seed in itertools.product(others(found), range(6)):
        tensor = elements(found, seed, 8)
        kinds = {
            cast_kind(found, wanted, lambda t=tensor: torch_extent(t)),
            cast_kind(found, wanted, lambda t=tensor: value_range(numpy_of(t, found), found)),
        }
        lost = any(is_lost(value, wanted) for value in exact(tensor))
        if found.is_complex and not wanted.is_complex:
            assert kinds == {"imaginary"}
        else:
            assert (kinds == {"overflow"}) == lost, (tensor, kinds)
            assert len(kinds) == 1


@pytest.mark.parametrize("found", NUMBERS, ids=str)
def test_widening_keeps_each_element(found):
    """A cast that is called widening gives the same exact numbers, NaN and infinities."""
    tensor = elements(found, 1, 256)
    kinds = {wanted: cast_kind(found, wanted, lambda: torch_extent(tensor)) for wanted in others(found)}
    for wanted in [wanted for wanted, kind in kinds.items() if kind == "widening"]:
        there = torch.zeros(tensor.shape, dtype=TORCH_DTYPES[wanted]).copy_(tensor)
        if wanted.is_complex and not found.is_complex:
            there = there.to(torch.complex128).real
        np.testing.assert_equal(exact(there), exact(tensor))


@pytest.mark.parametrize("found", NUMBERS, ids=str)
def test_casts_without_torch_give_its_elements(found):
    """NumPy's elements are PyTorch's, bit for bit, but for NaN's payload, and integers out of range, which C leaves open."""
    tensor = elements(found, 2, 1024)
    for wanted in others(found):
        check_cast(tensor, found, wanted)


def check_cast(tensor, found, wanted):
    theirs = numpy_of(torch.zeros(tensor.shape, dtype=TORCH_DTYPES[wanted]).copy_(tensor), wanted)
    array = cast_array(numpy_of(tensor, found), wanted)
    defined = np.ones(len(array), bool)
    if found.kind in ("float", "complex") and wanted.kind in ("int", "uint"):
        parts = exact(tensor)
        defined = np.array([not is_lost(value, wanted) for value in parts[: len(array)]])
    elif found.kind in ("float", "complex") and wanted.kind != "bool":
        parts = [array["real"], array["imag"]] if array.dtype.names else [array.real, array.imag]
        defined = np.logical_and(*(part == part for part in parts))
    bits = [one.view(np.uint8).reshape(len(array), -1) for one in (array, theirs)]
    np.testing.assert_array_equal(bits[0][defined], bits[1][defined])


EDGES = [
    ("uint8", [200], "int8", "overflow"),
    ("uint8", [255], "int8", "overflow"),
    ("uint8", [127], "int8", "widening"),
    ("int8", [-1], "uint64", "overflow"),
    ("int64", [2**53 + 1], "uint64", "widening"),
    ("int64", [-(2**53) - 1], "uint64", "overflow"),
    ("uint64", [2**63], "int64", "overflow"),
    ("uint64", [2**63 - 1], "int64", "widening"),
    ("float32", [float("nan")], "int64", "overflow"),
    ("float32", [float("-inf")], "int64", "overflow"),
    ("float64", [2.0**63], "int64", "overflow"),
    ("float32", [255.9], "uint8", "truncation"),
    ("float32", [-0.9], "uint8", "truncation"),
    ("float32", [256.0], "uint8", "overflow"),
    ("float32", [65519.9], "float16", "rounding"),
    ("float32", [65520.0], "float16", "overflow"),
    ("float64", [65520 - 1e-9], "float16", "overflow"),  # by way of float32, as PyTorch does it
    ("float32", [464.0], "float8_e4m3fn", "rounding"),
    ("float32", [465.0], "float8_e4m3fn", "overflow"),
    ("float32", [float("inf")], "float8_e4m3fn", "overflow"),
    ("float32", [float("inf")], "float8_e5m2", "rounding"),
    ("float32", [float("nan")], "float8_e4m3fn", "rounding"),
    ("float32", [-1.0], "float8_e8m0fnu", "overflow"),
    ("float8_e5m2", [1.0], "bfloat16", "widening"),
    ("float8_e8m0fnu", [2.0], "bfloat16", "widening"),
    ("float8_e8m0fnu", [2.0**100], "float16", "overflow"),
    ("int64", [70000], "float16", "overflow"),
    ("int64", [2**62], "float32", "rounding"),
    ("uint16", [65535], "float16", "overflow"),
    ("int16", [2], "bool", "overflow"),
    ("int16", [1], "bool", "widening"),
    ("int64", [], "int8", "widening"),
    ("float64", [], "float16", "rounding"),
    ("complex128", [1e300j], "complex64", "overflow"),
    ("complex64", [1e5j], "complex32", "overflow"),
]


@pytest.mark.parametrize(("found", "values", "wanted", "kind"), EDGES)
def test_kinds_at_the_edges(found, values, wanted, kind):
    """The last element that is kept, the first that is lost, and dtypes without a range."""
    one, other = DTYPES[found], DTYPES[wanted]
    usual = np.uint64 if found == "uint64" else np.complex128 if one.is_complex else None
    tensor = torch.from_numpy(np.array(values, usual)).to(TORCH_DTYPES[one])
    array = numpy_of(tensor, one) if tensor.numel() else np.empty(0, one.numpy)
    assert cast_kind(one, other, lambda: torch_extent(tensor)) == kind
    assert cast_kind(one, other, lambda: value_range(array, one)) == kind
