"""Which boxes of a whole tensor a rank has: those that torch's own placements give it."""

from __future__ import annotations

import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import Shard
from torch.distributed.tensor.placement_types import _StridedShard

from statedict.state import MeshPlacement, boxes_of
from statedict.torch.tensors._dtensor import any_sharded, is_sharded


@st.composite
def sharded(draw):
    """A shape, and placements with the number of ranks and this rank for each mesh dimension."""
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=1, max_size=3)))
    splits = []
    for _ in range(draw(st.integers(0, 3))):
        ranks = draw(st.integers(1, 4))
        axis, factor = draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 3))
        splits.append(MeshPlacement("Shard", axis, factor, ranks, draw(st.integers(0, ranks - 1))))
    return shape, tuple(splits)


@given(sharded())
def test_boxes_are_those_of_the_placements(case):
    """The boxes hold exactly the elements of the local tensor, in its order, for uneven, empty and strided shards."""
    shape, splits = case
    expected = whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for _, axis, factor, ranks, rank, _ in splits:
        placement = Shard(axis) if factor == 1 else _StridedShard(axis, split_factor=factor)
        expected = placement._split_tensor(expected, ranks, with_padding=False)[0][rank]
    boxes, local = boxes_of(shape, splits)
    assert local == tuple(expected.shape)
    found = torch.full(local, -1)
    for box, here in boxes:
        inside, outside = (tuple(slice(a, a + n) for a, n in zip(*each)) for each in (here, box))
        found[inside] = whole[outside]
    assert torch.equal(found, expected)
    assert all(0 not in box.sizes for box, _ in boxes)


def test_other_values_are_not_sharded():
    """Ordinary tensors and values of any other type are not DTensors."""
    assert not any(map(is_sharded, (torch.zeros(2), torch.nn.Parameter(torch.zeros(2)), None, 3)))
    assert not any_sharded([torch.zeros(2), 1], [])


def test_loading_does_not_import_dtensors():
    """A program without DTensors does not pay for importing them."""
    code = (
        "import sys, torch, statedict\n"
        "model = torch.nn.Linear(2, 2)\n"
        "statedict.load_state_dict(model, statedict.snapshot(model))\n"
        "assert 'torch.distributed.tensor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
