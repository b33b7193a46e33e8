"""Shared checksums: ranks that each read a part of a file verify all of it together."""

import io
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import statedict
from statedict.errors import ChecksumError, StateDictError
from statedict.state import Read, raw_values
from statedict.torch import SharedChecksums

ROWS, COLUMNS = 256, 512
NBYTES = ROWS * COLUMNS * 4
TENSOR = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS)


class Counted(io.BytesIO):
    """A binary file that counts the bytes read from it."""

    count = 0

    def read(self, size=-1):
        found = super().read(size)
        self.count += len(found)
        return found

    def readinto(self, into):
        found = super().readinto(into)
        self.count += found
        return found


def saved(directory, suffix, **tensors):
    path = directory / f"x{suffix}"
    statedict.save(tensors or {"weight": TENSOR}, path)
    return path.read_bytes()


def place_of(data, nth=0):
    """Where in a file the bytes of the tensor begin."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(TENSOR.numpy().tobytes(), at + 1)
    return at


def flipped(data, at):
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


def load(files, reads, *, names=("weight",), lost=None):
    """Load parts of one tensor on several ranks, each with its own open file or copy; return what each has read.

    `reads`: the ranges of each rank; `lost`: a rank that gives no checksums.
    """
    with ExitStack() as stack:
        opened = [io.BytesIO(file) if isinstance(file, bytes) else file for file in files]
        states = [stack.enter_context(statedict.open(file)).state_dict() for file in opened]
        storages = [[raw_values(state)[name].storage for name in names] for state in states]
        joint = [
            stack.enter_context(SharedChecksums([(storage, reads) for storage in own], index))
            for index, own in enumerate(storages)
        ]
        found = []
        for own, ranges in zip(storages, reads):
            parts = [(storage, start, bytearray(stop - start)) for storage in own for start, stop in ranges]
            for storage, start, into in parts:
                storage.source.read_into([Read(storage, start, memoryview(into))])
            found.append([bytes(into) for _, _, into in parts])
        payloads = [None if index == lost else each.sums() for index, each in enumerate(joint)]
        for each in joint:
            each.compare(payloads)
        return found


def rows(*edges):
    return [[(a * COLUMNS * 4, b * COLUMNS * 4)] if b > a else [] for a, b in zip((0, *edges), edges)]


def columns(count):
    width = COLUMNS * 4 // count
    return [
        [(row * COLUMNS * 4 + n * width, row * COLUMNS * 4 + (n + 1) * width) for row in range(ROWS)]
        for n in range(count)
    ]


PLACEMENTS = {
    "rows": rows(64, 128, 192, 256),
    "uneven and empty": rows(100, 256, 256),
    "replicas of rows": rows(128, 256) * 2,
    "columns": columns(4),
    "a part": [[(0, 4096)], [(8192, 16384)]],
    "overlapping": [[(0, NBYTES - 4096)], [(4096, NBYTES)]],
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_each_rank_reads_its_part_and_damage_anywhere_is_found_by_all(tmp_path, suffix, placement):
    """Whichever rank's part has a flipped byte, every rank raises; without damage, each has its bytes."""
    data, reads = saved(tmp_path, suffix), PLACEMENTS[placement]
    whole = TENSOR.numpy().tobytes()
    found = load([data] * len(reads), reads)
    assert found == [[whole[start:stop] for start, stop in ranges] for ranges in reads]
    for at in (0, NBYTES // 3, NBYTES // 2 + 1, NBYTES - 1):
        damaged = flipped(data, place_of(data) + at)
        with pytest.raises(ChecksumError, match=r"weight.*have changed since they were written"):
            load([damaged] * len(reads), reads)


def test_damage_that_only_one_copy_has_is_found(tmp_path):
    """Ranks that read the same rows each check their own bytes: their disks may differ."""
    data, reads = saved(tmp_path, ".pt"), PLACEMENTS["replicas of rows"]
    for rank, ranges in enumerate(reads):
        files = [data] * len(reads)
        files[rank] = flipped(data, place_of(data) + ranges[0][0])
        with pytest.raises(ChecksumError, match="have changed since they were written"):
            load(files, reads)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_row_shards_cost_no_bytes_beyond_their_own(tmp_path, suffix):
    """The checksum of a row shard is computed from the bytes that arrive."""
    data, reads = saved(tmp_path, suffix), PLACEMENTS["rows"]
    overhead = Counted(data)
    with statedict.open(overhead) as checkpoint:
        checkpoint.state_dict()
    files = [Counted(data) for _ in reads]
    load(files, reads)
    for file in files:
        assert file.count <= 1.02 * NBYTES / 4 + overhead.count


@settings(max_examples=40)
@given(data=st.data())
def test_any_rows_and_any_damage(tmp_path_factory, data):
    """However the rows are divided and wherever a byte is flipped, the load is refused exactly if there is damage."""
    cuts = sorted(data.draw(st.lists(st.integers(0, ROWS), min_size=1, max_size=4)))
    reads = rows(*cuts, ROWS)
    content = saved(tmp_path_factory.mktemp("any"), ".pt")
    at = data.draw(st.none() | st.integers(0, NBYTES - 1))
    if at is None:
        load([content] * len(reads), reads)
        return
    damaged = flipped(content, place_of(content) + at)
    with pytest.raises(ChecksumError, match="have changed since they were written"):
        load([damaged] * len(reads), reads)


@pytest.mark.parametrize("placement", ["rows", "columns"])
def test_tied_tensors_that_are_stored_twice_are_compared(tmp_path, placement):
    """Each rank compares its range of both; a difference is an error of the rank whose range it is."""
    data, reads = saved(tmp_path, ".npz", weight=TENSOR, tied=TENSOR), PLACEMENTS[placement]
    assert len(load([data] * len(reads), reads)) == len(reads)
    for at in (0, NBYTES - 1):
        damaged = flipped(data, place_of(data, 1) + at)
        with pytest.raises(
            ChecksumError, match=r"tied.*it is said to be tied to another tensor, whose bytes are different"
        ):
            load([damaged] * len(reads), reads)


def test_other_storages_are_verified_by_each_rank(tmp_path):
    """Compressed members and small tensors that do not tile: the rank that reads a part verifies the whole, as usual."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, weight=TENSOR.numpy(), small=np.arange(100))
    data = path.read_bytes()
    assert len(load([data] * 2, rows(128, 256))) == 2
    assert len(load([data] * 2, [[(0, 8)], [(16, 24)]], names=["small"])) == 2
    plain = saved(tmp_path, ".pt", small=torch.arange(100))
    at = plain.index(torch.arange(100).numpy().tobytes())
    with pytest.raises(ChecksumError, match=r"'small'.*have changed since they were written"):
        load([flipped(plain, at + 799)] * 2, [[(0, 8)], [(16, 24)]], names=["small"])


def test_files_without_checksums_load_without(tmp_path):
    """A legacy file has none: nothing is verified, and nothing is read twice."""
    path = tmp_path / "x.pt"
    torch.save({"weight": TENSOR}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    found = load([flipped(data, place_of(data) + 5)] * 2, rows(128, 256))
    assert sum(len(part) for each in found for part in each) == NBYTES


def test_several_tensors_of_one_storage_are_verified_once(tmp_path):
    """Views of one storage add up to ranges of it."""
    top, bottom = TENSOR[:128], TENSOR[128:]
    data = saved(tmp_path, ".pt", top=top, bottom=bottom)
    reads = rows(64, 256)
    damaged = flipped(data, place_of(data) + 5)
    assert len(load([data] * 2, reads, names=["top", "bottom"])) == 2
    with pytest.raises(ChecksumError, match="have changed since they were written"):
        load([damaged] * len(reads), reads, names=["top", "bottom"])


def test_ranks_that_read_something_else_are_told(tmp_path):
    """A rank without checksums, or with those of other ranges, is an error on all."""
    data, reads = saved(tmp_path, ".pt"), PLACEMENTS["rows"]
    with pytest.raises(
        StateDictError, match="process 2 of 4 did not read the same tensors of the same file as this one"
    ):
        load([data] * 4, reads, lost=2)


def test_after_a_shared_load_partial_reads_are_verified_again(tmp_path):
    """What was not compared is not trusted; what was is not verified again."""
    data = saved(tmp_path, ".pt")
    damaged = flipped(data, place_of(data) + NBYTES - 1)
    reads = rows(128, 256)
    with statedict.open(io.BytesIO(damaged)) as checkpoint:
        storage = raw_values(checkpoint.state_dict())["weight"].storage
        into = memoryview(bytearray(8))
        with SharedChecksums([(storage, reads)], 0):
            storage.source.read_into([Read(storage, 0, into)])
        with pytest.raises(ChecksumError, match="have changed since they were written"):
            storage.source.read_into([Read(storage, 0, into)])


@pytest.mark.parametrize("way", ["fresh", "stream"])
def test_every_way_to_read_computes_the_checksum(tmp_path, way):
    """Bulk and streaming reads of a part compute its checksum, too."""
    data, reads = saved(tmp_path, ".pt"), rows(128, 256)
    file = Counted(data)
    with statedict.open(file) as checkpoint:
        storage = raw_values(checkpoint.state_dict())["weight"].storage
        with SharedChecksums([(storage, reads)], 1) as shared:
            [[_], [(start, stop)]] = reads
            if way == "fresh":
                block, [at] = storage.source.fresh([storage], [start], [stop - start])
                part = bytes(block[at : at + stop - start])
            else:
                part = b"".join(storage.source.stream(storage, start, stop))
            assert part == TENSOR[128:].numpy().tobytes()
            before = file.count
            sums = shared.sums()
            assert file.count == before, "nothing is read again"
    with statedict.open(io.BytesIO(data)) as checkpoint:
        storage = raw_values(checkpoint.state_dict())["weight"].storage
        with SharedChecksums([(storage, reads)], 0) as shared:
            shared.compare([shared.sums(), sums])
