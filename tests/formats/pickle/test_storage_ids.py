"""The bounds of the fields of a storage's persistent id: the last value that is accepted, and the first that is not."""

from __future__ import annotations

import pytest

from statedict.errors import FormatError
from statedict.formats._pickle.reading._tensors import storage_id
from statedict.state import Opaque

KIND = Opaque("torch", "FloatStorage")


@pytest.mark.parametrize("numel", [0, 1, (1 << 63) - 1])
@pytest.mark.parametrize("key", ["0", "k" * 256, 0, (1 << 128) - 1])
def test_every_field_is_accepted_up_to_its_bounds(key, numel):
    """Keys of 1 to 256 characters or of up to 128 bits, and any count below 2**63, are kept as they are."""
    found = storage_id(("storage", KIND, key, "cpu", numel))
    assert (found.key, found.location, found.numel, found.view) == (str(key), "cpu", numel, None)


@pytest.mark.parametrize("view", [("v", 0, 0), ("v", 0, 4), ("v", 4, 0), (7, 1, 1), None])
def test_views_at_the_beginning_and_without_elements_are_accepted(view):
    """A view of a legacy file may begin at element 0, and may have no elements."""
    expected = None if view is None else (str(view[0]), *view[1:])
    assert storage_id(("storage", KIND, "0", "cpu", 4, view)).view == expected


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({2: ""}, "its key is not a string"),
        ({2: "k" * 257}, "its key is not a string"),
        ({2: 1 << 128}, "its key is not a string"),
        ({3: None}, "its location is not a string"),
        ({4: -1}, "its number of elements is not a non-negative integer"),
        ({4: 1 << 63}, "its number of elements is not a non-negative integer"),
        ({4: True}, "its number of elements is not a non-negative integer"),
        ({5: ("v", -1, 1)}, "the offset or size of its view is not a non-negative integer"),
        ({5: ("v", 1, -1)}, "the offset or size of its view is not a non-negative integer"),
        ({5: ("v", 0)}, r"its view is not \(key, offset, size\)"),
        ({6: 0}, "it has 7 fields, not 5"),
    ],
)
def test_a_field_beyond_its_bounds_is_refused(changed, text):
    """The first value beyond a bound is refused, and the error says which field is wrong."""
    fields = dict(enumerate(("storage", KIND, "0", "cpu", 4, None))) | changed
    with pytest.raises(FormatError, match=text):
        storage_id(tuple(fields.values()))
