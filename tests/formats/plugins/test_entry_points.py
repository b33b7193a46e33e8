"""Formats from other distributions: found by their entry points, and told of as the cause of their errors."""

import io
import sys
import traceback

import numpy as np
import pytest

import statedict
from statedict.errors import FormatError, PluginError, SaveError, UnknownFormatError
from statedict.formats import read_array

NOTES = """
from statedict.errors import FormatError
from statedict.formats import Checkpoint, FileTensors, Format, named_leaves

def read(file, limits):
    if file.size == 4:
        raise FormatError("it has no tensor")
    tensors = FileTensors(file, limits)
    return Checkpoint(
        file.name, "notes", {"weight": tensors.tensor("weight", "float32", ((file.size - 4) // 4,), 4)}, size=file.size,
        checks=tensors.checks,
    )

def write(obj, metadata):
    return [b"NOTE", *named_leaves(obj, "notes", lambda name, leaf: None).values()]

FORMAT = Format("notes", read, begins=lambda head, file: head[:4] == b"NOTE", suffixes=(".notes",), write=write)
"""
BROKEN = """
from statedict.formats import Checkpoint, Format, File, FileTensors
{}
FORMAT = Format("broken", read, begins=lambda head, file: head[:4] == b"NOTE")
"""


def note(tmp_path, content=b"NOTE" + bytes(8)):
    path = tmp_path / "a.note"
    path.write_bytes(content)
    return path


def test_a_plugin_reads_and_writes_its_format(tmp_path, install):
    """A file that a plugin's format wrote, chosen by suffix or by name, is recognised and read by it."""
    install("notes", NOTES)
    weight = np.arange(5, dtype=np.float32)
    for name, format in (("a.notes", None), ("a.bin", "notes")):
        statedict.save({"weight": weight}, tmp_path / name, format=format)
        with statedict.open(tmp_path / name) as checkpoint:
            assert (checkpoint.format, checkpoint.verify()) == ("notes", [])
            assert statedict.load(tmp_path / name, backend="numpy")["weight"].tolist() == weight.tolist()
    assert (tmp_path / "a.notes").read_bytes() == b"NOTE" + weight.tobytes()


def test_a_plugin_reads_a_folder(tmp_path, install):
    """A folder that no built-in format takes is recognised by the names in it, and its files are opened like any others."""
    install(
        "boxes",
        "from statedict.formats import Checkpoint, Format, open\n"
        "def read(folder, limits):\n"
        "    inner = open(folder.file('part.box'), limits=limits)\n"
        "    return Checkpoint(folder.path, 'boxes', {'model': inner.object}, size=inner.size)\n"
        "FORMAT = Format('boxes', read, holds=lambda folder: 'part.box' in folder.files)\n",
    )
    folder = tmp_path / "run"
    folder.mkdir()
    statedict.save({"weight": np.ones(3)}, folder / "part.box", format="safetensors")
    with statedict.open(folder) as checkpoint:
        assert (checkpoint.format, list(checkpoint.roots)) == ("boxes", ["model"])
        assert statedict.load(folder, backend="numpy")["model"]["weight"].tolist() == [1, 1, 1]


def test_plugins_are_not_looked_up_for_known_formats(tmp_path, monkeypatch):
    """A file or a suffix of a built-in format does not cost a look-up of entry points."""
    monkeypatch.setattr("statedict.formats._entry_points.plugins", None)
    for name in ("a.pt", "a.safetensors", "a.npz", "a.npy"):
        statedict.save(np.ones(3) if name.endswith("npy") else {"weight": np.ones(3)}, tmp_path / name)
        statedict.open(tmp_path / name).close()


