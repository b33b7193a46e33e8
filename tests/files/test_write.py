"""The checksum of a file that is recorded while it is written."""

import io
import os
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import files
from statedict.files import Frame, Payload, Upload, _output, open_bucket

# Sizes of parts, each with whether it is a Payload and whether it is made last.
PARTS = st.lists(st.tuples(st.integers(0, 1 << 19), st.booleans(), st.booleans()), min_size=1, max_size=6)


def parts_of(sizes):
    """Parts of random bytes; those made last depend on the checksums that the payloads have told."""
    told = []

    def late(nbytes):
        return (b"%010d" % sum(told) * (nbytes // 10 + 1))[:nbytes]

    for nbytes, is_payload, is_last in sizes:
        raw = memoryview(os.urandom(nbytes))
        if is_last:
            yield Frame(nbytes, lambda nbytes=nbytes: late(nbytes), last=True)
        elif is_payload:
            yield Payload(nbytes, lambda raw=raw: [raw[:3], raw[3:]], told.append)
        else:
            yield Frame(nbytes, lambda raw=raw: raw)


@pytest.mark.parametrize("durable", ["full", "rename", "none"])
@settings(deadline=None, max_examples=20)
@given(sizes=PARTS)
def test_the_checksum_is_that_of_the_file(tmp_path_factory, durable, sizes):
    """Whatever its parts are, in the order of the file or not, through the page cache or past it."""
    path = tmp_path_factory.mktemp("run") / "model.pt"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_output, "LARGE", 1 << 18)
        crc = files.write_summed(path, list(parts_of(sizes)), durable=durable)
    assert crc == zlib.crc32(path.read_bytes())


@settings(deadline=None, max_examples=20)
@given(sizes=PARTS)
def test_the_checksum_is_that_of_a_stream(sizes):
    """A part that is made last may be the first one: the others are then produced twice, and summed once."""
    stream = io.BytesIO()
    assert files.write_summed(stream, list(parts_of(sizes))) == zlib.crc32(stream.getvalue())


def test_the_checksum_is_that_of_an_object(tmp_path):
    """The checksum of an uploaded object is that of its parts."""
    pytest.importorskip("fsspec")
    bucket = open_bucket(f"memory://{tmp_path.name}/run")
    with Upload(bucket, "model.pt") as upload:
        crc = files.write_summed(
            upload, list(parts_of([(5, False, True), (1 << 20, True, False), (70_000, False, False)]))
        )
    assert crc == zlib.crc32(bucket.get("model.pt")[0])
