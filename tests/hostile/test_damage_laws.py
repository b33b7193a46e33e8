"""Whatever happens to a file with checksums is noticed, or makes no difference.

Single bits, truncation and trailing bytes are among the laws of the public suites (tests/formats/test_laws.py).
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats import test_laws as laws

from statedict.testing import FolderSuite

SUITES = {
    name: suite
    for name, suite in vars(laws).items()
    if name.startswith("Test") and suite.checksums and not issubclass(suite, FolderSuite)
}


@cache
def sample(name):
    """A suite, and the name and bytes of a file of its format."""
    suite = SUITES[name]()
    [(file, raw)] = suite.files_of(suite.small()).items()
    return suite, file, raw


@pytest.mark.parametrize("name", SUITES)
@settings(max_examples=150)
@given(data=st.data())
def test_random_damage_is_noticed(name: str, data: st.DataObject):
    """A run of bytes overwritten, zeroed, moved or repeated gives an error that names the file, or the same values."""
    suite, file, raw = sample(name)
    start = data.draw(st.integers(0, len(raw) - 1))
    stop = data.draw(st.integers(start, min(len(raw), start + 64)))
    new = data.draw(
        st.one_of(st.binary(max_size=64), st.just(bytes(stop - start)), st.just(raw[start:stop] * 2), st.just(b""))
    )
    assert suite.wrong(suite.attempt({file: raw[:start] + new + raw[stop:]}), [file], None) is None
