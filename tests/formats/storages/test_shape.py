"""Shapes that no array can have are refused, although a tensor without elements needs no bytes."""

from __future__ import annotations

import io

import pytest
from tests.hostile.build import npz, pickles, tensors, torch_zips

from statedict import formats
from statedict.errors import FormatError
from statedict.formats.storages._shape import LARGEST, check_addressable


def test_the_largest_shape_is_accepted_and_the_next_refused():
    """An array without elements is counted as if its sizes of 0 were 1, in bytes below 2**63."""
    check_addressable((0, LARGEST), 1)
    check_addressable((0, LARGEST // 4), 4)
    check_addressable((2**40, 2**40), 4)  # whose bytes are compared with those of the file
    for shape, itemsize in (((0, LARGEST + 1), 1), ((0, LARGEST // 4 + 1), 4), ((2**40, 0, 2**40), 1)):
        with pytest.raises(FormatError, match=r"x.npz: w: impossible shape for an array: \["):
            check_addressable(shape, itemsize, file="x.npz", member="w")


@pytest.mark.parametrize(
    "raw",
    [
        torch_zips.torch_zip(pickles.state(w=pickles.tensor(size=(0, 2**40, 2**40), stride=(1, 1, 1)))),
        tensors.safetensors({"w": tensors.entry(shape=(0, 2**40, 2**40), stop=0)}, b""),
        npz.npy(npz.HEADER.replace("(4,)", f"(0, {2**40}, {2**40})"), b""),
    ],
    ids=["torch", "safetensors", "npy"],
)
def test_a_file_with_an_impossible_shape_is_refused(raw):
    """Every format refuses such a tensor when the file is opened, with its shape."""
    with pytest.raises(FormatError, match=rf"impossible shape for an array: \[0, {2**40}, {2**40}\]"):
        formats.open(io.BytesIO(raw))
