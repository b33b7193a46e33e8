"""Together, the processes checksum every byte, and their results combine to the checksum of the whole."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statedict.files import Shares, crc32, joined, shares, whole

MIB = 1 << 20
offsets = st.integers(0, 200_000)
ranges = st.lists(st.tuples(offsets, offsets).map(sorted).map(tuple), max_size=3)


@given(st.integers(0, 200_000), st.lists(ranges, min_size=1, max_size=5))
def test_the_shares_cover_every_byte(nbytes, reads):
    """Whatever the processes read, the distinct ranges of all shares follow each other from the first byte to the last."""
    reads = [[(min(a, nbytes), min(b, nbytes)) for a, b in each] for each in reads]
    divided = shares(nbytes, reads)
    if divided is None:
        return
    assert len(divided.ranges) == len(reads)
    end = 0
    for start, stop in sorted({run for each in divided.ranges for run in each}):
        assert start == end < stop
        end = stop
    assert end == nbytes
    if divided.arriving:
        for own, given_ranges in zip(divided.ranges, reads):
            covered = {byte for start, stop in given_ranges for byte in (start, stop) if start < stop}
            assert {edge for run in own for edge in run} <= covered, "only what it reads"


@given(st.binary(max_size=300), st.sets(st.integers(0, 300), max_size=6), st.randoms(use_true_random=False))
def test_the_checksums_of_runs_combine_to_that_of_the_whole(data, cuts, random):
    """The checksums of runs combine to that of the whole in any order, also if some runs are there twice."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sums = [(a, b, crc32(data[a:b])) for a, b in pairwise(edges)] or [(0, 0, 0)]
    sums += sums[:2]
    random.shuffle(sums)
    assert whole(sums) == [crc32(data)]
    assert list(joined(sums)) == [(0, len(data), crc32(data))]


def test_runs_that_overlap_are_dropped():
    """A sum of bytes that another sum counts in part cannot be combined; neighbours stay."""
    assert list(joined([(0, 4, 1), (2, 6, 2), (6, 8, 3), (9, 10, 4)])) == [(6, 8, 3), (9, 10, 4)]
    assert list(joined([(0, 4, 1), (0, 4, 2)])) == [], "the bytes were read twice and differed"
    assert list(joined([])) == []


def test_different_checksums_of_one_run_are_all_compared():
    """If one of two copies is damaged, one of the results is wrong."""
    first, second, wrong = crc32(b"ab"), crc32(b"cd"), crc32(b"xd")
    found = whole([(0, 2, first), (2, 4, wrong), (0, 2, first), (2, 4, second)])
    assert sorted(found) == sorted([crc32(b"abcd"), crc32(b"abxd")])


def test_rows_are_checksummed_by_those_that_read_them():
    """Row shards tile, also uneven and empty ones and those that several processes hold; adjacent reads are one range."""
    assert shares(10, [[(0, 4)], [(4, 10)], []]) == Shares([[(0, 4)], [(4, 10)], []], arriving=True)
    assert shares(10, [[(0, 2), (2, 4)], [(4, 10)]]) == Shares([[(0, 4)], [(4, 10)]], arriving=True)
    twice = [[(0, 4)], [(4, 10)], [(0, 4)], [(4, 10)]]
    assert shares(10, twice) == Shares([[(0, 4)], [(4, 10)]] * 2, arriving=True)


def test_what_does_not_tile_is_divided_evenly():
    """Column shards have too many ranges; parts leave gaps; overlaps count twice."""
    columns = [[(row + n * 8, row + n * 8 + 8) for row in range(0, MIB, 16)] for n in range(2)]
    halves = Shares([[(0, MIB // 2)], [(MIB // 2, MIB)]], arriving=False)
    for reads in (columns, [[(0, 10)], []], [[(0, MIB)], [(0, 10)]], [[(0, MIB - 1)], [(5, MIB)]]):
        assert shares(MIB, reads) == halves


def test_what_all_read_or_is_small_is_verified_by_each():
    """Dividing would save nothing."""
    assert shares(MIB, [[(0, MIB)], [(0, MIB)]]) is None
    assert shares(MIB, [[(0, MIB)], []]) is None
    assert shares(0, [[], []]) is None
    assert shares(100, [[(0, 10)], []]) is None
