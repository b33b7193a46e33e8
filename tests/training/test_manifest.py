"""The manifest says what it holds exactly, and anything else is refused by name."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import FormatError, TruncatedError, UnknownFormatError
from statedict.training._manifest import FileFacts, Manifest, dump, parse, read, survives

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


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda raw: b"", TruncatedError, "m: the manifest is empty"),
        (lambda raw: raw[:-20], FormatError, "no valid JSON"),
        (lambda raw: b"[]", UnknownFormatError, "not the manifest of a checkpoint"),
        (lambda raw: b"[" * 100_000, FormatError, "no valid JSON"),
        (lambda raw: raw.replace(b'"version": 1', b'"version": 2'), UnknownFormatError, "version 2 is not known"),
        (lambda raw: raw.replace(b'"step": 7', b'"step": "7"'), FormatError, "lacks a field, or one has another type"),
        (lambda raw: raw.replace(b'"step": 7', b'"step": -7'), FormatError, "lacks a field"),
        (lambda raw: raw.replace(b'"files"', b'"fils"'), FormatError, "KeyError\\('files'\\)"),
        (lambda raw: raw.replace(b'"model.pt"', b'"../model.pt"'), FormatError, "leaves the checkpoint"),
        (lambda raw: raw.replace(b'"model.pt"', b'"/model.pt"'), FormatError, "leaves the checkpoint"),
    ],
)
def test_a_damaged_manifest_says_what_is_wrong(change, error, text):
    """Whatever is not a manifest of this version is an error that names the file and the reason."""
    with pytest.raises(error, match=text):
        parse(change(dump(manifest())), "m")


def test_a_directory_without_one_is_no_checkpoint(tmp_path):
    """A missing manifest is not a missing file but an incomplete checkpoint."""
    with pytest.raises(UnknownFormatError, match=r"manifest\.json: there is no manifest: this is no checkpoint"):
        read(tmp_path)


@pytest.mark.parametrize("value", [1, 0.1, float("nan"), "x", None, [1, [2]], {"a": {"b": [True]}}, float("inf")])
def test_what_json_gives_back_survives(value):
    """Plain values lie in the manifest as they are."""
    assert survives(value)


@pytest.mark.parametrize("value", [(1,), {1: 2}, {"a": (1,)}, {1, 2}, b"x", object(), {"float": "nan"}])
def test_what_json_would_change_does_not(value):
    """Tuples, other keys and other objects would come back as something else."""
    assert not survives(value)