def test_a_plugin_does_not_replace_a_built_in_format(tmp_path, install):
    """A plugin that recognises every file gets those that no built-in format reads."""
    install("all", BROKEN.format("read = None").replace("head[:4] == b'NOTE'", "True"))
    statedict.save({"weight": np.ones(3)}, tmp_path / "a.pt")
    with statedict.open(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.format == "torch"


FAILURES = {
    "import": ("import a_module_that_is_missing", "cannot be loaded: ModuleNotFoundError"),
    "value": ("FORMAT = 3", "provides an int, not a statedict.formats.Format"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_plugin_that_cannot_be_loaded_is_told_and_others_work(tmp_path, install, failure):
    """A plugin that cannot be imported, or is not a Format, is named if no other recognises the file."""
    code, text = FAILURES[failure]
    install("broken", code)
    path = note(tmp_path)
    with pytest.raises(UnknownFormatError) as caught:
        statedict.open(path)
    assert f"{path}: unrecognised file format" in str(caught.value)
    assert "not recognised by the plugins either: broken (statedict-broken 1.2), which failed: " in str(caught.value)
    assert text in str(caught.value)
    install("notes", NOTES)
    statedict.open(path).close()


def test_a_plugin_that_fails_to_recognise_is_told_and_others_work(tmp_path, install):
    """An exception while a plugin looks at a file does not keep others from reading it."""
    install(
        "broken", "from statedict.formats import Format\nFORMAT = Format('x', 'x:y', begins=lambda head, file: 1 / 0)"
    )
    path = note(tmp_path)
    with pytest.raises(UnknownFormatError, match=r"broken .* failed to recognise files: ZeroDivisionError: division"):
        statedict.open(path)
    install("notes", NOTES)
    statedict.open(path).close()


READERS = {
    "an exception": ("def read(file, limits): return {}['x']", "failed: KeyError: 'x'"),
    "no module": ("read = 'a_module_that_is_missing:read'", "failed: ModuleNotFoundError"),
    "no checkpoint": ("def read(file, limits): return {}", "returned a dict, not a Checkpoint"),
    "a tensor too large": (
        "def read(file, limits):\n"
        "    leaf = FileTensors(file).tensor('w', 'float32', (2,), 4)\n"
        "    leaf.spec = leaf.spec._replace(shape=(3,))\n"
        "    return Checkpoint(file.name, 'broken', {'w': leaf}, size=file.size)",
        "returned an invalid tensor: .*needs 12 bytes of a storage of 8 bytes",
    ),
}


@pytest.mark.parametrize("failure", READERS)
def test_an_unexpected_error_of_a_plugin_is_told_as_its_own(tmp_path, install, failure):
    """A reader that fails, or returns something that it must not, is named as the cause, with the file."""
    code, text = READERS[failure]
    install("broken", BROKEN.format(code))
    path = note(tmp_path)
    with pytest.raises(PluginError, match=text) as caught:
        statedict.open(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.plugin == "broken (statedict-broken 1.2)"
    assert "the plugin broken (statedict-broken 1.2) " in str(caught.value)
    assert isinstance(caught.value, FormatError)


def test_the_traceback_of_a_plugin_is_kept(tmp_path, install):
    """The error of a plugin is the cause of the error that is raised, for its author."""
    install("broken", BROKEN.format(READERS["an exception"][0]))
    with pytest.raises(PluginError) as caught:
        statedict.open(note(tmp_path))
    assert "plugin_broken.py" in "".join(traceback.format_exception(caught.value))


def test_an_error_that_a_plugin_raises_on_purpose_is_not_changed(tmp_path, install):
    """A FormatError of a plugin is about the file, which is filled in."""
    install("notes", NOTES)
    path = note(tmp_path, b"NOTE")
    with pytest.raises(FormatError) as caught:
        statedict.open(path)
    assert str(caught.value) == f"{path}: it has no tensor"


def test_a_plugin_can_leave_a_file_to_others(tmp_path, install):
    """A reader that raises UnknownFormatError leaves the file to the next plugin, and is told of if there is none."""
    code = (
        "from statedict.errors import UnknownFormatError\ndef read(file, limits): raise UnknownFormatError('not mine')"
    )
    install("broken", BROKEN.format(code))
    path = note(tmp_path)
    with pytest.raises(UnknownFormatError, match=r"plugins either: broken \(statedict-broken 1.2\): not mine"):
        statedict.open(path)
    install("notes", NOTES)
    statedict.open(path).close()


def test_a_folder_and_what_its_plugin_opened_are_closed(tmp_path, install):
    """Closing the checkpoint of a folder calls the plugin's own `close`, and closes the folder's files."""
    install(
        "boxes",
        "from statedict.formats import Checkpoint, FileTensors, Format\n"
        "closed = []\n"
        "def read(folder, limits):\n"
        "    leaf = FileTensors(folder.file('a.box')).tensor('w', 'int8', (2,), 0)\n"
        "    return Checkpoint(folder.path, 'boxes', {'w': leaf}, size=2, close=lambda: closed.append(1))\n"
        "FORMAT = Format('boxes', read, holds=lambda folder: 'a.box' in folder.files)\n",
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.box").write_bytes(b"ab")
    with statedict.open(folder) as checkpoint:
        leaf = checkpoint.object["w"]
        assert read_array(leaf).tolist() == [97, 98]
    assert sys.modules["plugin_boxes"].closed == [1]
    with pytest.raises(ValueError, match="has been closed"):
        read_array(leaf)


def test_checks_of_a_plugin_that_fail_are_told_as_its_own(tmp_path, install):
    """`verify` names the plugin whose checks raise an exception."""
    code = (
        "def read(file, limits):\n    return Checkpoint(file.name, 'broken', {}, size=file.size, checks=lambda: 1 / 0)"
    )
    install("broken", BROKEN.format(code))
    with statedict.open(note(tmp_path)) as checkpoint, pytest.raises(PluginError, match="failed to verify this file"):
        checkpoint.verify()


def test_the_file_is_closed_with_the_checkpoint(tmp_path, install):
    """The reader of a plugin need not close the file: closing the checkpoint does."""
    install("notes", NOTES)
    with statedict.open(note(tmp_path)) as checkpoint:
        leaf = checkpoint.object["weight"]
    with pytest.raises((OSError, ValueError)):
        leaf.storage.source.file.read(0, 4)


WRITERS = {
    "an exception": ("def write(obj, metadata): return {}['x']", "failed: KeyError: 'x'"),
    "text": ("def write(obj, metadata): return ['x']", "returned a str as a part of the file"),
}


@pytest.mark.parametrize("failure", WRITERS)
def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path, install, failure):
    """A plugin that fails to write is named in a SaveError, and the old file stays."""
    code, text = WRITERS[failure]
    install(
        "broken", f"from statedict.formats import Format\n{code}\nFORMAT = Format('b', suffixes=('.b',), write=write)"
    )
    (tmp_path / "a.b").write_bytes(b"old")
    with pytest.raises(SaveError, match=rf"the plugin broken \(statedict-broken 1\.2\) {text}"):
        statedict.save({}, tmp_path / "a.b")
    assert (tmp_path / "a.b").read_bytes() == b"old"


def test_the_plugins_tried_are_told_when_no_format_has_the_suffix(tmp_path, install):
    """An unknown suffix or name of a format is refused with the plugins that do not have it."""
    install("notes", NOTES)
    with pytest.raises(SaveError, match=r"the plugins do not have it either: notes \(statedict-notes 1.2\)"):
        statedict.save({}, tmp_path / "a.x")
    with pytest.raises(SaveError, match=r"not 'x' \(the plugins do not have it either: notes"):
        statedict.save({}, io.BytesIO(), format="x")
