"""A leaf lies within its storage, and nothing beyond a storage is read."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import statedict
from statedict import files
from statedict.errors import BoundsError, SaveError, TruncatedError
from statedict.formats.torch_archive import ArchiveStorages, open_zip
from statedict.state import (
    PLAIN,
    Leaf,
    Read,
    RowKind,
    Spec,
    Storage,
    computed,
    contiguous,
    dtype,
    leaf_of,
    library,
    materialize,
    read_array,
)


def torch_leaf() -> Leaf:
    return leaf_of(torch.arange(4.0))


def computed_leaf() -> Leaf:
    leaf = leaf_of(np.arange(4, dtype="f4"))
    return computed(leaf.spec, [leaf], lambda array: array + 1)


def file_leaf(format: str) -> Leaf:
    file = io.BytesIO()
    statedict.save({"w": np.arange(4, dtype="f4"), "v": np.ones(9, "f4")}, file, format=format)
    file.seek(0)
    return statedict.open(file).object["w"]


LEAVES: dict[str, Callable[[], Leaf]] = {
    "numpy": lambda: leaf_of(np.arange(4, dtype="f4")),
    "torch": torch_leaf,
    "computed": computed_leaf,
    "a torch zip": lambda: file_leaf("torch"),
    "safetensors": lambda: file_leaf("safetensors"),
    "npz": lambda: file_leaf("npz"),
}


@pytest.mark.parametrize(("start", "nbytes"), [(0, 17), (16, 1), (-1, 4), (1 << 70, 1)])
@pytest.mark.parametrize("kind", LEAVES)
def test_no_source_reads_beyond_a_storage(kind, start, nbytes):
    """Bytes that are not the storage's are refused by every Source, in every way to read."""
    storage = LEAVES[kind]().storage
    source = storage.source
    with pytest.raises(BoundsError, match=r"cannot read [-\d,]+ bytes at byte [-\d,]+ of a storage of 16 bytes"):
        source.read_into([Read(storage, start, memoryview(bytearray(nbytes)))])
    if hasattr(source, "fresh"):
        with pytest.raises(BoundsError, match=r"cannot read .* bytes at byte .* of a storage"):
            source.fresh([storage], [start], [nbytes])
    if hasattr(source, "stream"):
        with pytest.raises(BoundsError, match=r"cannot read .* bytes at byte .* of a storage"):
            list(source.stream(storage, start, start + nbytes))


def test_a_mapping_shows_no_more_than_the_file_has(tmp_path):
    """A storage that is said to lie beyond the file's end is refused when it is mapped."""
    statedict.save({"w": np.arange(4, dtype="f4")}, tmp_path / "w.safetensors")
    with statedict.open(tmp_path / "w.safetensors") as checkpoint:
        storage = checkpoint.object["w"].storage
        where = storage.where._replace(offset=storage.where.offset + 4)
        with pytest.raises(TruncatedError, match="16 bytes are needed here"):
            storage.source.view(Storage(storage.source, "x", 16, where), writable=True)


def test_memory_that_was_freed_is_not_read():
    """A live tensor whose storage was freed after its leaf was made is refused, however it is read."""
    tensor = torch.arange(4.0)
    storage = leaf_of(tensor).storage
    tensor.untyped_storage().resize_(0)
    for read in (
        lambda: storage.source.view(storage),
        lambda: storage.source.read_into([Read(storage, 0, memoryview(bytearray(16)))]),
        lambda: list(storage.source.stream(storage, 0, 16)),
    ):
        with pytest.raises(SaveError, match="a storage of 16 bytes now has 0: it was freed or resized"):
            read()


@given(
    dimensions=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=4),
    offset=st.integers(-2, 9),
    nbytes=st.integers(1, 300),  # NumPy does not look at a buffer of no bytes
    name=st.sampled_from(["uint8", "float32", "complex128"]),
)
def test_a_leaf_lies_within_its_storage(dimensions, offset, nbytes, name):
    """A leaf can be made, and be changed, only where NumPy could make the array over the storage's bytes."""
    of = dtype(name)
    shape, strides = (tuple(part) for part in zip(*dimensions)) if dimensions else ((), ())
    spec, storage = Spec(of, shape, strides, offset), leaf_of(np.zeros(nbytes, "u1")).storage
    try:
        np.ndarray(shape, of.numpy, bytes(nbytes), offset * of.itemsize, tuple(n * of.itemsize for n in strides))
        fits = True
    except (ValueError, TypeError):
        fits = 0 in shape  # NumPy looks at the offset of an empty one too
    other = leaf_of(np.zeros(1))
    for make in (lambda: Leaf(spec, storage), lambda: other.become(spec, storage, PLAIN)):
        if fits:
            make()
        else:
            with pytest.raises(BoundsError, match=r"needs -?[\d,]+ bytes of a storage of"):
                make()
    assert other.spec.reach * other.spec.dtype.itemsize <= other.storage.nbytes


@pytest.mark.parametrize("elements", [3, 4, 5])
def test_rows_lie_within_their_storages(tmp_path, elements):
    """Only tensors that cover a storage exactly become rows of a file's table."""
    torch.save({f"w{number}": torch.zeros(4) for number in range(400)}, tmp_path / "m.pt")
    archive = open_zip(files.open(tmp_path / "m.pt"))
    kind = RowKind(contiguous(dtype("float32"), (elements,)), PLAIN)
    storages = ArchiveStorages(archive, "m/data/", big_endian=False)
    found = storages.offer([kind], [kind.spec.nbytes], np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert found.tolist() == [0 if elements == 4 else -1]


def test_a_tensor_without_its_memory_cannot_be_read():
    """A live tensor whose storage was freed has a leaf with its spec, which cannot be read."""
    tensor = torch.arange(4.0)
    tensor.untyped_storage().resize_(0)
    assert leaf_of(tensor).spec.shape == (4,)
    with pytest.raises(BoundsError, match=r"a tensor of shape \[4\] extends beyond its storage of 0 bytes"):
        read_array(leaf_of(tensor))
    with pytest.raises(BoundsError, match=r"shape \[4\], strides \[1\] and offset 0 needs 16 bytes of a storage of 0"):
        materialize([leaf_of(tensor)], library("torch"))
