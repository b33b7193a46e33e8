"""Names of objects: good for files on every system, or refused before anything is written."""

from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.training._names import LONGEST, LONGEST_PART, check, stems
from statedict.training._run import name_of


@pytest.mark.parametrize(
    "name", ["model", "Model 2", "optimizers/0", "cuda", "module.weight", "modèle", "模型", "a/b/c"]
)
def test_ordinary_names_are_names(name):
    """Letters of any script, digits, spaces, dots inside; paths of such parts."""
    check(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "a part of the name is empty"),
        ("a//b", "a part of the name is empty"),
        ("a/", "a part of the name is empty"),
        ("..", "must not begin with a dot"),
        ("../x", "must not begin with a dot"),
        (".hidden", "must not begin with a dot"),
        ("x.", "or end with a dot or a space"),
        ("x ", "or end with a dot or a space"),
        *((f"a{odd}b", "file names cannot contain") for odd in '\\:*?"<>|\0\n\x7f\ud800\udfff'),
        *((device, "reserved device name on Windows") for device in ("con", "NUL", "Com1", "lpt9", "aux.x", "a/prn")),
        ("a" * (LONGEST_PART + 1), "longer than 100 bytes"),
        ("ä" * 51, "longer than 100 bytes"),
        ("/".join(["a" * LONGEST_PART] * 2), f"longer than {LONGEST} bytes"),
        *((own, "is reserved for a file of the checkpoint") for own in ("values", "random", "manifest", "values/0")),
        *((taken, "is a parameter of resume") for taken in ("at", "options", "limits", "limits/x")),
    ],
    ids=repr,
)
def test_other_names_are_refused(name, reason):
    """Each with its reason, and with what to do."""
    with pytest.raises(ValueError, match=reason):
        check(name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model", "optimizers/0"], ["model", "optimizers.0"]),
        (["optimizers/0", "optimizers.0"], ["optimizers.0", "optimizers.0-2"]),
        (["g", "G", "g-2"], ["g", "G-2", "g-2-2"]),
        (["\xe9", "e\u0301"], ["\xe9", "e\u0301-2"]),
        (["Values", "values"], ["Values-2", "values"]),
        (
            ["random-00000", "model-00001-of-00002", "model.pt"],
            ["random-00000-2", "model-00001-of-00002-2", "model.pt-2"],
        ),
    ],
)
def test_no_two_objects_have_one_file(names, expected):
    """Also where the case of letters or their composition makes no difference, and beside the files of shards and ranks."""
    assert dict(zip(names, expected)) == stems(names)


parts = st.text(st.sampled_from("aA.-2/"), min_size=1, max_size=5)


@given(st.lists(parts, unique=True, max_size=12))
def test_files_are_as_many_as_names(names):
    """`stems` gives every name a file of its own, whatever the case of letters is worth."""
    found = stems(names)
    assert list(found) == names
    assert len({stem.casefold() for stem in found.values()}) == len(names)


@pytest.mark.parametrize(
    "place", ["s3://bucket/run/step-1", "s3://bucket/run/step-1/", PureWindowsPath("C:/run/step-1")]
)
def test_the_name_of_a_checkpoint(place):
    """It is the last part of its path or URL, whatever separates the parts."""
    assert name_of(place) == "step-1"
