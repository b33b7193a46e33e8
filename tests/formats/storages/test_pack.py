"""Which bytes of a storage are written: those that its tensors show, which stay shared."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import statedict
from statedict.errors import ChecksumError
from statedict.files import crc32
from statedict.formats.storages._pack import Packing, contents_of, elements_of, ranges_of
from statedict.state import Leaf, Spec, Storage, Traits, computed, dtype, leaf_of, read_array

F4 = dtype("float32")


class Readable:
    """A Source whose bytes can be read but not viewed."""

    def __init__(self, raw):
        self.raw = raw

    def read_into(self, reads, *, verify=True):
        for _, start, into in reads:
            into[:] = self.raw[start : start + len(into)]

    def verify(self, storages):
        pass

    def view(self, storage, *, writable=False):
        return None


def leaf(array):
    found = leaf_of(array)
    assert isinstance(found, Leaf)
    return found


def packed(leaves):
    """The leaves, placed as they would be in a file: their specs there, and each storage's bytes."""
    packing = Packing()
    placed = [packing.place(one) for one in leaves]
    if not packing.settled:
        packing = packing.again()
        placed = [packing.place(one) for one in leaves]
        assert packing.settled
    stored = [b"".join(storage.views()) for storage in packing.packed]
    assert [len(raw) for raw in stored] == [storage.nbytes for storage in packing.packed]
    return [(storage.number, spec) for storage, spec in placed], stored


def shown(raw, spec):
    """The elements that a spec shows of bytes."""
    return read_array(Leaf(spec, Storage(Readable(raw), "x", len(raw))))


BASE = np.arange(120, dtype=np.float32).reshape(10, 12)
ALONE = {
    "whole": (BASE, 480, (12, 1)),
    "slice": (BASE[3:5], 96, (12, 1)),
    "transposed": (BASE.T, 480, (1, 12)),
    "column": (BASE[:, 3], 40, (1,)),
    "columns": (BASE[:, 2:4], 80, (2, 1)),
    "turned columns": (BASE[:, 2:4].T, 80, (1, 2)),
    "every third": (BASE.reshape(-1)[::3], 160, (1,)),
    "expanded": (np.broadcast_to(BASE[0, :3], (50, 3)), 12, (0, 1)),
    "expanded with gaps": (np.broadcast_to(BASE[0, :9:2, None], (5, 7)), 20, (1, 0)),
    "scalar": (BASE[4, 4], 4, ()),
    "empty": (BASE[:0], 0, (12, 1)),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_lone_view_is_written_as_what_it_shows(name):
    """A view without gaps keeps its strides; one with gaps is packed in memory order; expanded dimensions stay
    expanded."""
    array, nbytes, strides = ALONE[name]
    array = np.asarray(array)
    [(number, spec)], [raw] = packed([leaf(array)])
    assert (number, len(raw), spec.strides, spec.offset) == (0, nbytes, strides, 0)
    assert (shown(raw, spec) == array).all()


def test_overlapping_windows_are_written_once():
    """A view that shows elements several times is not written larger than the elements that it covers."""
    windows = Spec(F4, (9, 4), (1, 1), 12)
    [(_, spec)], [raw] = packed([Leaf(windows, leaf(BASE).storage)])
    assert (len(raw), spec) == (48, windows._replace(offset=0))
    assert (shown(raw, spec)[2] == BASE[1, 2:6]).all()


def test_equal_views_are_one_storage():
    """The same view under two names is written once, whatever its strides and offset."""
    for array in (BASE, BASE[:, 3], BASE[2:4]):
        placed, stored = packed([leaf(array), leaf(array)])
        assert placed[0] == placed[1]
        assert len(stored) == 1


def test_different_views_share_what_they_cover():
    """Overlapping views still share bytes; bytes that none of them covers are left out."""
    flat = BASE.reshape(-1)
    arrays = [flat[10:20], flat[15:30], flat[100:110], flat[10:20]]
    placed, stored = packed([leaf(array) for array in arrays])
    assert [number for number, _ in placed] == [0, 0, 0, 0]
    assert [spec.offset for _, spec in placed] == [0, 5, 20, 0]
    assert len(stored) == 1
    assert len(stored[0]) == 30 * 4
    for (_, spec), array in zip(placed, arrays):
        assert (shown(stored[0], spec) == array).all()


def test_storages_are_numbered_as_they_come():
    """Storages are numbered in the order in which they are first seen."""
    one, two = np.ones(3, np.float32), np.zeros(3, np.float32)
    placed, stored = packed([leaf(one), leaf(two), leaf(one[1:]), leaf(two)])
    assert [number for number, _ in placed] == [0, 1, 0, 1]
    assert [len(raw) for raw in stored] == [12, 12]


views = st.tuples(st.integers(0, 99), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=3))


