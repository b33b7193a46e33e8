"""diff: what changed from one state to another, in bounded memory; NumPy by hand is the oracle."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from statedict.errors import CollisionError
from statedict.plan import diff
from statedict.plan.comparing._statistics import compare, same
from statedict.state import Compound, Leaf, Opaque, StateDict, Storage, contiguous, dtype, leaf_of


def test_every_kind_of_difference():
    """Names, shapes, dtypes, elements, other values and ties each have a list of their own."""
    shared = np.ones(3)
    a = {
        "same": np.ones(2),
        "gone": np.ones(4),
        "shape": np.ones(2),
        "dtype": np.ones(2, "f4"),
        "both": np.ones(2, "f4"),
    }
    a |= {"x": np.array([3.0, 4.0]), "n": 1, "t1": shared, "t2": shared, "u1": np.ones(1), "u2": np.ones(1)}
    other = np.ones(1)
    b = {
        "same": np.ones(2),
        "shape": np.ones(3),
        "dtype": np.ones(2, "f2"),
        "both": np.zeros(2, "f2"),
        "new": np.ones((1, 5)),
    }
    b |= {"x": np.array([3.0, 5.0]), "n": 2, "t1": np.ones(3), "t2": np.ones(3), "u1": other, "u2": other}
    found = diff(a, b)
    assert found.added == {"new": (1, 5)}
    assert found.removed == {"gone": (4,)}
    assert found.shape == {"shape": ((2,), (3,))}
    assert found.dtype == {"dtype": ("float32", "float16"), "both": ("float32", "float16")}
    assert set(found.changed) == {"x", "both"}
    assert found.changed["x"] == (2, 1, 1.0, 1.0, 0.2, pytest.approx(29 / (5 * np.sqrt(34))), 0)
    assert found.values == ("n",)
    assert found.untied == (("t1", "t2"),)
    assert found.tied == (("u1", "u2"),)
    assert found.equal == 5
    assert found


def test_nothing_changed():
    """A state does not differ from itself or from its copy, whatever is in it."""
    opaque = Opaque("a", "B", (1,), {"k": float("nan")})
    state = {
        "a": np.array([np.nan, 1.0]),
        "b": [1, {"c": np.ones(2)}],
        "o": opaque,
        "e": np.zeros((0, 3)),
        "f": float("nan"),
    }
    copied = {
        **state,
        "a": state["a"].copy(),
        "b": [1, {"c": np.ones(2)}],
        "o": Opaque("a", "B", (1,), {"k": float("nan")}),
    }
    assert not diff(state, state)
    found = diff(state, copied)
    assert not found
    assert str(found) == "5 equal"
    assert found.to_dict()["same"] is True


def test_nan_and_infinity():
    """NaN equals NaN and infinity itself; one against a number is counted, and does not spoil the other figures."""
    inf, nan = np.inf, np.nan
    change = compare(
        leaf_of(np.array([nan, nan, inf, inf, 1.0, 2.0])), leaf_of(np.array([nan, 1.0, inf, -inf, 1.0, 3.0]))
    )
    assert (change.changed, change.nan, change.max_abs) == (3, 2, 1.0)
    assert change.relative == pytest.approx(1 / np.sqrt(5))
    assert same(leaf_of(np.array([0.0, nan])), leaf_of(np.array([-0.0, nan])))


@pytest.mark.parametrize(
    "kind", ["float16", "bfloat16", "float8_e4m3fn", "float32", "int64", "uint8", "bool", "complex64"]
)
def test_every_kind_of_number(kind):
    """Differences are found in every element type, also between two of them."""
    numbers = np.array([0, 1, 1, 0, 1]).astype(dtype(kind).numpy)
    flipped = np.array([0, 1, 0, 0, 1]).astype(dtype(kind).numpy)
    assert compare(leaf_of(numbers), leaf_of(flipped))[:3] == (5, 1, 1.0)
    assert same(leaf_of(numbers), leaf_of(numbers.real.astype("f4")))


def test_half_complex_numbers():
    """PyTorch's complex32, which NumPy has only as two halves, is compared as numbers."""
    pairs = np.zeros(3, dtype("complex32").numpy)
    other = pairs.copy()
    other["imag"][1] = 2
    assert compare(leaf_of(pairs), leaf_of(other))[:3] == (3, 1, 2.0)
    assert not same(leaf_of(pairs), leaf_of(other))
    assert same(leaf_of(pairs), leaf_of(pairs.copy()))


