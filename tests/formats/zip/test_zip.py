"""Zip archives: both ways of checking give one result or an error; writing follows PyTorch's layout."""

import io
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archives import packed
from tests.hostile.build.zips import DEFLATED, Member, archive, deflated

from statedict import files
from statedict.errors import ChecksumError, FormatError, LimitError, TruncatedError, UnknownNameError
from statedict.formats import Limits
from statedict.formats.zip import _archive as _zip
from statedict.formats.zip import _directory_columns as _zip_many
from statedict.formats.zip._archive import open_zip, read_member, verify_members
from statedict.formats.zip._directory_columns import locate_many
from statedict.formats.zip._layout import place
from statedict.formats.zip._write import LastMember, Record, zip_parts


def written(contents, **options):
    """An archive as we write it; `contents` maps names to bytes."""
    out = io.BytesIO()
    records = [Record(name, len(raw), lambda raw=raw: [memoryview(raw)]) for name, raw in contents.items()]
    files.write(out, zip_parts(records, **options))
    return out.getvalue()


def opened(raw, **options):
    return open_zip(files.open(io.BytesIO(raw)), **options)


def everything(raw):
    archive = opened(raw)
    return {name: read_member(archive, name) for name in archive.members}


SOME = {"a/data.pkl": b"pickle" * 20, "a/data/0": os.urandom(500), "a/data/1": b"", "a/data/2": bytes(70)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_zipfile_writes_is_read(method):
    """Stored and deflated members of Python's zipfile come out as they went in."""
    assert everything(packed(SOME, method)) == SOME


def test_streamed_and_wide_members_are_read():
    """Members whose sizes come after their data, in zip64 records, are read too."""

    class Stream(io.RawIOBase):
        content = b""

        def writable(self):
            return True

        def write(self, raw):
            self.content += bytes(raw)
            return len(raw)

    stream = Stream()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, raw in SOME.items():
            with archive.open(name, "w", force_zip64=name.endswith("0")) as member:
                member.write(raw)
    assert everything(stream.content) == SOME


def test_entries_of_folders_are_left_out():
    """Entries of folders, which `zip -r` adds, are not members."""
    assert everything(packed({"a/": b"", **SOME})) == SOME


def test_what_we_write_is_read_by_zipfile_and_by_us():
    """Our archives are sound for Python's zipfile, and give the same bytes."""
    raw = written(SOME, last=LastMember("a/seal", 3, lambda crcs: b"%03d" % len(crcs)), comment=b"a comment")
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert archive.comment == b"a comment"
        assert {name: archive.read(name) for name in archive.namelist()} == {**SOME, "a/seal": b"004"}
    assert everything(raw) == {**SOME, "a/seal": b"004"}
    assert opened(raw).comment == b"a comment"


def test_payloads_are_aligned():
    """Every payload begins at a multiple of 64 bytes."""
    members = opened(written({f"a/{n}": bytes(n * 7) for n in range(100)})).members.values()
    assert {member.offset % 64 for member in members} == {0}


@pytest.mark.parametrize("sizes", [[300_000], [1, 300_000, 2, 3], [300_000, 400_000], [100_000] * 50, [0, 0]])
def test_large_and_small_members_mix(sizes):
    """Members written directly and those collected in blocks form one archive."""
    contents = {f"a/{n}": os.urandom(size) for n, size in enumerate(sizes)}
    raw = written(contents)
    assert everything(raw) == contents
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None


# What torch 2.13 wrote for a first storage of 2**32 + 8 bytes, below `bigr/`; its first four members are as always.
WIDE_NAMES = ["bigr/data.pkl", "bigr/.format_version", "bigr/.storage_alignment", "bigr/byteorder"]
WIDE_SIZES = [len(b"x") * 306, 1, 2, 6, 2**32 + 8, 12, 0, 2, 40]


def test_past_four_gib_sizes_and_offsets_are_wide():
    """As in PyTorch's files: sizes of 4 GiB and offsets beyond need zip64 records, whose members have longer descriptors."""
    names = [*WIDE_NAMES, "bigr/data/0", "bigr/data/1", "bigr/data/2", "bigr/version", "bigr/.data/serialization_id"]
    places = place(WIDE_SIZES, [len(name) for name in names], [0] * len(names))
    assert places.wide.tolist() == [False] * 4 + [True] * 5
    assert (places.ends - places.payloads - places.sizes).tolist() == [16, 16, 16, 16, 24, 24, 0, 24, 24]
    assert places.wide_record(4, local=True) == struct.pack("<HHQQ", 1, 16, 2**32 + 8, 0)
    assert places.wide_record(4, local=False) == struct.pack("<HHQQ", 1, 16, 2**32 + 8, 2**32 + 8)
    assert places.wide_record(5, local=True) == struct.pack("<HHQ", 1, 8, int(places.starts[5]))
    assert set((places.payloads % 64).tolist()) == {0}
    assert places.starts[4] < 2**32 < places.starts[5]


def test_an_archive_of_more_than_four_gib(tmp_path):
    """A sparse archive past 4 GiB is read by us and listed by Python's zipfile; nobody reads its zeros."""
    size = 2**32 + 8
    small = {"a/before": b"before", "a/after": b"after"}
    crc, piece = 0, zlib.crc32(bytes(1 << 20))
    for _ in range(size >> 20):
        crc = files.combine(crc, piece, 1 << 20)
    crc = zlib.crc32(bytes(size % (1 << 20)), crc)
    records = [
        Record("a/before", 6, lambda: [memoryview(b"before")]),
        Record("a/zeros", size, list),
        Record("a/after", 5, lambda: [memoryview(b"after")]),
    ]
    parts = zip_parts(records)
    path = tmp_path / "wide.zip"
    with path.open("wb") as out:
        at = 0
        for part in parts:
            if part.nbytes < size:
                out.seek(at)
                out.write(b"".join(part.chunks()))
            else:
                part.tell(crc)
            at += part.nbytes
        out.truncate(at)
    with zipfile.ZipFile(path) as archive:
        assert {info.filename: info.file_size for info in archive.infolist()} == {
            "a/before": 6,
            "a/zeros": size,
            "a/after": 5,
        }
        assert archive.read("a/after") == b"after"
    file = files.open(path)
    archive = open_zip(file)
    assert {name: read_member(archive, name) for name in small} == small
    assert archive.members["a/zeros"].nbytes == size
    assert archive.members["a/zeros"].crc == crc
    directory = _zip.find_directory(file)
    text = file.read(directory.offset, directory.nbytes)
    file.close()
    found, expected = _wide_both_ways(path, directory, text)
    assert found == expected
    # Whatever byte of a header, a descriptor or the directory is another: the arrays find what the loop does, or nothing.
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1 << at % 8
        found, expected = _wide_both_ways(path, directory, bytes(changed))
        assert found in (None, expected)
    after = archive.members["a/after"].offset
    for at in range(archive.members["a/zeros"].offset + size, directory.offset):
        with path.open("r+b") as changed_file:
            changed_file.seek(at)
            (byte,) = changed_file.read(1)
            changed_file.seek(at)
            changed_file.write(bytes([byte ^ 1 << at % 8]))
            changed_file.flush()
            found, expected = _wide_both_ways(path, directory, text)
            changed_file.seek(at)
            changed_file.write(bytes([byte]))
        assert found in (None, expected)
        assert (found is None) == (expected is None) or not after <= at < after + 5


def _wide_both_ways(path, directory, text):
    """What the arrays and the loop make of the file with this text as its directory; None where they refuse it."""
    file = files.open(path)
    try:
        found = locate_many(file, text, directory.entries, directory.offset)
        try:
            entries = _zip.read_entries(text, directory.entries, "wide.zip")
            members, hidden = _zip.locate(file, _zip.bounds(file, entries, directory.offset))
            expected = [members[entry.name] for entry in entries], hidden
        except FormatError:
            expected = None
        return None if found is None else (list(found[0].values()), found[1]), expected
    finally:
        file.close()


# checking with arrays


def _located(file, text, directory, sparse):
    """What the arrays make of an archive: from its mapping, or from short reads where members are larger than `sparse`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_zip_many, "SPARSE", sparse)
        found = locate_many(file, text, directory.entries, directory.offset)
    return None if found is None else (list(found[0].values()), found[1])


def both_ways(raw, tmp_path):
    """What the arrays and the loop make of an archive; the first is None where it leaves it to the second."""
    path = tmp_path / "both.zip"
    path.write_bytes(raw)
    file = files.open(path)
    directory = _zip.find_directory(file)
    text = file.read(directory.offset, directory.nbytes)
    found, read = (_located(file, text, directory, sparse) for sparse in (1 << 40, 0))
    assert found == read
    entries = _zip.read_entries(text, directory.entries, "both.zip")
    members, hidden = _zip.locate(file, _zip.bounds(file, entries, directory.offset))
    file.close()
    return found, ([members[entry.name] for entry in entries], hidden)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_arrays_and_loop_agree(tmp_path_factory, sizes):
    """Checking all members at once gives what checking one after the other does."""
    raw = written({f"a/{'x' * (n % 5)}{n}": bytes(size) for n, size in enumerate(sizes)})
    found, expected = both_ways(raw, tmp_path_factory.mktemp("both"))
    assert found == expected


def test_arrays_read_what_zipfile_stores(tmp_path):
    """Members without descriptors are checked at once too; hidden bytes are counted alike."""
    found, expected = both_ways(packed(SOME), tmp_path)
    assert found == expected


def test_arrays_never_take_what_the_loop_refuses(tmp_path):
    """Whichever byte is changed, the arrays give the loop's result or leave the archive to it."""
    good = written({f"a/{n}": bytes([n]) * n for n in range(6)})
    accepted = 0
    for at in range(len(good)):
        for change in (1, 0x80, 0xFF):
            raw = bytearray(good)
            raw[at] ^= change
            try:
                found, expected = both_ways(bytes(raw), tmp_path)
            except FormatError:
                continue
            assert found is None or found == expected
            accepted += found is not None
    assert accepted > 100  # changed payloads and padding


def test_many_members_go_by_arrays(tmp_path, monkeypatch):
    """From a certain number of members on, an archive in a file is checked with arrays, with the same result."""
    path = tmp_path / "many.zip"
    path.write_bytes(written({f"a/data/{n}": struct.pack("<I", n) for n in range(300)}))
    expected = open_zip(files.open(path)).members
    monkeypatch.setattr(_zip, "MANY", 100)
    assert open_zip(files.open(path)).members == expected


# damage


def change(raw, at, new):
    return raw[:at] + new + raw[at + len(new) :]


GOOD = packed(SOME)
CENTRAL = GOOD.index(b"PK\1\2")
END = GOOD.index(b"PK\5\6")
OURS = written(SOME)
OURS_CENTRAL = OURS.index(b"PK\1\2")
OURS_END = OURS.index(b"PK\6\6")

DAMAGED = {
    "no end": (GOOD[:END], "the end record of the archive is missing: the file is truncated after"),
    "zeros at the end": (GOOD[:END] + bytes(200), r"its last \d+ bytes were never written \(they are zero\)"),
    "half an end": (GOOD[:-3], "the end record of the archive is missing"),
    "bytes after the end": (GOOD + b"xyz", "3 bytes follow the end of the archive"),
    "a second archive in the comment": (change(GOOD, END + 20, struct.pack("<H", len(GOOD))) + GOOD, "disk|bytes"),
    "a cut comment": (change(GOOD, END + 20, b"\5\0") + b"abc", "truncated within the comment, its last 5 bytes"),
    "several disks": (change(GOOD, END + 4, b"\1"), "split over several disks"),
    "count too low": (change(GOOD, END + 8, b"\3\0\3\0"), "[0-9]+ bytes follow the 3 entries of the directory"),
    "count too high": (change(GOOD, END + 8, b"\5\0\5\0"), "the directory ends after 4 of 5 entries"),
    "directory elsewhere": (change(GOOD, END + 16, struct.pack("<I", CENTRAL - 1)), "the directory should end at byte"),
    "no wide end": (change(GOOD, END + 16, b"\xff" * 4), "the zip64 end record is missing"),
    "wide end elsewhere": (
        change(OURS, OURS_END + 56 + 8, b"\0"),
        "the zip64 end record is not directly before its locator",
    ),
    "wide end damaged": (change(OURS, OURS_END + 4, b"\x2d"), "the zip64 end record is damaged"),
    "ends disagree": (change(OURS, OURS_END + 56 + 20 + 12, b"\1"), "the end record and the zip64 end record disagree"),
    "entry damaged": (change(GOOD, CENTRAL, b"X"), "the directory is damaged at its offset 0"),
    "not UTF-8": (change(GOOD, CENTRAL + 46, b"\xff"), "is not UTF-8"),
    "encrypted": (change(GOOD, CENTRAL + 8, b"\1"), "it is encrypted"),
    "unknown flags": (change(GOOD, CENTRAL + 8, b"\x20"), "its flags 0x20 are not supported"),
    "other compression": (change(GOOD, CENTRAL + 10, b"\x0e"), "unsupported compression method 14"),
    "sizes differ": (
        change(GOOD, CENTRAL + 20, b"\1"),
        "it is stored without compression, but its sizes differ: 1 and 120 bytes",
    ),
    "on another disk": (change(GOOD, CENTRAL + 34, b"\1"), "it is on another disk: number 1"),
    "sizes missing": (change(GOOD, CENTRAL + 20, b"\xff" * 8), "its zip64 sizes are missing"),
    "bytes before": (
        b"x" * 8 + change(GOOD, END + 16, struct.pack("<I", CENTRAL + 8)),
        "expected a local header at byte 0",
    ),
    "overlap": (change(GOOD, CENTRAL + 42, struct.pack("<I", 1)), "bytes precede the first member of the archive"),
    "no header": (change(GOOD, 0, b"X"), "expected a local header at byte 0"),
    "another name": (change(GOOD, 30, b"b"), "its local header has another name: b'b/data.pkl'"),
    "other flags": (
        change(GOOD, 6, b"\2"),
        "its local header and the directory disagree on flags or compression method",
    ),
    "other method": (
        change(GOOD, 8, b"\x08"),
        "its local header and the directory disagree on flags or compression method",
    ),
    "other CRC": (change(GOOD, 14, b"\0\0\0\0"), "disagree on its size or CRC"),
    "header without wide sizes": (change(GOOD, 18, b"\xff" * 8), "the zip64 sizes of its local header are missing"),
    "shifted payload": (change(GOOD, 28, b"\4"), "its extra field is damaged|something else begins at byte"),
    "another descriptor": (
        change(OURS, OURS.index(b"PK\7\x08") + 4, b"\0\0\0\0"),
        "its data descriptor disagrees",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name):
    """The error for a contradiction says which it is, and names the file."""
    raw, text = DAMAGED[name]
    with pytest.raises(FormatError, match=text) as caught:
        opened(raw)
    assert caught.value.file == "<BytesIO>"


@pytest.mark.parametrize("raw", [GOOD, OURS, packed(SOME, zipfile.ZIP_DEFLATED)], ids=["zip", "ours", "deflated"])
def test_every_change_is_noticed_or_makes_no_difference(raw):
    """One changed byte, anywhere, gives an error or the same members."""
    expected = everything(raw)
    for at in range(len(raw)):
        for flip in (1, 0x40, 0xFF):
            try:
                found = everything(change(raw, at, bytes([raw[at] ^ flip])))
            except FormatError:
                continue
            assert found == expected, at


@pytest.mark.parametrize("raw", [GOOD, OURS], ids=["zip", "ours"])
def test_every_truncation_is_noticed(raw):
    """An archive that ends early, at whatever byte, is truncated."""
    for length in range(len(raw)):
        with pytest.raises(TruncatedError):
            opened(raw[:length])


def members(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"")
    return out.getvalue()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a/x", "a/x"], "two members have the same name: 'a/x'"),
        (["a\\x"], "a control character or a backslash"),
        (["a\nx"], "a control character or a backslash"),
        (["/a"], "the member name '/a' is not a plain relative path"),
        (["b", "a/../x"], "the member name 'a/../x' is not a plain relative path"),
        (["C:/x"], "is not a plain relative path"),
        ([".", "x"], "is not a plain relative path"),
    ],
)
def test_names_that_readers_disagree_on_are_refused(names, text):
    """Names that occur twice, or are outside of the archive's folder, are refused."""
    with pytest.raises(FormatError, match=text):
        opened(members(*names))


