"""One table of odd tensors through the verbs that look at elements: diff, merge, fingerprint, to, numpy, snapshot, save."""

import io

import numpy as np
import pytest

import statedict
from statedict.report._survey import measure
from statedict.state import Leaf, leaf_of

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions"),
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype"),
]


def numbers(dtype, start=0):
    return torch.arange(start, start + 12, dtype=torch.float32).to(getattr(torch, dtype)).reshape(3, 4)


def imaginary(tensor):
    return torch.complex(tensor, tensor + 1).to(torch.complex64)


DTYPES = [
    *("float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    *("complex128", "complex64", "complex32", "int64", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
]
STRIDED = {
    "0-dim": lambda n: torch.tensor(float(n)),
    "0-dim of integers": lambda n: torch.tensor(n),
    "empty": lambda n: torch.zeros(0, 3 + n),
    "every other": lambda n: torch.arange(n, n + 12.0)[::2],
    "every other bfloat16": lambda n: torch.arange(n, n + 12).bfloat16()[::2],
    "every other complex": lambda n: imaginary(torch.arange(n, n + 12.0))[::2],
    "transposed": lambda n: numbers("float32", n).T,
    "a column": lambda n: numbers("float32", n)[:, 1],
    "expanded": lambda n: torch.tensor([1.0 + n]).expand(3, 4),
    "expanded columns": lambda n: torch.arange(n, n + 3.0)[:, None].expand(3, 4),
    "conjugated": lambda n: imaginary(numbers("float32", n)).conj(),
    "negated": lambda n: imaginary(numbers("float32", n)).conj().imag,
    "conjugated 0-dim": lambda n: torch.tensor(complex(n, 2)).conj(),
    "channels last": lambda n: torch.arange(n, n + 24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "conjugated complex32": lambda n: imaginary(numbers("float32", n)).to(torch.complex32).conj(),
    "special numbers": lambda n: torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, n]),
    **{dtype: lambda n, dtype=dtype: numbers(dtype, n) for dtype in DTYPES},
}
NUMPY = {
    "negative strides": lambda n: np.arange(n, n + 6.0)[::-1],
    "big endian": lambda n: np.arange(n, n + 6, dtype=">i4"),
    "odd strides": lambda n: np.array([(n + i, i) for i in range(6)], "f4,i2")["f0"],
}
COMPOUND = {
    "sparse": lambda n: numbers("float32", n).to_sparse(),
    "sparse rows": lambda n: numbers("float32", n).to_sparse_csr(),
    "quantised": lambda n: torch.quantize_per_tensor(numbers("float32"), 0.5 + n, 3, torch.qint8),
    "quantised by channel": lambda n: torch.quantize_per_channel(
        numbers("float32"), torch.tensor([1.0, 2.0, 3.0 + n]), torch.tensor([0, 1, 2]), 0, torch.quint8
    ),
    "nested": lambda n: torch.nested.nested_tensor([torch.ones(2, 3) * n, torch.zeros(1, 3)]),
}
OTHER = {
    "text": lambda n: np.array(["a", f"b{n}"]),
    "records": lambda n: np.array([(1.0, n)], "f4,i4"),
    "objects": lambda n: np.array([None, n]),
    "dates": lambda n: np.array([n], "M8[s]"),
}
LEAVES = {**STRIDED, **NUMPY}
ALL = {**LEAVES, **COMPOUND, **OTHER}


def state(value):
    return statedict.StateDict({"before": torch.ones(2), "odd": value})


@pytest.mark.parametrize("name", ALL)
def test_diff_of_equal_and_of_others(name):
    """A value equals its copy, and not one that differs."""
    make = ALL[name]
    assert not statedict.diff(state(make(0)), state(make(0)))
    assert statedict.diff(state(make(0)), state(make(1)))


@pytest.mark.parametrize("name", [*LEAVES, *COMPOUND])
def test_fingerprints_tell_states_apart(name):
    """Equal states have equal fingerprints, also when they were saved and loaded; others do not."""
    make = ALL[name]
    whole = {n: state(make(n)).fingerprint() for n in (0, 1)}
    assert whole[0] != whole[1]
    assert state(make(0)).fingerprint() == whole[0]


