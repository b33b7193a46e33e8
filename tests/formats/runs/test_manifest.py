"""The manifest says what it holds exactly, and anything else is refused by name."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import ChecksumError, FormatError, SaveError, TruncatedError, UnknownFormatError
from statedict.formats.runs import _manifest
from statedict.formats.runs._manifest import (
    SEAL,
    FileFacts,
    Manifest,
    NewerVersionError,
    dump,
    parse,
    read,
    seal,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def manifest(**changed):
    facts = {
        "step": 7,
        "time": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "metrics": {"loss": 0.5},
        "values": {"epoch": 3},
        "objects": {"model": "model.pt"},
        "files": {"model.pt": FileFacts(10, 0x9AE0DAAF)},
        "versions": {"python": "3.11"},
    }
    return Manifest(**(facts | changed))


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_what_is_dumped_is_parsed(some):
    """parse(dump(m)) == m, infinities included."""
    original = manifest(values=some, metrics={"loss": float("-inf")})
    assert original == parse(dump(original), "m")


def test_nan_survives():
    """JSON has no NaN; the manifest keeps it all the same, and stays strict JSON."""
    raw = dump(manifest(metrics={"loss": float("nan")}))
    json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert parse(raw, "m").metrics["loss"] != parse(raw, "m").metrics["loss"]


def resealed(raw):
    """A manifest that was changed on purpose: with the checksum of what it says now."""
    return seal(raw[: SEAL.search(raw).start()])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda raw: b"", TruncatedError, "m: the manifest is empty"),
        (lambda raw: raw[:-20], FormatError, "not valid JSON"),
        (lambda raw: b"[]", UnknownFormatError, "not the manifest of a checkpoint"),
        (lambda raw: b"[" * 100_000, FormatError, "not valid JSON"),
        (lambda raw: raw.replace(b'"step": 7', b'"step": 6'), ChecksumError, "its CRC-32 is .*, expected"),
        (lambda raw: raw.rstrip(), ChecksumError, "does not end with its checksum"),
    ],
)
def test_a_damaged_manifest_says_what_is_wrong(change, error, text):
    """Whatever is not a manifest of this version is an error that names the file and the reason."""
    with pytest.raises(error, match=text):
        parse(change(dump(manifest())), "m")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda raw: raw.replace(b'"version": 1', b'"version": 2'), NewerVersionError, "version 2 is not supported"),
        (
            lambda raw: raw.replace(b'"step": 7', b'"step": "7"'),
            FormatError,
            "a field of the manifest is missing or has the wrong type",
        ),
        (lambda raw: raw.replace(b'"step": 7', b'"step": -7'), FormatError, "a field of the manifest"),
        (lambda raw: raw.replace(b'"files"', b'"fils"'), FormatError, "KeyError\\('files'\\)"),
        (lambda raw: raw.replace(b'"model.pt"', b'"../model.pt"'), FormatError, "is outside the checkpoint"),
        (lambda raw: raw.replace(b'"model.pt"', b'"/model.pt"'), FormatError, "is outside the checkpoint"),
        (lambda raw: raw.replace(b'"model.pt"', b'"C:/model.pt"'), FormatError, "is outside the checkpoint"),
        (
            lambda raw: raw.replace(b'"model": "m', b'"model": "n'),
            FormatError,
            "does not list the files of the objects 'model'",
        ),
        (
            lambda raw: raw.replace(b'"epoch": 3', b'"epoch": ' + b"[" * 60 + b"]" * 60),
            FormatError,
            "nested more than 50",
        ),
    ],
)
def test_a_manifest_that_is_wrong_says_so(change, error, text):
    """What a manifest with the right checksum cannot mean is an error that names the file and the reason."""
    with pytest.raises(error, match=f"^m: .*{text}"):
        parse(resealed(change(dump(manifest()))), "m")


def test_every_bit_is_vouched_for():
    """A manifest with any one bit changed is refused: its checksum covers all the rest, and has one form only."""
    raw = dump(manifest())
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            parse(bytes(changed), "m")


def test_a_manifest_that_would_be_too_large_to_be_read_is_refused(monkeypatch):
    """The writer knows the reader's limit."""
    monkeypatch.setattr(_manifest, "LARGEST", 300)
    with pytest.raises(SaveError, match=r"the manifest would have .* bytes, more than the limit of 300"):
        dump(manifest())


def test_a_directory_without_one_is_no_checkpoint(tmp_path):
    """A missing manifest is not a missing file but an incomplete checkpoint."""
    with pytest.raises(
        UnknownFormatError, match=r"manifest\.json: the manifest is missing: this directory is not a checkpoint"
    ):
        read(tmp_path)