def test_limits_are_named():
    """An archive that exceeds a limit is refused, and the error names the limit."""
    bomb = packed({"a/x": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    for raw, limits, name in [
        (GOOD, Limits(zip_members=3), "zip_members"),
        (members("a" * 2000), Limits(), "zip_name_bytes"),
        (bomb, Limits(member_ratio=100), "member_ratio"),
        (bomb, Limits(inflated_bytes=1000, inflated_ratio=1), "inflated_bytes"),
    ]:
        with pytest.raises(LimitError, match=name):
            opened(raw, limits=limits)


def test_a_wrong_checksum_names_the_member():
    """Bytes that do not match their checksum are never returned, and `verify` finds all of them."""
    at = OURS.index(SOME["a/data/0"])
    archive = opened(change(OURS, at, bytes([OURS[at] ^ 1])))
    with pytest.raises(ChecksumError, match=r"a/data/0: CRC-32 is [0-9a-f]{8} and should be [0-9a-f]{8}"):
        read_member(archive, "a/data/0")
    assert [member.name for member, _ in verify_members(archive)] == ["a/data/0"]


def test_an_archive_without_checksums_is_not_damaged():
    """CRCs that are all zero were not computed: this is noted, and nothing is compared with them."""
    raw = OURS
    for member in opened(OURS).members.values():
        crc = struct.pack("<I", member.crc)
        raw = raw.replace(b"PK\7\x08" + crc, b"PK\7\x08" + bytes(4))
    at = OURS_CENTRAL
    while raw[at : at + 4] == b"PK\1\2":
        raw = change(raw, at + 16, bytes(4))
        at += 46 + int.from_bytes(raw[at + 28 : at + 30], "little") + int.from_bytes(raw[at + 30 : at + 32], "little")
    archive = opened(raw)
    assert archive.notes == ["the file was saved without checksums: damage to its content cannot be detected"]
    assert {name: read_member(archive, name) for name in archive.members} == SOME
    assert verify_members(archive) == []


def test_bytes_between_members_are_noted():
    """Bytes that do not belong to any member are harmless, and noted."""
    name = b"a/data/0"
    second = GOOD.index(b"PK\3\4", 10)
    raw = GOOD[:second] + b"hidden" + GOOD[second:]
    at = CENTRAL + 6
    while raw[at : at + 4] == b"PK\1\2":
        offset = int.from_bytes(raw[at + 42 : at + 46], "little")
        if offset >= second:
            raw = change(raw, at + 42, struct.pack("<I", offset + 6))
        at += 46 + int.from_bytes(raw[at + 28 : at + 30], "little")
    raw = change(raw, at + 16, struct.pack("<I", CENTRAL + 6))
    archive = opened(raw)
    assert archive.notes == ["6 bytes between the members do not belong to any of them"]
    assert read_member(archive, name.decode()) == SOME["a/data/0"]


def test_deflated_members_that_lie_about_their_size():
    """A deflated member that does not decompress to its declared size is an error, and is not decompressed further."""
    raw = packed({"a/x": bytes(5000)}, zipfile.ZIP_DEFLATED)
    central = raw.index(b"PK\1\2")
    for size in (4999, 5001):
        lying = change(change(raw, 22, struct.pack("<I", size)), central + 24, struct.pack("<I", size))
        with pytest.raises(FormatError, match=f"its compressed data does not decompress to {size:,} bytes"):
            read_member(opened(lying), "a/x")
    with pytest.raises(FormatError, match="its compressed data does not decompress to 5,000 bytes: Error"):
        read_member(opened(change(raw, 33, b"\xff\xff")), "a/x")


def test_bytes_after_the_end_of_a_deflated_member_are_refused():
    """A deflated member ends where its compressed data ends: readers disagree on bytes after that."""
    raw = archive(Member(b"a/x", bytes(5000), DEFLATED, raw=deflated(bytes(5000)) + b"more"))
    with pytest.raises(FormatError, match="its compressed data does not decompress to 5,000 bytes"):
        read_member(opened(raw), "a/x")


def test_a_large_archive_may_be_decompressed_to_a_multiple_of_its_size():
    """The decompressed size is limited by `inflated_bytes` or by `inflated_ratio`, whichever allows more."""
    raw = packed({"a/x": bytes(5000)}, zipfile.ZIP_DEFLATED)
    ratio = -(-5000 // len(raw))
    assert opened(raw, limits=Limits(inflated_bytes=0, inflated_ratio=ratio)).members["a/x"].nbytes == 5000
    assert opened(raw, limits=Limits(inflated_bytes=5000, inflated_ratio=0)).members["a/x"].nbytes == 5000
    with pytest.raises(LimitError, match="decompressing the file to 5,000 bytes"):
        opened(raw, limits=Limits(inflated_bytes=4999, inflated_ratio=ratio - 1))


def test_an_absent_member_is_an_unknown_name():
    """Asking for a member that is not there says so."""
    with pytest.raises(UnknownNameError, match="'a/nothing' is not in the archive <BytesIO>"):
        read_member(opened(GOOD), "a/nothing")


def test_arrays_are_numbers_of_numpy():
    """Offsets are computed with 64-bit numbers: ten storages of 4 GiB do not wrap around."""
    places = place([2**32] * 10, [8] * 10, [0] * 10)
    assert places.ends.dtype == np.int64
    assert places.ends[-1] > 40 * 2**30


def test_payloads_begin_where_they_are_wanted_and_may_go_unchecked():
    """Any alignment below 64 KiB; without checksums all are 0, and the bytes are the same."""
    contents = {"a": b"x" * 10, "empty": b"", "b": bytes(300_000)}
    raw = written(contents, alignment=4096, checked=False)
    archive = opened(raw)
    assert not archive.checked
    assert [archive.members[name].offset % 4096 for name in contents] == [0, 0, 0]
    assert {name: read_member(archive, name) for name in contents} == contents
    assert len({member.crc for member in archive.members.values()}) == 1
