"""A short run of every fuzz target, and every input that a longer one ever found."""

from __future__ import annotations

import pytest
from tests.fuzz.loop import FOUND, attempt, fuzz, watching
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nearly_right_files_are_read_or_refused(name: str):
    """No input crashes a reader, runs anything, or costs more than a second or 64 MiB and four times its size."""
    _, found = fuzz(TARGETS[name], seed=1, least=500)
    assert [finding.what for finding in found] == []


@pytest.mark.parametrize("path", sorted(FOUND.glob("*-*")), ids=lambda path: path.name)
def test_what_was_found_stays_mended(path):
    """Inputs that once crashed a reader are read or refused."""
    target = TARGETS[path.name.partition("-")[0]]
    for raw in target.seeds:  # Whatever is imported or made once is, before anybody watches.
        target.read(raw)
    with watching():
        assert attempt(target, path.read_bytes()) is None
