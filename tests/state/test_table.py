"""Tables of tensors: leaves and columns describe the same tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import statedict
from statedict.state import PLAIN, Leaf, RowKind, Table, contiguous, dtype, leaf_of, leaves_of, rows_of, table_of

ARRAYS = [np.arange(n % 5 + 1, dtype=["f4", "i8", "u1"][n % 3]) for n in range(30)]


def bytes_of(table: Table) -> list[bytes]:
    found = {}
    for some, block, places in table.read():
        for row, place in zip(some, places):
            assert place % 64 == 0
            found[row] = bytes(block[place : place + table.sizes[row]])
    return [found[row] for row in range(len(table))]


@pytest.fixture(name="saved", params=["pt", "safetensors"], scope="module")
def saved_fixture(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / f"m.{request.param}"
    statedict.save({f"w{number}": array for number, array in enumerate(ARRAYS)}, path)
    with statedict.open(path) as checkpoint:
        yield list(checkpoint.object.values())


def test_leaves_of_a_file_are_rows(saved):
    """The leaves of a state are the rows of one table, in order, and rows have the elements of the arrays."""
    table = rows_of(saved)
    assert table is not None
    assert table_of(saved) is table
    assert bytes_of(table) == [array.tobytes() for array in ARRAYS]
    assert [table.leaf(row).storage.key for row in range(len(table))] == [leaf.storage.key for leaf in saved]


@given(st.lists(st.integers(0, len(ARRAYS) - 1), unique=True, min_size=1))
def test_any_rows_can_be_taken(saved, rows):
    """A selection of leaves, in any order, is a table of these rows."""
    table = rows_of([saved[row] for row in rows])
    assert table is not None
    assert bytes_of(table) == [ARRAYS[row].tobytes() for row in rows]
    assert table.of_each(lambda kind: kind.spec) == [saved[row].spec for row in rows]
    assert {kind.spec for kind in table.used()} == {saved[row].spec for row in rows}


def test_single_leaves_form_a_table(saved):
    """Leaves of several sources, also of parts of a storage, form a table that reads each from its own."""
    whole = np.arange(20, dtype="f4")
    leaves = [saved[3], leaf_of(whole[4:9]), saved[7], leaf_of(whole), leaf_of(whole[4:9])]
    assert rows_of(leaves) is None
    table = table_of(leaves)
    assert bytes_of(table) == [array.tobytes() for array in (ARRAYS[3], whole[4:9], ARRAYS[7], whole, whole[4:9])]
    assert table.single_storages() == [leaf.storage for leaf in leaves]


def test_a_row_that_occurs_twice_is_not_a_table_of_rows(saved):
    """Two names of one tensor share memory, which rows do not."""
    assert rows_of([saved[0], saved[1], saved[0]]) is None
    assert bytes_of(table_of([saved[0], saved[0]])) == [ARRAYS[0].tobytes()] * 2


@pytest.mark.parametrize("values", [[], [1], [leaf_of(np.zeros(2)), None]])
def test_other_values_are_not_a_table(values):
    """Only leaves form a table."""
    assert table_of(values) is None


def test_rows_are_appended():
    """`extend` returns the numbers of the new rows, and `leaves_of` makes their leaves."""
    table = Table(None, [RowKind(contiguous(dtype("float32"), (2,)), PLAIN)], [], [], [], [])
    assert table.extend([0], [64], [8], ["a"]) == range(1)
    assert table.extend([0, 0], [128, 192], [8, 8], ["b", "c"]) == range(1, 3)
    leaves = leaves_of(table, range(3))
    assert [(type(leaf), leaf.row, leaf.spec.shape) for leaf in leaves] == [(Leaf, row, (2,)) for row in range(3)]
    assert table.marks == [["a", "b", "c"]]