@given(chosen=st.lists(views, min_size=1, max_size=6))
def test_every_view_shows_the_same_elements(chosen):
    """Whatever views there are of one storage: each shows its elements again, and no more is written than there was."""
    raw = np.arange(400, dtype=np.float32)
    storage = leaf(raw).storage
    leaves = []
    for offset, dims in chosen:
        spec = Spec(F4, tuple(size for size, _ in dims), tuple(stride for _, stride in dims), offset)
        if spec.reach <= 400:
            leaves.append(Leaf(spec, storage))
    placed, stored = packed(leaves)
    assert sum(map(len, stored)) <= 1600
    for one, (number, spec) in zip(leaves, placed):
        assert spec.shape == one.spec.shape
        assert (shown(stored[number], spec) == read_array(one)).all()


def test_storages_that_cannot_be_viewed_are_read_in_pieces():
    """Bytes that are on a device, or compressed, come in pieces that stay as they are."""
    raw = np.random.default_rng(0).bytes(9 << 20)
    storage = Storage(Readable(raw), "device", len(raw))
    pieces = list(ranges_of(storage, [(5, 9_000_000), (9_100_000, 9_100_010)]))
    assert len(pieces) == 4
    assert b"".join(pieces) == raw[5:9_000_000] + raw[9_100_000:9_100_010]


def test_elements_of_any_layout():
    """The elements of a leaf are dense and in order, lazy conjugate and negative bits applied."""
    values = np.array([[1 + 2j, 3 - 4j], [5j, 6]], np.complex64)
    for traits, expected in [(Traits(), values), (Traits(conj=True), values.conj()), (Traits(neg=True), -values)]:
        one = leaf(values)
        assert b"".join(elements_of(Leaf(one.spec, one.storage, traits))) == expected.tobytes()
        turned = leaf(values.T)
        assert b"".join(elements_of(Leaf(turned.spec, turned.storage, traits))) == expected.T.tobytes()
    assert list(elements_of(leaf(np.zeros((0, 3))))) == []


def test_computed_leaves_are_computed_when_they_are_written():
    """A leaf that is computed is asked for its bytes only when they are written."""
    asked = []

    def double(array):
        asked.append(1)
        return array * 2

    one = leaf(np.ones(3, np.float32))
    packing = Packing()
    storage, spec = packing.place(computed(one.spec, [one], double))
    assert asked == []
    assert shown(b"".join(storage.views()), spec).tolist() == [2, 2, 2]


def test_contents_of_many_leaves_are_those_of_each(tmp_path):
    """`contents_of` returns what `elements_of` yields for each leaf, with its CRC-32, from files and from memory."""
    whole = torch.arange(64.0)
    tensors = {"whole": whole, "part": whole[3:9], "gaps": whole[::2], "turned": whole.view(8, 8).T, "empty": whole[:0]}
    tensors |= {
        "conjugate": torch.ones(3, dtype=torch.complex64).conj(),
        "alone": torch.ones(5),
        "scalar": torch.ones(()),
    }
    statedict.save(tensors, tmp_path / "x.pt")
    for state in (statedict.open(tmp_path / "x.pt").state_dict(), statedict.StateDict(tensors)):
        leaves = [leaf for _, leaf in state.leaves()]
        expected = [b"".join(elements_of(leaf)) for leaf in leaves]
        assert [(bytes(content), crc) for content, crc in contents_of(leaves)] == [
            (raw, crc32(raw)) for raw in expected
        ]


def test_contents_of_many_leaves_are_verified(tmp_path):
    """A changed byte among many leaves of a file raises ChecksumError."""
    statedict.save({f"w{n}": torch.full((4,), float(n)) for n in range(100)}, tmp_path / "x.pt")
    raw = bytearray((tmp_path / "x.pt").read_bytes())
    raw[raw.index(torch.full((4,), 50.0).numpy().tobytes())] ^= 1
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(ChecksumError, match="the bytes of 'w50' have changed"):
        contents_of([leaf for _, leaf in statedict.open(tmp_path / "x.pt").state_dict().leaves()])
