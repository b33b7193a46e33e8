"""A survey of a state: statistics, histograms and heat maps of each tensor, each read once."""

import ml_dtypes
import numpy as np
import pytest

import statedict
from statedict.cli._progress import counted
from statedict.report import BUDGET, statistics, survey
from statedict.report._survey import LARGEST, SMALLEST, resolution
from statedict.state import Compound, StateDict, dtype, leaf_of


@pytest.mark.parametrize("of", [np.float32, np.float64, np.int32, np.uint8, bool, np.complex64, ml_dtypes.bfloat16])
def test_each_tensor_is_measured(of):
    """Statistics are those of `inspect --stats`; the histogram holds every finite element; matrices have a heat map."""
    array = (np.arange(30).reshape(5, 6) % 7).astype(of)
    (found,) = survey(StateDict({"w": array})).measures
    assert found.stats == statistics([array.reshape(-1)])
    assert sum(found.histogram.counts) == 30
    assert (found.heat.rows, found.heat.columns, found.heat.exact) == (5, 6, True)
    assert found.heat.cells()[0, 1] == abs(complex(array[0, 1]))


def test_a_large_tensor_in_many_pieces():
    """A tensor of many pieces of whole rows is as NumPy has it."""
    array = np.random.default_rng(0).normal(size=(3000, 301)).astype(np.float32)
    (found,) = survey(StateDict({"w": array})).measures
    assert found.stats["std"] == pytest.approx(array.std(dtype=np.float64))
    assert sum(found.histogram.counts) == array.size
    assert np.mean(found.heat.cells() ** 2) == pytest.approx(np.mean(array.astype(np.float64) ** 2), rel=0.05)


def test_every_storage_is_read_once(tmp_path):
    """Tied tensors are measured once, together; all else is read once."""
    weight, ticks = np.ones((64, 64), np.float32), []
    statedict.save(StateDict({"a": weight, "b": weight, "c": np.ones(9, np.float32)}), tmp_path / "x.pt")
    with statedict.open(tmp_path / "x.pt") as checkpoint:
        found = survey(counted(checkpoint.state_dict(), ticks.append))
        assert sum(ticks) == 64 * 64 * 4 + 9 * 4
        assert found.measures[0] is found.measures[1]


def test_headers_alone_read_nothing(tmp_path):
    """Without `read` no byte of a tensor is asked for, and nothing is measured."""
    ticks = []
    statedict.save(StateDict({"a": np.ones((4, 4))}), tmp_path / "x.pt")
    with statedict.open(tmp_path / "x.pt") as checkpoint:
        assert survey(counted(checkpoint.state_dict(), ticks.append), read=False).measures == [None]
        assert ticks == []


def test_what_is_no_array_is_told_and_not_measured():
    """A sparse tensor has facts, and an entry that is not a tensor is a value; neither is measured."""
    parts = {"indices": leaf_of(np.zeros((1, 1), np.int64)), "values": leaf_of(np.ones(1))}
    sparse = Compound("sparse_coo", dtype("float64"), (5,), parts)
    found = survey(StateDict({"s": sparse, "step": 3}))
    assert (found.tensors[0]["layout"], found.measures, found.values[0]["value"]) == ("sparse_coo", [None], 3)


@pytest.mark.parametrize("number", [0, 1, 100, 1000, 10_000])
def test_heat_maps_keep_to_their_budget(number):
    """The more matrices, the fewer cells each has; all together take what the page can afford."""
    side = resolution([(300, 300)] * number + [(300,)] * 50, BUDGET)
    assert SMALLEST <= side <= LARGEST
    assert number * side**2 <= BUDGET
