"""Each law of the suites is broken by a fault, and only that law."""

from __future__ import annotations

import inspect
from collections.abc import Collection

import pytest
from tests.testing import toy

from statedict.testing import FormatSuite
from statedict.testing._law import broken


class ToyFormat(FormatSuite):
    format = "toy"
    checksums = False
    copies = 300
    faults: Collection[str] = ()

    def write(self, state, metadata):
        return toy.written(state, metadata, self.faults)

    def open(self, source):
        return toy.opened(source, self.faults)

    def infected(self, pickle):
        return toy.written(self.small(), {}, pickled=pickle)


class TestToyFormat(ToyFormat):
    """The toy format without a fault keeps every law."""


def laws_broken(suite):
    """Return the laws that a suite breaks."""
    names = [name for name, _ in inspect.getmembers(type(suite), inspect.isfunction) if name.startswith("test_")]
    return {name for name in names if _is_broken(suite, name)}


def _is_broken(suite, name):
    try:
        return next(broken(suite, name), None) is not None
    except (Exception, pytest.skip.Exception) as error:
        return isinstance(error, Exception)


FAULTS = {
    "looks at names": "test_files_are_recognised_by_their_content",
    "has no scalars": "test_every_dtype_and_shape_is_read_as_written",
    "writes memory order": "test_every_layout_is_read_as_written",
    "sorts names": "test_names_keep_their_order",
    "unties": "test_tied_tensors_stay_tied",
    "drops metadata": "test_metadata_is_kept",
    "miscounts": "test_paths_and_file_objects_are_read_alike",
    "unpickles": "test_nothing_in_a_file_is_run",
    "ignores truncation": "test_truncated_files_are_refused",
    "crashes": "test_truncated_files_are_refused",
    "ignores what follows": "test_trailing_bytes_are_refused_or_noted",
    "crashes on damage": "test_changed_bits_are_noticed",
    "does not check offsets": "test_tensors_lie_within_their_file",
    "does not check shapes": "test_tensors_lie_within_their_file",
    "reads eagerly": "test_opening_reads_only_the_description",
    "reads everything": "test_one_tensor_reads_only_its_bytes",
    "allocates when opened": "test_opening_needs_little_memory",
    "allocates twice": "test_reading_needs_the_memory_of_one_tensor",
    "stays open": "test_a_closed_checkpoint_cannot_be_read",
    "shares its place": "test_threads_may_read_one_checkpoint",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_law_on_it(fault):
    """A fault of a reader is found by the law on it, and by no other."""
    suite = ToyFormat()
    suite.faults = [fault]
    assert laws_broken(suite) == {FAULTS[fault]}
