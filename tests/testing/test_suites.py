"""Each law of the suites is broken by a fault, and only that law."""

from __future__ import annotations

import inspect
from collections.abc import Collection

import pytest
from tests.testing import toy, toy_folder

from statedict.errors import FormatError
from statedict.files import system
from statedict.testing import FolderSuite, FormatSuite
from statedict.testing._law import HangError, broken, no_hang


class ToyFormat(FormatSuite):
    format = "toy"
    checksums = False
    copies = 900
    faults: Collection[str] = ()

    def write(self, state, metadata):
        return toy.written(state, metadata, self.faults)

    def open(self, source):
        return toy.opened(source, self.faults)

    def infected(self, pickle):
        return toy.written(self.small(), {}, pickled=pickle)


class TestToyFormat(ToyFormat):
    """The toy format without a fault keeps every law."""


class ToyFolder(FolderSuite):
    format = "toy-folder"
    checksums = metadata = ties = False
    needed = ("index.json",)
    copies = 100
    faults: Collection[str] = ()

    def write(self, state, metadata):
        return toy_folder.written(state)

    def open(self, source):
        return toy_folder.opened(source, self.faults)


class TestToyFolder(ToyFolder):
    """The toy folder without a fault keeps every law."""


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
    "trusts lengths": "test_tensors_lie_within_their_file",
    "does not check shapes": "test_tensors_lie_within_their_file",
    "reads eagerly": "test_opening_reads_only_the_description",
    "reads everything": "test_one_tensor_reads_only_its_bytes",
    "allocates when opened": "test_opening_needs_little_memory",
    "allocates twice": "test_reading_needs_the_memory_of_one_tensor",
    "shares its place": "test_threads_may_read_one_checkpoint",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_law_on_it(fault):
    """A fault of a reader is found by the law on it, and by no other."""
    suite = ToyFormat()
    suite.faults = [fault]
    assert laws_broken(suite) == {FAULTS[fault]}


def test_a_checkpoint_that_stays_open_is_found():
    """A checkpoint that stays open is found: it can still be read, or its folder cannot be deleted."""
    suite = ToyFormat()
    suite.faults = ["stays open"]
    also = {"test_paths_and_file_objects_are_read_alike"} if system.MUST_CLOSE else set()
    assert laws_broken(suite) == {"test_a_closed_checkpoint_cannot_be_read", *also}


FAULTS_OF_FOLDERS = {
    "looks at names": "test_files_are_recognised_by_their_content",
    "ignores truncation": "test_truncated_files_are_refused",
    "needs every file": "test_missing_files_are_named",
    "skips missing files": "test_missing_files_are_named",
    "follows names": "test_names_do_not_leave_the_folder",
}


@pytest.mark.parametrize("fault", FAULTS_OF_FOLDERS)
def test_a_fault_of_a_folder_breaks_the_law_on_it(fault):
    """A fault of a reader of folders is found by the law on it, and by no other."""
    suite = ToyFolder()
    suite.faults = [fault]
    assert laws_broken(suite) == {FAULTS_OF_FOLDERS[fault]}


def test_a_failure_says_which_rule_was_broken():
    """The text of a failure is the rule and the first cases; an exception in a law has the rule as its note."""
    suite = ToyFormat()
    suite.faults = ["sorts names"]
    with pytest.raises(pytest.fail.Exception) as caught:
        suite.test_names_keep_their_order()
    assert str(caught.value).splitlines() == [
        "Names are read as written, in the same order.",
        "  ['layer.weight', 'bias', 'größe', 'a/b'] is read as ['a/b', 'bias', 'größe', 'layer.weight']",
        "  ['a/b', 'größe', 'bias', 'layer.weight'] is read as ['a/b', 'bias', 'größe', 'layer.weight']",
    ]
    suite.write = lambda state, metadata: b"nothing"
    with pytest.raises(FormatError) as raised:
        suite.test_metadata_is_kept()
    assert raised.value.__notes__ == [
        "The law that was tested: Text metadata is read as written, in `Checkpoint.texts`."
    ]


@pytest.mark.only_on("linux", "macos")  # Windows has no timer of processor time
def test_a_hang_is_found():
    """A reader that does not end breaks the law, by the processor time that it took."""

    def hangs():
        with no_hang(0.05):
            while True:
                pass

    with pytest.raises(HangError, match="processor time"):
        hangs()
