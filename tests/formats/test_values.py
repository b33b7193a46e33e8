"""`verify(values=True)` finds NaN and infinity, at a cost limited by the size of the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from tests.hostile.build import pickles as p
from tests.hostile.build.torch_zips import torch_zip

from statedict import formats

NAN = np.array([1, np.nan, np.inf, 4], "<f4").tobytes()


def found(raw):
    with formats.open(io.BytesIO(raw)) as checkpoint:
        return [(finding.level, finding.where, finding.text) for finding in checkpoint.verify(values=True)]


def view(size, stride, offset=0):
    return p.tensor(p.storage(numel=4), offset, size, stride)


def test_values_that_are_not_finite_are_counted():
    """Each tensor with such elements is a warning with their number."""
    state = p.state(w=view((4,), (1,)), good=view((1,), (1,)), tail=view((2,), (1,), 2))
    assert found(torch_zip(state, {"0": NAN})) == [
        ("warning", "w", "2 of its 4 elements are NaN or infinite"),
        ("warning", "tail", "1 of its 2 elements are NaN or infinite"),
    ]


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((2**40,), (0,), 1), ((2**20, 2**20, 2), (0, 0, 1), 1), ((3, 2**30), (1, 0), 0), ((1, 2, 2), (9, 1, 1), 1)],
)
def test_elements_shown_again_and_again_are_looked_at_once(size, stride, offset):
    """A view of terabytes over sixteen bytes costs the reading of sixteen bytes."""
    [(level, where, text)] = found(torch_zip(p.state(w=view(size, stride, offset)), {"0": NAN}))
    assert (level, where) == ("warning", "w")
    assert "elements are NaN or infinite" in text


def test_an_empty_view_beyond_the_start_is_nothing():
    """A tensor without elements does not have any that are not finite."""
    assert found(torch_zip(p.state(w=view((0, 3), (3, 1), 2)), {"0": NAN})) == []


def test_more_views_than_the_file_pays_for_are_skipped_and_said(monkeypatch):
    """Beyond a multiple of the file's size further views are skipped, which is reported."""
    monkeypatch.setattr("statedict.formats.checkpoint._checkpoint.FLOOR", 0)
    views = {f"v{n}": view((n + 1, 2), (0, n % 2), n % 3) for n in range(12)}
    raw = torch_zip(p.state(**views), {"0": NAN})
    assert not any(level == "note" for level, *_ in found(raw))
    many = {f"v{n}": p.tensor(p.storage(numel=40_000), n, (20_000,), (1,)) for n in range(20)}
    *_, (level, _, text) = found(torch_zip(p.state(**many), {"0": NAN * 10_000}))
    assert (level, text) == ("note", "12 further views of the same bytes were not checked for NaN")