def test_integers_beyond_floats():
    """Two integers that are one float apart are not equal."""
    big = leaf_of(np.array([2**62, 2**62 + 1]))
    assert compare(big, leaf_of(np.array([2**62, 2**62]))).changed == 1


finite = arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3)))


@given(finite, st.integers(1, 50), st.data())
def test_figures_by_hand_whatever_the_piece(a, piece, data):
    """The figures are those of the whole tensors, however many pieces they are read in."""
    b = a.copy()
    for place in data.draw(st.lists(st.integers(0, max(len(a) - 1, 0)), max_size=5)) if len(a) else []:
        b[place] += data.draw(st.sampled_from([1.0, -0.5, 0.0]))
    change = compare(leaf_of(a), leaf_of(b), piece)
    assert same(leaf_of(a), leaf_of(b), piece) is (change is None) is bool((a == b).all())
    if change is None:
        return
    assert change.changed == (a != b).sum()
    assert change.max_abs == np.abs(a - b).max(initial=0)
    assert change.distance == pytest.approx(np.linalg.norm(a - b), abs=1e-12)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if all(norms):
        assert change.relative == pytest.approx(np.linalg.norm(a - b) / norms[0], abs=1e-12)
        assert change.cosine == pytest.approx(np.clip(a @ b / norms[0] / norms[1], -1, 1), abs=1e-9)


def test_zero_tensors():
    """If a norm is zero, the ratios are still defined."""
    zero, one = leaf_of(np.zeros(2)), leaf_of(np.ones(2))
    assert compare(zero, one)[4:6] == (float("inf"), 0.0)
    assert compare(one, zero)[4:6] == (1.0, 0.0)
    assert compare(leaf_of(np.array([0, np.nan])), zero)[4:6] == (0.0, 1.0)
    assert compare(zero, leaf_of(np.zeros(2))) is None


class File:
    """A fake file of `size` bytes, all `value`, that is nowhere in memory."""

    def __init__(self, value):
        self.value, self.read = value, 0

    def read_into(self, reads, *, verify=True):
        for _, _, into in reads:
            self.read += len(into)
            into[:] = bytes([self.value]) * len(into)

    def verify(self, storages): ...

    def view(self, storage, *, writable=False):
        return None


