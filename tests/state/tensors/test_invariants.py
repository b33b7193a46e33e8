"""What must hold between the parts of a sparse, quantised or nested tensor; torch's own checks are the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import FormatError
from statedict.state import Compound, dtype, leaf_of, library, materialize
from statedict.state.tensors._invariants import check_parts

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse .* support is in beta:UserWarning")


def compound(layout, shape, facts=None, **parts):
    leaves = {role: leaf_of(np.asarray(part)) for role, part in parts.items()}
    return Compound(layout, dtype("float32"), shape, leaves, facts)


def ours(value):
    """Whether the parts pass our check."""
    [made] = materialize([value], library("numpy"))
    return made is not None


def is_sound(layout, shape, parts, facts=None):
    try:
        check_parts(Compound(layout, dtype("float32"), shape, {}, facts), parts)
    except FormatError:
        return False
    return True


def accepts(make):
    try:
        make()
    except RuntimeError:
        return False
    return True


SMALL = st.integers(-1, 3)


@given(st.data())
def test_coo_is_judged_as_torch_does(data):
    """A COO tensor of any few indices and any small shape is accepted exactly if torch accepts it."""
    shape = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple))
    count = data.draw(st.integers(0, 3))
    indices = np.array(data.draw(st.lists(SMALL, min_size=len(shape) * count, max_size=len(shape) * count)), np.int64)
    indices = indices.reshape(len(shape), count)
    values = np.ones(data.draw(st.integers(0, 3)), np.float32)
    theirs = accepts(
        lambda: torch.sparse_coo_tensor(
            torch.from_numpy(indices), torch.from_numpy(values), shape, check_invariants=True
        )
    )
    assert is_sound("sparse_coo", shape, {"indices": indices, "values": values}) == theirs


def test_coalesced_indices_are_in_order_each_once():
    """A tensor that claims to be coalesced, and is not, would be summed wrongly."""
    for indices, sound in [([[0, 1, 1], [2, 0, 1]], True), ([[0, 1, 1], [2, 1, 1]], False), ([[1, 0], [0, 0]], False)]:
        parts = {"indices": np.array(indices), "values": np.ones(len(indices[0]), np.float32)}
        assert is_sound("sparse_coo", (2, 3), parts, {"coalesced": True}) == sound
        assert is_sound("sparse_coo", (2, 3), parts, {"coalesced": False})


LAYOUTS = ["sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.data())
def test_compressed_layouts_are_judged_as_torch_does(layout, data):
    """A compressed tensor of any few row pointers and columns is accepted exactly if torch accepts it."""
    compressed = np.array(data.draw(st.lists(SMALL, min_size=1, max_size=4)), np.int64)
    plain = np.array(data.draw(st.lists(SMALL, max_size=3)), np.int64)
    block = (1, 2) if layout in ("sparse_bsr", "sparse_bsc") else ()
    values = np.ones((data.draw(st.sampled_from([len(plain), len(plain) + 1])), *block), np.float32)
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 4)))
    parts = {"compressed_indices": compressed, "plain_indices": plain, "values": values}
    theirs = accepts(
        lambda: torch.sparse_compressed_tensor(
            *(torch.from_numpy(part) for part in parts.values()),
            shape,
            layout=getattr(torch, layout),
            check_invariants=True,
        )
    )
    # Of an empty tensor torch does not look at everything; there, what is sound for us is sound for torch.
    empty = 0 in shape or not len(plain)
    assert is_sound(layout, shape, parts) == theirs or (theirs and empty)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_compressed_tensors_are_sound(layout):
    """What torch itself makes, batches and dense dimensions included, passes."""
    dense = (torch.arange(96.0) % 5 - 2).clamp(min=0).reshape(2, 4, 6, 2)
    blocked = {"blocksize": (2, 3)} if layout in ("sparse_bsr", "sparse_bsc") else {}
    for whole in (dense[0, :, :, 0], dense[0]):
        sparse = whole.to_sparse(layout=getattr(torch, layout), dense_dim=whole.ndim - 2, **blocked)
        by_column = layout in ("sparse_csc", "sparse_bsc")
        parts = {
            "compressed_indices": (sparse.ccol_indices() if by_column else sparse.crow_indices()).numpy(),
            "plain_indices": (sparse.row_indices() if by_column else sparse.col_indices()).numpy(),
            "values": sparse.values().numpy(),
        }
        assert is_sound(layout, tuple(sparse.shape), parts)


def test_channels_have_a_scale_each():
    """A tensor quantised by channel has as many scales and zero points as channels."""
    facts = {"scheme": "torch.per_channel_affine", "axis": 1}
    parts = {"values": np.ones((2, 3), np.uint8), "scales": np.ones(3), "zero_points": np.zeros(3, np.int64)}
    assert is_sound("quantized", (2, 3), parts, facts)
    assert not is_sound("quantized", (2, 3), parts, facts | {"axis": 0})
    assert not is_sound("quantized", (2, 3), parts, facts | {"axis": 2})
    assert is_sound("quantized", (2, 3), {"values": parts["values"]}, {"scheme": "per_tensor_affine"})


def test_nested_sizes_stay_within_the_values():
    """Sizes, strides and offsets reach no further than the buffer, in exact numbers."""

    def sound(sizes, strides, offsets):
        arrays = {"sizes": np.array(sizes), "strides": np.array(strides), "offsets": np.array(offsets)}
        return is_sound("nested", (), {"values": np.ones(10), **arrays})

    assert sound([[2, 3], [1, 4]], [[3, 1], [4, 1]], [0, 6])
    assert not sound([[2, 3], [1, 5]], [[3, 1], [5, 1]], [0, 6])
    assert not sound([[5]], [[2**62]], [0])
    assert not sound([[-1]], [[1]], [0])
    assert sound([[0, 9]], [[1, 1]], [0])
    assert not sound([[1]], [[1], [1]], [0])


def test_a_tensor_that_does_not_fit_is_refused_when_it_is_made():
    """Parts that contradict each other are refused, also for NumPy, which keeps them as they are."""
    good = compound("sparse_coo", (3,), indices=[[0, 2]], values=np.ones(2, np.float32))
    assert ours(good)
    bad = compound("sparse_coo", (3,), indices=[[0, 900]], values=np.ones(2, np.float32))
    with pytest.raises(FormatError, match="an index of dimension 0 is out of range for size 3"):
        ours(bad)
    with pytest.raises(FormatError, match="the layout is unknown"):
        ours(compound("sparse_odd", (3,), values=np.ones(2)))
    with pytest.raises(FormatError, match="are not consistent: 'indices'"):
        ours(compound("sparse_coo", (3,), values=np.ones(2)))
