"""The index of a run in an object store: what is written is read, and damage is found."""

import pytest

from statedict.errors import FileChangedError, FormatError
from statedict.formats.runs import NewerVersionError, RunIndex, is_unique_name, own_steps, parse_index, unique_name
from statedict.formats.runs._index import ATTEMPTS, read_index
from statedict.formats.runs._manifest import seal

INDEX = RunIndex({3: unique_name(3), 20: "step-0000000020"}, frozenset({3}), "process 5 on host", "00ff", 7)


def test_what_is_written_is_read():
    """`parse_index` returns what `dump` has written."""
    assert parse_index(INDEX.dump(), ".run") == INDEX
    assert parse_index(RunIndex(number=1).dump(), ".run") == RunIndex(number=1)


def test_every_truncation_and_every_flipped_bit_is_an_error():
    """The checksum covers every byte, and nothing may follow it."""
    raw = INDEX.dump()
    damaged = [raw[:end] for end in range(len(raw))] + [raw + b"\n"]
    damaged += [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    for each in damaged:
        with pytest.raises(FormatError, match=r"\.run.*the index of the run is damaged"):
            parse_index(each, ".run")


@pytest.mark.parametrize(
    "change",
    [
        (b'"3": "', b'"4": "'),
        (b'"step-0000000020"', b'"../step-0000000020"'),
        (b'"pinned": [3]', b'"pinned": 3'),
        (b"statedict run", b"statedict checkpoint"),
        (b'"pinned": [3]', b'"pinned": [Infinity]'),
        (b'"number": 7', b'"number": null'),
        (b'"number": 7', b'"number": 0'),
    ],
)
def test_a_folder_of_another_step_and_a_wrong_type_are_errors(change):
    """An index of another step, or with a value of a wrong type, is an error, also if its checksum is right."""
    content = INDEX.dump().partition(b',\n "crc32"')[0]
    assert change[0] in content
    with pytest.raises(FormatError, match="the index of the run is damaged"):
        parse_index(seal(content.replace(*change)), ".run")


def test_a_newer_version_is_not_damage():
    """The error for an index of a newer version says to upgrade."""
    content = INDEX.dump().partition(b',\n "crc32"')[0].replace(b'"version": 1', b'"version": 2')
    with pytest.raises(NewerVersionError, match="upgrade statedict"):
        parse_index(seal(content), ".run")


def test_each_save_has_a_name_of_its_own():
    """Names of a step differ, and tell the step."""
    one, other = unique_name(3), unique_name(3)
    assert one != other
    assert own_steps([one]) == {3: one}
    assert is_unique_name(one)
    assert not is_unique_name("step-0000000003")


class Changing:
    """A folder, and the file in it, which changes while it is opened or read, so many times."""

    name, size = ".run", 1 << 10

    def __init__(self, changes):
        self.left = changes

    def refresh(self):
        self.left -= 1

    def path_of(self, name):
        return f"s3://bucket/run/{name}"

    def file(self, name):
        if self.left >= ATTEMPTS // 2:
            raise FileChangedError(self.name, "another ETag")
        return self

    def read(self, start, stop):
        if self.left >= 0:
            raise FileChangedError(self.name, "another ETag")
        return INDEX.dump()


def test_an_index_that_changes_while_it_is_read_is_read_again():
    """An index that changes while it is read is read again; if that goes on, it is an error."""
    assert read_index(Changing(ATTEMPTS - 1)) == INDEX
    with pytest.raises(
        FileChangedError, match="100 attempts: another process changes the run all the time, or the store"
    ):
        read_index(Changing(ATTEMPTS))