def test_tensors_larger_than_the_memory_given():
    """A tensor of half a gigabyte is compared in the memory of some pieces."""
    elements = 1 << 29
    files = File(0), File(1)
    states = [
        {"w": Leaf(contiguous(dtype("uint8"), (elements // 1024, 1024)), Storage(file, ("f", file.value), elements))}
        for file in files
    ]
    for state in states:
        state["w"].spec = contiguous(dtype("uint8"), (elements // 16 // 1024, 1024))  # a part, to be quick
    tracemalloc.start()
    found = diff(*states)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.changed["w"].changed == elements // 16
    assert peak < 100 << 20
    assert files[0].read < 1.2 * elements // 16


def test_each_tensor_is_read_once():
    """Equal and changed tensors are read once, also tied ones; one and the same storage is not read at all."""
    file = File(7)
    leaf = Leaf(contiguous(dtype("uint8"), (100,)), Storage(file, "one", 100))
    assert not diff({"a": leaf, "b": leaf}, {"a": leaf, "b": leaf})
    assert file.read == 0
    copy = Leaf(leaf.spec, Storage(file, "two", 100))
    assert not diff({"a": leaf, "b": leaf}, {"a": copy, "b": copy})
    assert file.read == 200
    other = File(8)
    assert diff({"a": leaf}, {"a": Leaf(leaf.spec, Storage(other, "three", 100))})
    assert (file.read, other.read) == (300, 100)


def test_wrapped_names_are_compared_and_reported():
    """A wrapped checkpoint is compared with a bare one, and the difference of their names is reported."""
    found = diff({"module.a": np.ones(2)}, {"a": np.zeros(2)})
    assert found.renamed == {"module.a": "a"}
    assert list(found.changed) == ["a"]
    assert found.equal == 0
    with pytest.raises(CollisionError):
        diff({"_orig_mod.a": 1, "_forward_module.a": 1}, {"a": 1})


def test_compound_tensors():
    """Sparse tensors are compared by their parts."""

    def sparse(values):
        parts = {"indices": leaf_of(np.array([[0, 2]])), "values": leaf_of(np.array(values))}
        return Compound("sparse_coo", dtype("float64"), (4,), parts, {"coalesced": True})

    assert not diff({"a": sparse([1.0, 2.0])}, {"a": sparse([1.0, 2.0])})
    assert diff({"a": sparse([1.0, 2.0])}, {"a": sparse([1.0, 3.0])}).values == ("a",)
    assert diff({"a": sparse([1.0, 2.0])}, {"a": np.array([1.0, 0, 2.0, 0])}).values == ("a",)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (Opaque("a", "b"), Opaque("a", "c")), (1, np.ones(1))]
)
def test_other_values_that_differ(a, b):
    """Values that are not tensors are equal only if type and parts are equal."""
    assert diff({"x": a}, {"x": b}).values == ("x",)


def test_layers_are_folded_with_their_largest_difference():
    """The same change in every layer is one line, with totals and the largest difference."""
    a = {f"layers.{i}.w": np.ones(4) for i in range(12)}
    b = {name: value + n / 100 for n, (name, value) in enumerate(a.items())}
    text = str(diff(a, b))
    assert text.splitlines() == [
        "11 changed; 1 equal",
        "changed 11:",
        "  layers.{1…11}.w  ×11  44 of 44 elements, by up to 0.11, relative 0.11, cosine 1",
    ]
    assert "layers.{1…11}.w" in diff(a, b)._repr_html_()
    assert (
        json.loads(json.dumps(diff({"a": np.zeros(1)}, {"a": np.ones(1)}).to_dict()))["changed"]["a"]["relative"]
        == "Infinity"
    )


def test_pytorch_states():
    """Live PyTorch tensors are compared where they are."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.weight[0, 0] += 1
    found = diff(before, StateDict(model.state_dict()))
    assert list(found.changed) == ["weight"]
    assert found.changed["weight"][:2] == (6, 1)


def nested(depth, bottom, kind=list):
    """A value inside so many containers."""
    for _ in range(depth):
        bottom = kind([bottom])
    return bottom


def doubled(depth, bottom):
    """A value that holds another twice, which holds another twice …"""
    for _ in range(depth):
        bottom = (bottom, bottom)
    return bottom


def cyclic(first):
    """A list that holds itself."""
    value = [first]
    value.append({"again": value})
    return value


SHAPELY = [
    (lambda leaf: nested(5000, leaf), "deep"),
    (lambda leaf: nested(5000, leaf, tuple), "deep tuples"),
    (lambda leaf: doubled(200, leaf), "shared"),
    (cyclic, "cyclic"),
    (lambda leaf: {"a": [leaf, (leaf, {"b": leaf})]}, "mixed"),
    (lambda leaf: [np.array(["a", str(leaf)])], "text"),
]


@pytest.mark.parametrize("make", [make for make, _ in SHAPELY], ids=[name for _, name in SHAPELY])
def test_values_of_any_form(make):
    """Deep, shared and cyclic values are compared in linear time."""
    assert not diff({"x": make(1.0)}, {"x": make(1.0)})
    assert diff({"x": make(1.0)}, {"x": make(2.0)}).values == ("x",)


def test_cycles_of_another_length_are_unrolled():
    """Two cyclic values that look alike however far they are followed are equal."""
    one, two = [1], [1, [1]]
    one.append(one)
    two[1].append(two)
    assert not diff({"x": one}, {"x": two})


@pytest.mark.parametrize("count", [4, 3 << 20])
def test_expanded_tensors_are_compared_in_pieces(count):
    """A tensor that shows one element many times takes the memory of a piece."""
    one, two = (np.broadcast_to(np.array([value], "f4"), (count,)) for value in (1, 2))
    tracemalloc.start()
    try:
        found = diff({"x": one}, {"x": two}).changed["x"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.changed, found.max_abs) == (count, 1.0)
    assert peak < 80 << 20


def test_strided_tensors_take_their_memory_once():
    """Two strided tensors that differ in their last element are copied once at a time, not again beside the first copies."""
    one = np.ones((1024, 1024), "f4").T
    two = one.copy(order="K")
    two[-1, -1] = 2
    tracemalloc.start()
    found = compare(leaf_of(one), leaf_of(two), piece=1 << 14)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.changed, found.elements) == (1, 1 << 20)
    assert peak < 3 * one.nbytes


STATISTICS = [
    ([2**60], [2**60 + 1], "i8", 1.0),
    ([2**63], [2**63 - 3], "u8", 3.0),
    ([-(2**63)], [2**63 - 1], "i8", 2.0**64),
    ([0], [255], "u1", 255.0),
    ([True, False], [False, False], "?", 1.0),
    ([1e300, 0.0], [2e300, 0.0], "f8", 1e300),
    ([1e-200, 0.0], [3e-200, 0.0], "f8", 2e-200),
    ([3 + 4j], [0], "c16", 5.0),
]


@pytest.mark.parametrize(("old", "new", "kind", "furthest"), STATISTICS)
def test_statistics_at_the_edges_of_a_dtype(old, new, kind, furthest):
    """The largest difference is exact for integers; norms neither overflow nor vanish."""
    found = compare(leaf_of(np.array(old, kind)), leaf_of(np.array(new, kind)))
    assert found.max_abs == pytest.approx(furthest, rel=1e-12)
    assert np.isfinite(found.relative) or not np.any(old)
    assert found.distance == pytest.approx(furthest, rel=1e-12) or kind in ("i8", "u8")  # only one element differs
    assert -1 <= found.cosine <= 1


def test_statistics_of_pieces_of_very_different_size():
    """Pieces are brought to one scale: the norms are those of the whole."""
    old, new = np.array([1e-250, 1.0, 1e250]), np.array([2e-250, 1.0, 3e250])
    found = compare(leaf_of(old), leaf_of(new), piece=1)
    assert found.relative == pytest.approx(2.0)
    assert found.cosine == pytest.approx(1.0)


def test_disjoint_views_of_one_storage_are_not_tied():
    """Fused weights that are saved separately were never tied."""
    flat = np.arange(6.0)
    assert not diff({"a": flat[:3], "b": flat[3:]}, {"a": flat[:3].copy(), "b": flat[3:].copy()})
    assert diff({"a": flat, "b": flat[3:]}, {"a": flat.copy(), "b": flat[3:].copy()}).untied == (("a", "b"),)


def test_lines_of_scattered_layers_keep_their_ends():
    """A long list of layer numbers is shortened; the end of the name and the facts stay."""
    old = {f"model.layers.{i}.self_attn.q_proj.weight": np.zeros(2) for i in range(400)}
    new = {name: value + (n % 3 > 0) for n, (name, value) in enumerate(old.items())}
    line = str(diff(old, new)).splitlines()[-1]
    assert ",…+262}.self_attn.q_proj.weight  ×266  532 of 532 elements" in line
    assert line.endswith("cosine 0")


def test_a_long_name_is_cut_in_its_middle():
    """A long name keeps its beginning and its end, and the facts stay."""
    name = "a" * 300 + ".weight"
    line = str(diff({name: np.zeros(2)}, {name: np.ones(2)})).splitlines()[-1]
    assert line.startswith("  aaa")
    assert "….weight  " in line.replace("a", "")
    assert line.endswith("cosine 0")


def test_tensor_subclasses_are_compared_by_their_parts():
    """Tensors of a class that wraps others are equal if their parts are."""
    torch = pytest.importorskip("torch")

    class Scaled(torch.Tensor):
        """An 8-bit tensor with a scale, as quantisation libraries have them."""

        @staticmethod
        def __new__(cls, data, scale):
            return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=torch.float32)

        def __init__(self, data, scale):
            self.data8, self.scale = data, scale

        def __tensor_flatten__(self):
            return ["data8"], (self.scale,)

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            raise NotImplementedError(function)

    def made(number, scale):
        return {"w": Scaled(torch.full((2,), number, dtype=torch.int8), scale)}

    assert not diff(made(1, 0.5), made(1, 0.5))
    assert diff(made(1, 0.5), made(2, 0.5)).values == ("w",)
    assert diff(made(1, 0.5), made(1, 0.25)).values == ("w",)


def test_lazy_and_meta_tensors():
    """Tensors without elements are equal if they are of one kind, and no others."""
    torch = pytest.importorskip("torch")
    lazy, meta, real = torch.nn.UninitializedParameter, torch.ones(2, device="meta"), torch.ones(2)
    assert not diff({"x": lazy(), "y": meta}, {"x": lazy(), "y": meta.clone()})
    assert diff({"x": lazy(), "y": meta}, {"x": lazy(dtype=torch.float64), "y": real}).values == ("x", "y")
