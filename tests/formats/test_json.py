"""JSON of our own files: what Python's parser must not be given."""

import pytest

from statedict.formats import parse_json


@pytest.mark.parametrize("text", [b'"[["', rb'"\"[[[\\"', b"[" * 100 + b"]" * 100, b'{"a":[{"b":[]}]}'])
def test_nesting_of_a_hundred_is_read(text):
    """Brackets in strings do not count."""
    assert parse_json(text) is not None


@pytest.mark.parametrize("text", [b"[" * 101 + b"]" * 101, b'{"a":' * 100_000, rb'["\"",' + b"[" * 100_000])
def test_deeper_nesting_is_an_error(text):
    """Nesting that is too deep is an error before the text is parsed: Python 3.13 would end a process with a small stack."""
    with pytest.raises(ValueError, match="deep"):
        parse_json(text)