@pytest.mark.parametrize("name", [*LEAVES, *COMPOUND])
def test_fingerprints_do_not_depend_on_how_a_state_is_stored(name, tmp_path):
    """A state that is saved and loaded has the same fingerprint, and equals itself."""
    given = state(ALL[name](1))
    statedict.save(given, tmp_path / "state.pt")
    with statedict.open(tmp_path / "state.pt") as checkpoint:
        assert checkpoint.state_dict().fingerprint() == given.fingerprint()
        assert not statedict.diff(checkpoint, given)


@pytest.mark.parametrize("name", LEAVES)
def test_the_mean_of_equal_tensors_is_the_tensor(name):
    """Merging gives the elements of a tensor that all states have."""
    given = state(ALL[name](1))
    assert not statedict.diff(statedict.merge([given, given]), given)


@pytest.mark.parametrize("name", LEAVES)
def test_a_cast_there_and_back_through_a_wider_dtype_keeps_the_elements(name):
    """`to` gives every element; what is not floating stays."""
    given = state(ALL[name](1))
    dtype = given.spec("odd").dtype
    there = given.to("float64")
    assert there.spec("odd").shape == given.spec("odd").shape
    assert not statedict.diff(there.to(dtype) if dtype.is_floating else there, given).changed


@pytest.mark.parametrize("name", LEAVES)
def test_statistics_of_the_elements(name):
    """A change of every kind of tensor is told in finite numbers where there are finite elements."""
    make = ALL[name]
    found = statedict.diff(state(make(0)), state(make(1)))
    for change in found.changed.values():
        assert 0 < change.changed <= change.elements
        assert change.max_abs > 0
        assert -1 <= change.cosine <= 1
    assert found.changed or found.shape


@pytest.mark.parametrize("name", ALL)
def test_numpy_and_snapshot_take_what_is_beside_tensors(name):
    """Every value survives `numpy()` and `snapshot`."""
    given = state(ALL[name](1))
    assert not statedict.diff(given.numpy(), given)
    assert not statedict.diff(statedict.snapshot(given), given)


@pytest.mark.parametrize("name", LEAVES)
def test_a_copy_of_memory_shares_nothing(name):
    """A snapshot does not alias what it was taken of."""
    given = state(ALL[name](1))
    ours, theirs = (leaf_of(one["odd"]) for one in (given, statedict.snapshot(given)))
    assert isinstance(ours, Leaf)
    assert isinstance(theirs, Leaf)
    assert not ours.spec.numel or ours.storage.key != theirs.storage.key


def bits(tensor):
    """The elements, however they are stored."""
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return tensor.dtype, tuple(tensor.shape), plain.reshape(-1).view(torch.uint8).tolist()


def saved(save, tensors, **options):
    """The state in a file that `save` writes."""
    file = io.BytesIO()
    save(tensors, file, **options)
    file.seek(0)
    return statedict.open(file).state_dict()


# What every format can store; and a cast of NaN may give another NaN.
SAVED = [name for name in STRIDED if name not in ("complex32", "conjugated complex32", "complex128", "special numbers")]
# `torch.save` keeps the strides, and with them elements of the storage that the tensor does not show.
WAYS = {"live": statedict.StateDict, "in a file": lambda tensors: saved(torch.save, tensors)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SAVED)
def test_files_of_every_format_have_pytorchs_elements(name, way):
    """What is saved and opened again has the dtype, shape and elements of the tensor; with `to`, those of PyTorch's cast."""
    tensor = STRIDED[name](1)
    given = WAYS[way]({"w": tensor})
    cast = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
    for format in ("torch", "safetensors", "npz"):
        assert bits(saved(statedict.save, given, format=format).torch()["w"]) == bits(tensor)
    assert bits(saved(statedict.save, given.to("bfloat16")).torch()["w"]) == bits(cast)
    assert bits(given.to("bfloat16").torch()["w"]) == bits(cast)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SAVED)
def test_a_model_gets_pytorchs_elements(name, way):
    """The elements arrive in a tensor of the same shape with other strides; statistics look at every element."""
    tensor = STRIDED[name](1)
    given = WAYS[way]({"w": tensor})
    model = torch.nn.Module()
    model.register_buffer("w", torch.zeros(tensor.shape, dtype=tensor.dtype))
    statedict.load_state_dict(model, given)
    assert bits(model.w) == bits(tensor)
    assert np.shape(given.numpy()["w"]) == tuple(tensor.shape)
    measure(leaf_of(given.leaf("w")), 12)
