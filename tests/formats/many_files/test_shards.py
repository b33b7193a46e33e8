"""Checkpoints in several files: Hugging Face's index and shards; safetensors and torch are the oracles."""

from __future__ import annotations

import json
import os
import shutil
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.forked import child
from tests.hostile.build import shards as build
from tests.hostile.build.tensors import entry, safetensors
from tests.hostile.build.zips import FOUR

import statedict
from statedict import formats
from statedict.errors import FileChangedError, FormatError, LimitError, SaveError, TruncatedError, UnknownFormatError
from statedict.formats import byte_count
from statedict.formats.many_files._shards_write import split
from statedict.state import StateDict, library, materialize, read_array

STATE = {
    "embed.weight": np.arange(40, dtype="<f4").reshape(10, 4),
    "layer.0.weight": np.arange(16, dtype="<f2").reshape(4, 4),
    "layer.0.bias": np.arange(4, dtype="<f8"),
    "step": np.array(3),
}
STATE["head.weight"] = STATE["embed.weight"]


def arrays(checkpoint):
    names, leaves = zip(*checkpoint.object.items())
    return dict(zip(names, materialize(leaves, library("numpy"))))


def same(a, b):
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


# written and read by us


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("largest", [1, 100, 200, 10**6])
def test_what_is_written_in_shards_is_read_as_one_state(tmp_path, name, largest):
    """Names, order, values, ties and metadata come back through the index, and through the directory."""
    formats.write(STATE, tmp_path / name, max_shard_size=largest, metadata={"note": "x"})
    index = tmp_path / f"{name}.index.json"
    assert index.exists() == (largest < 10**6)
    for path in (tmp_path, index) if index.exists() else (tmp_path, tmp_path / name):
        with formats.open(path) as checkpoint:
            assert same({n: arrays(checkpoint)[n] for n in STATE}, STATE)
            assert sorted(checkpoint.object) == sorted(STATE)
            assert checkpoint.state_dict().tied == [("embed.weight", "head.weight")]
            assert checkpoint.verify() == []


def test_the_index_has_the_names_and_sizes_of_hugging_face(tmp_path):
    """Shards count from 1 with five digits; the index says the total in bytes and each tensor's shard, tied ones once."""
    formats.write(STATE, tmp_path / "model.safetensors", max_shard_size=100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index["weight_map"] == {
        "embed.weight": first,
        "layer.0.weight": second,
        "layer.0.bias": second,
        "step": second,
    }
    assert index["metadata"]["total_size"] == 160 + 32 + 32 + 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [first, second, "model.safetensors.index.json"]


def test_shards_are_read_by_safetensors_and_torch(tmp_path):
    """Other readers open each shard and find what the index says."""
    torch, st_numpy = pytest.importorskip("torch"), pytest.importorskip("safetensors.numpy")
    formats.write(STATE, tmp_path / "model.safetensors", max_shard_size=100)
    formats.write(STATE, tmp_path / "pytorch_model.bin", max_shard_size=100)
    for index, load in [
        ("model.safetensors", st_numpy.load_file),
        ("pytorch_model.bin", lambda path: {k: v.numpy() for k, v in torch.load(path).items()}),
    ]:
        places = json.loads((tmp_path / f"{index}.index.json").read_text())["weight_map"]
        whole = {name: load(tmp_path / shard)[name] for name, shard in places.items()}
        once = {name: value for name, value in STATE.items() if name in whole}
        assert STATE.keys() - once.keys() == ({"head.weight"} if index == "model.safetensors" else set())
        assert same(whole, once)


def test_metadata_of_modules_stays_with_the_state(tmp_path):
    """`_metadata` is kept in every format."""
    state = StateDict(STATE, OrderedDict({"": {"version": 1}, "layer.0": {"version": 2}}))
    for name in ("model.safetensors", "model.bin"):
        formats.write(state, tmp_path / name, max_shard_size=100)
        with formats.open(tmp_path / f"{name}.index.json") as checkpoint:
            assert checkpoint.state_dict()._metadata == state._metadata


def test_an_earlier_save_leaves_nothing_behind(tmp_path):
    """Saving again with more, fewer or no shards leaves the new files only, and files of others alone."""
    path = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "other-00001-of-00002.safetensors").write_text("other")
    for largest, count in [(1, 4), (100, 2), (None, 1), (100, 2), (10**6, 1), (1, 4)]:
        formats.write(STATE, path, max_shard_size=largest)
        weights = {f.name for f in tmp_path.iterdir()} - {"config.json", "other-00001-of-00002.safetensors"}
        assert len(weights) == (count + 1 if count > 1 else 1)
        with formats.open(path if count == 1 else f"{path}.index.json") as checkpoint:
            assert sorted(checkpoint.object) == sorted(STATE)


def test_shards_are_written_to_the_url_of_a_file(tmp_path):
    """A `file://` URL means the local path, with shards as without."""
    formats.write(STATE, f"file://{tmp_path}/model.safetensors", max_shard_size=100)
    with formats.open(tmp_path) as checkpoint:
        assert sorted(checkpoint.object) == sorted(STATE)


def test_a_state_can_be_saved_over_the_shards_that_it_is_read_from(tmp_path):
    """Lazy tensors are read before the files that they lie in are replaced."""
    path = tmp_path / "model.safetensors"
    formats.write(STATE, path, max_shard_size=100)
    with formats.open(f"{path}.index.json") as checkpoint:
        formats.write(checkpoint.state_dict(), path, max_shard_size=40)
    with formats.open(f"{path}.index.json") as checkpoint:
        assert same({n: arrays(checkpoint)[n] for n in STATE}, STATE)


def test_what_cannot_be_sharded_is_refused(tmp_path):
    """Nested states, and file objects, raise before any file is touched."""
    with pytest.raises(SaveError, match="'model' contains nested tensors"):
        formats.write({"model": STATE}, tmp_path / "a.pt", max_shard_size=1)
    with pytest.raises(SaveError, match="only a mapping of names"):
        formats.write([1], tmp_path / "a.pt", max_shard_size=1)
    with pytest.raises(SaveError, match="pass a path"), open(tmp_path / "x", "wb") as file:
        formats.write(STATE, file, max_shard_size=1)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_shards_hold_arrays_of_text(tmp_path):
    """An array that is not a tensor can be saved in shards of the torch format."""
    formats.write({**STATE, "names": np.array(["a", "b"])}, tmp_path / "a.pt", max_shard_size=1)
    with formats.open(tmp_path / "a.pt.index.json") as checkpoint:
        assert checkpoint.state_dict()["names"].tolist() == ["a", "b"]


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 100))
def test_no_shard_is_too_large_unless_one_tensor_is(sizes, largest):
    """Shards hold every name once, in order, and at most the bytes allowed unless it is a single tensor."""
    state = {f"t{n}": np.zeros(size, np.uint8) for n, size in enumerate(sizes)}
    found = split(state, largest)
    assert [name for names in found for name in names] == list(state)
    assert all(len(names) == 1 or sum(state[n].nbytes for n in names) <= largest for names in found if names)


@pytest.mark.parametrize(
    ("text", "count"),
    [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("2KiB", 2048), ("1GiB", 2**30), ("10", 10), (7, 7), ("3b", 3)],
)
def test_sizes_may_be_text(text, count):
    """Units are powers of 1000, and of 1024 with an i."""
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "5 XB", None, True, 0, "0MB", 1.5])
def test_other_sizes_are_refused(text):
    """An invalid size, or one that is too small for anything, is a ValueError."""
    with pytest.raises(ValueError, match=r"a size must be"):
        byte_count(text)


# files that somebody else wrote, or broke


@pytest.fixture
def folder(tmp_path):
    """A folder with an index and two shards, made by hand."""
    return build.write_all(tmp_path / "model", build.indexed())


INDEX = "model.safetensors.index.json"


def reindexed(folder, **weights):
    """The index with some tensors put elsewhere; gives its path."""
    path = folder / INDEX
    index = json.loads(path.read_text())
    index["weight_map"] |= weights
    path.write_text(json.dumps(index))
    return path


def test_the_order_is_the_index_s(folder):
    """Names come in the order of the index, whatever the order in the shards."""
    reindexed(folder)
    with formats.open(folder) as checkpoint:
        assert list(checkpoint.object) == ["a", "b", "c"]
        assert checkpoint.size == sum(path.stat().st_size for path in folder.iterdir())
        assert checkpoint.metadata["shards"] == "2"
        assert checkpoint.metadata["total_size"] == "48"


def test_a_missing_shard_is_an_error_where_it_is_needed(folder):
    """The other shards can be read; reading a tensor of a missing shard is an error that names the shard."""
    (folder / build.SECOND).unlink()
    with formats.open(folder) as checkpoint:
        state = checkpoint.state_dict()
        assert list(state) == ["a", "b", "c"]
        assert state.select("a", "b").numpy()["b"].shape == (4,)
        assert f"{build.SECOND} is missing; it contains 1 of the 3 tensors" in checkpoint.notes
        assert (checkpoint.verify(values=True)[0].where, checkpoint.verify()[0].level) == (build.SECOND, "error")
        wanted = f"{build.SECOND}: c: the tensor is in this file, which is missing"
        for needs_it in (lambda: state.numpy()["c"], lambda: state.spec("c"), state.copy().fingerprint):
            with pytest.raises(FormatError, match=wanted):
                needs_it()
        assert "c" in repr(state)
        assert "2 tensors" in state._repr_html_()
        assert state.tied == []


@pytest.mark.parametrize(
    ("damage", "kind", "level"),
    [
        (lambda data: data[:-1], TruncatedError, "error"),
        (lambda data: b"", TruncatedError, "error"),
        (lambda data: data[:8] + b"!" + data[9:], UnknownFormatError, "unread"),
        (lambda data: data[:9] + b"!" + data[10:], FormatError, "error"),
    ],
)
@pytest.mark.parametrize("index", [INDEX, None])
def test_a_damaged_shard_is_an_error_where_it_is_needed(folder, tmp_path, damage, kind, level, index):
    """The other shards can be read; what needs the damaged one raises its error. `verify` and a note have it, too."""
    if index is None:
        (folder / INDEX).unlink()
    shard = folder / build.SECOND
    shard.write_bytes(damage(shard.read_bytes()))
    with formats.open(folder) as checkpoint:
        state = checkpoint.state_dict()
        lost = "c" if index else build.SECOND
        assert sorted(state) == sorted(["a", "b", lost])
        assert state.select("a", "b").numpy()["b"].shape == (4,)
        assert any(note.startswith(f"{build.SECOND} cannot be read (") for note in checkpoint.notes)
        assert (checkpoint.verify()[0].where, checkpoint.verify()[0].level) == (build.SECOND, level)
        for needs_it in (lambda: state.numpy()[lost], lambda: formats.write(state, tmp_path / "all.safetensors")):
            with pytest.raises(kind, match=build.SECOND):
                needs_it()
    with pytest.raises(kind, match=build.SECOND):
        statedict.load(folder)


def test_shards_that_are_all_damaged_are_refused(folder):
    """If no shard can be read, the error of the first one is raised; so it is for objects that are not states."""
    for shard in (build.FIRST, build.SECOND):
        (folder / shard).write_bytes(b"")
    with pytest.raises(TruncatedError, match=build.FIRST):
        formats.open(folder)
    for shard in (build.FIRST, build.SECOND):
        formats.write([1, 2], folder / shard, format="torch")
    with pytest.raises(FormatError, match=rf"{build.FIRST}: a shard must contain a mapping"):
        formats.open(folder)


def test_a_source_for_a_missing_shard_has_no_bytes(folder):
    """Reading the storage of a missing tensor gives the same error as reading the tensor."""
    (folder / build.SECOND).unlink()
    with formats.open(folder) as checkpoint:
        leaf = checkpoint.object["c"]
        assert repr(leaf) == "<absent: 'c'>"
        source = leaf.storage.source
        for ask in (lambda: source.read_into([]), lambda: source.verify([]), lambda: source.view(leaf.storage)):
            with pytest.raises(FormatError, match="c: the tensor is in this file, which is missing"):
                ask()


def test_an_index_without_any_shard_is_refused(folder):
    """If all shards are missing, the index cannot be opened."""
    for shard in (build.FIRST, build.SECOND):
        (folder / shard).unlink()
    with pytest.raises(FormatError, match=r"index\.json: all of its 2 shards are missing"):
        formats.open(folder)


def test_a_load_needs_only_the_shards_of_its_tensors(tmp_path):
    """A module is loaded from the shards that are there; one that needs a missing shard is refused, strict or not."""
    torch, statedict = pytest.importorskip("torch"), pytest.importorskip("statedict")
    path = tmp_path / "m.safetensors"
    formats.write({"a.weight": np.ones((1, 2), "f4"), "b.weight": np.ones((1, 2), "f4")}, path, max_shard_size=1)
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    one = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 1, bias=False)})
    both = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1, bias=False) for name in "ab"})
    assert statedict.load_state_dict(one, f"{path}.index.json", exclude="b").ok
    assert statedict.load_state_dict(one, f"{path}.index.json", strict=False).unexpected == ["b.weight"]
    assert one.a.weight.tolist() == [[1.0, 1.0]]
    before = both.a.weight.tolist()
    for strict in (True, False):
        with pytest.raises(FormatError, match=r"m-00002-of-00002.safetensors: b.weight: the tensor is in this file"):
            statedict.load_state_dict(both, f"{path}.index.json", strict=strict)
    assert both.a.weight.tolist() == before


FEW_FILES = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np, statedict
from statedict.errors import StateDictError
path = Path(sys.argv[1])
state = {f"w{n}": np.full(4, n, "f4") for n in range(60)}
statedict.save(state, path, max_shard_size=1)
index = f"{path}.index.json"
for read in (lambda: statedict.load(index, backend="numpy"), lambda: statedict.open(index).state_dict().numpy()):
    found = read()
    assert all(np.array_equal(found[name], state[name]) for name in state)
assert statedict.open(index).verify() == []
held = []
try:
    while True:
        held.append(open(path.parent / path.name.replace(".", "-00001-of-00060."), "rb"))
except OSError:
    pass
try:
    statedict.open(index)
except OSError as error:
    print(error.errno, isinstance(error, StateDictError), error.filename is not None)
"""


@pytest.mark.parametrize("name", ["m.safetensors", "m.bin"])
def test_few_files_are_open_at_a_time(tmp_path, name):
    """Sixty shards are saved, read and verified by a process that may open 64 files; where it may open none, that is an
    OSError and says nothing against the file."""
    import errno
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path / name)], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.split(), done.stderr) == ([str(errno.EMFILE), "False", "True"], "")


def test_a_shard_that_is_replaced_meanwhile_is_noticed(tmp_path, monkeypatch):
    """A shard that was closed and is opened again must still be the same file."""
    from statedict.files import _folder as _shelf

    monkeypatch.setattr(_shelf, "OPEN", 1)
    formats.write(STATE, tmp_path / "m.safetensors", max_shard_size=100)
    with formats.open(tmp_path / "m.safetensors.index.json") as checkpoint:
        shutil.copy(tmp_path / "m-00001-of-00002.safetensors", tmp_path / "copy")
        (tmp_path / "copy").replace(tmp_path / "m-00001-of-00002.safetensors")
        with pytest.raises(FileChangedError, match=r"m-00001-of-00002\.safetensors.*the file was replaced"):
            arrays(checkpoint)


def test_too_many_open_files_are_let_go_of(tmp_path, monkeypatch):
    """If the process has no file descriptors left, other shards are closed."""
    import errno

    from statedict.files import _folder as _shelf

    class Full:
        count = 0

    real = _shelf.open_file

    def short(path):
        Full.count += 1
        if Full.count == 2:
            raise OSError(errno.EMFILE, "Too many open files", path)
        return real(path)

    monkeypatch.setattr(_shelf, "open_file", short)
    shelf = _shelf.Folder(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert [shelf.file(name).read(0, 1) for name in ("a", "b", "a")] == [b"a", b"b", b"a"]
    assert Full.count == 4
    shelf.close()
    with pytest.raises(ValueError, match="has been closed; open it again"):
        shelf.file("a")


def test_a_missing_tensor_is_named(folder):
    """A tensor that its shard does not contain is an error that names it."""
    with pytest.raises(FormatError, match=f"{build.SECOND}: a: the index places it in this shard"):
        formats.open(reindexed(folder, a=build.SECOND))


def test_a_tensor_beyond_the_index_is_noted(folder):
    """Tensors that are in a shard but not in the index are noted."""
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"]["b"]
    (folder / INDEX).write_text(json.dumps(index))
    with formats.open(folder) as checkpoint:
        assert list(checkpoint.object) == ["a", "c"]
        assert "1 tensors of the shards are not in the index" in checkpoint.notes
        assert len(checkpoint.notes) == 2  # and that there are no checksums, once


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/hostname", "sub/x", "a\\b", "C:x", "..", ".", "", 7, None])
def test_only_files_beside_the_index_can_be_named(folder, name):
    """Names of shards with a path, and invalid names, are refused before anything is opened."""
    with pytest.raises(FormatError, match="not a plain file name"):
        formats.open(reindexed(folder, a=name))


def test_tied_tensors_count_under_each_name():
    """npz writes them all, so a shard is not larger than asked for where it can be helped."""
    state = {"a": np.zeros(60, np.uint8), "b": np.zeros(30, np.uint8)}
    state["c"] = state["a"]
    assert split(state, 125) == [["a", "c"], ["b"]]


def test_a_huge_index_is_refused_unread(folder):
    """An index larger than the limit on JSON is not read."""
    with open(folder / INDEX, "r+b") as file:
        file.truncate(101_000_000)
    with pytest.raises(LimitError, match=r"JSON of 101,000,000 bytes .*json_bytes"):
        formats.open(folder / INDEX)


def test_an_index_among_the_shards_is_not_read(folder):
    """An index that names itself or another index is not followed: it has no tensors."""
    with (
        formats.open(reindexed(folder, a=INDEX)) as checkpoint,
        pytest.raises(FormatError, match="a shard must not be a"),
    ):
        read_array(checkpoint.object["a"])


def test_an_index_needs_its_folder(folder):
    """An index in memory is refused, because its shards cannot be found."""
    import io

    with pytest.raises(FormatError, match="open the index by its path"):
        formats.open(io.BytesIO((folder / INDEX).read_bytes()))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"weight_map": []}', "no valid weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' appears twice in a JSON object"),
        ('{"weight_map": {"a": NaN}}', "NaN is not valid JSON"),
        ('{"weight_map": {"a": ' + "9" * 60 + "}}", "60 digits"),
        ('{"weight_map": ' + "[" * 90 + "]" * 90 + "}", "nested 91 deep"),
        ('{"weight_map": {"a": "x"}', "invalid JSON"),
        ('{"a": 1}', "unrecognised file format"),
        ('{"error": "Entry not found"}', "an error message in JSON"),
    ],
)
def test_a_broken_index_is_refused(folder, text, problem):
    """An invalid index is refused, and so is one that readers could read differently."""
    (folder / INDEX).write_text(text)
    with pytest.raises(FormatError, match=problem):
        formats.open(folder / INDEX)


def test_a_damaged_shard_names_its_tensor(folder):
    """Verifying goes through all shards."""
    formats.write(STATE, folder / "own.safetensors", max_shard_size=100)
    shard = folder / "own-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    with formats.open(folder / "own.safetensors.index.json") as checkpoint:
        assert [finding.level for finding in checkpoint.verify()] == ["error"]


# directories


def test_numbered_shards_need_no_index(folder):
    """Numbered shards can be opened without an index; a name in two of them is refused."""
    (folder / INDEX).unlink()
    with formats.open(folder) as checkpoint:
        assert sorted(checkpoint.object) == ["a", "b", "c"]
        assert "the shards have no index" in checkpoint.notes
    (folder / build.SECOND).write_bytes(safetensors({"a": entry()}, FOUR))
    with pytest.raises(FormatError, match="a: another shard also has a tensor of this name"):
        formats.open(folder)


@pytest.mark.parametrize(("old", "new"), [("00001-of-00002", "00003-of-00002"), ("of-00002", "of-99999999")])
def test_numbers_of_shards_are_checked(folder, old, new):
    """Shards whose numbers exceed their count are refused, and so are those of which too many are missing."""
    for path in folder.glob("*.safetensors"):
        path.rename(folder / path.name.replace(old, new))
    (folder / INDEX).unlink()
    with pytest.raises(FormatError, match=r"2 of its (2|99,999,999) shards are there"):
        formats.open(folder)


def test_a_missing_numbered_shard_is_named(folder):
    """Of numbered shards without an index, the others can be read; a note, `verify` and `load` name the missing one."""
    for name in (INDEX, build.SECOND):
        (folder / name).unlink()
    with formats.open(folder) as checkpoint:
        assert sorted(checkpoint.object) == ["a", "b", build.SECOND]
        assert f"{build.SECOND} is missing" in checkpoint.notes
        assert (checkpoint.verify()[0].where, checkpoint.verify()[0].level) == (build.SECOND, "error")
    with pytest.raises(FormatError, match=f"{build.SECOND}: the tensor is in this file, which is missing"):
        statedict.load(folder)


def test_shards_of_two_checkpoints_are_not_mixed(folder):
    """Without an index, shards of two sets are refused."""
    (folder / INDEX).unlink()
    (folder / "other-00001-of-00001.safetensors").write_bytes(safetensors())
    with pytest.raises(FormatError, match="several checkpoints"):
        formats.open(folder)


def test_a_directory_with_one_file_is_that_file(folder, tmp_path):
    """The only file of a directory is opened; safetensors takes precedence, and two files of a kind are ambiguous."""
    inside = tmp_path / "single"
    inside.mkdir()
    with pytest.raises(UnknownFormatError, match=r"does not contain a checkpoint \(pass the path of a file in it\)"):
        formats.open(inside)
    with pytest.raises(UnknownFormatError, match="the folders in it are model, single: pass the path of one"):
        formats.open(tmp_path)
    formats.write({"x": np.ones(2)}, inside / "pytorch_model.bin")
    with formats.open(inside) as checkpoint:
        assert checkpoint.format == "torch"
    shutil.copy(folder / build.SECOND, inside / "model.safetensors")
    with formats.open(inside) as checkpoint:
        assert checkpoint.format == "safetensors"
    (inside / "model.safetensors").rename(inside / "first.safetensors")
    (inside / "pytorch_model.bin").rename(inside / "weights.bin")
    shutil.copy(folder / build.SECOND, inside / "second.safetensors")
    with pytest.raises(UnknownFormatError, match=r"several checkpoints: first.safetensors, second.safetensors"):
        formats.open(inside)


def contents(folder, *names):
    """A folder with a small state in each of these files, which is that file's name."""
    folder.mkdir()
    for name in names:
        formats.write({name: np.ones(1)}, folder / name)
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("name", ["model", "pytorch_model", "adapter_model", "diffusion_pytorch_model"])
def test_the_known_names_of_weights_win(tmp_path, name, suffix):
    """The usual names for weights take precedence over other files, which are noted (a trainer's arguments are not)."""
    weights = f"{name}.{suffix}"
    inside = contents(tmp_path / "f", "training_args.bin", "extra.pt", weights, "another.safetensors")
    with formats.open(inside) as checkpoint:
        assert list(checkpoint.object) == [weights]
        (note,) = [note for note in checkpoint.notes if "this directory" in note]
        assert note == (f"{weights} was read; other files of this directory were not: another.safetensors, extra.pt")


def test_safetensors_come_first_among_the_known_names(tmp_path):
    """safetensors takes precedence, as in transformers; two files of one kind are ambiguous."""
    with formats.open(contents(tmp_path / "one", "pytorch_model.bin", "model.safetensors")) as checkpoint:
        assert list(checkpoint.object) == ["model.safetensors"]
    with pytest.raises(UnknownFormatError, match=r"several checkpoints: adapter_model.safetensors, model.safetensors"):
        formats.open(contents(tmp_path / "two", "adapter_model.safetensors", "model.safetensors"))


@pytest.mark.parametrize("variant", ["x.fp16.safetensors", "x.non_ema.safetensors", "x.v1.safetensors"])
def test_the_plain_file_wins_over_its_variants(tmp_path, variant):
    """The plain file takes precedence over its variants, as in diffusers and transformers."""
    with formats.open(contents(tmp_path / "f", "x.safetensors", variant)) as checkpoint:
        assert list(checkpoint.object) == ["x.safetensors"]
    with pytest.raises(UnknownFormatError, match=r"several checkpoints: x.fp16.safetensors, x.fp32.safetensors"):
        formats.open(contents(tmp_path / "g", "x.fp16.safetensors", "x.fp32.safetensors"))
    with formats.open(contents(tmp_path / "h", variant)) as checkpoint:
        assert list(checkpoint.object) == [variant]


def test_a_long_list_is_cut(tmp_path):
    """A folder with many checkpoints names the first ones."""
    inside = contents(tmp_path / "f", *(f"{n}.pt" for n in range(8)))
    with pytest.raises(UnknownFormatError, match=r"several checkpoints: 0.pt, 1.pt, 2.pt, 3.pt, 4.pt and 3 more"):
        formats.open(inside)


def test_left_over_shards_do_not_hide_the_whole_file(tmp_path):
    """Shards without an index beside the whole file are left over from a killed save: the whole file is read."""
    inside = contents(tmp_path / "f", "net.safetensors", "net-00001-of-00002.safetensors")
    with formats.open(inside) as checkpoint:
        assert list(checkpoint.object) == ["net.safetensors"]


@pytest.mark.parametrize(
    ("whole", "shards", "read"),
    [
        ("model.safetensors", "model.safetensors", "whole"),
        ("model.safetensors", "pytorch_model.bin", "whole"),
        ("pytorch_model.bin", "pytorch_model.bin", "whole"),
        ("pytorch_model.bin", "model.safetensors", "shards"),
        ("net.safetensors", "net.safetensors", "whole"),
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors", "shards"),
    ],
)
def test_a_whole_file_beside_shards(tmp_path, whole, shards, read):
    """Of a file and shards in one folder, the one that transformers loads is read (for diffusers' names, that which
    diffusers loads), and the other is noted."""
    inside, other = tmp_path / "f", tmp_path / "other"
    other.mkdir()
    formats.write({f"{n}": np.ones(9) for n in range(3)}, other / shards, max_shard_size=80)
    contents(inside, whole)
    for file in other.iterdir():
        shutil.copy(file, inside / file.name)
    with formats.open(inside) as checkpoint:
        assert list(checkpoint.object) == ([whole] if read == "whole" else ["0", "1", "2"])
        first, second = (whole, f"{shards}.index.json") if read == "whole" else (f"{shards}.index.json", whole)
        assert checkpoint.notes == [f"{first} was read; other files of this directory were not: {second}"]


# a save that does not come to its end


def read_back(folder, name):
    """What a reader finds of a save to `name`: by the directory, which is what the index or the file has."""
    path, index = folder / name, folder / f"{name}.index.json"
    states = []
    for place in (folder, *filter(os.path.exists, (path, index))):
        with formats.open(place) as checkpoint:
            assert [finding for finding in checkpoint.verify() if finding.level == "error"] == []
            states.append({name: float(array.flat[0]) for name, array in arrays(checkpoint).items()})
    assert states[0] in states[1:]
    return states[0]


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        pytest.param("model.safetensors", 300, id="more"),
        pytest.param("model.safetensors", 900, id="fewer"),
        pytest.param("model.safetensors", 10_000, id="one file"),
        pytest.param("model.bin", 600, id="as many"),
    ],
)
def test_a_killed_save_leaves_no_mixture(tmp_path, monkeypatch, name, largest):
    """A save of as many, more or fewer shards than are there, or of one file, that is killed at any system call leaves the
    old tensors or the new ones; the next save leaves nothing of it behind."""
    from statedict.files import System

    def state(value):
        return {f"w{n}": np.full(64, value, "f4") for n in range(6)}

    count = [0, 0]

    def counted(real):
        def call(self, *arguments, **options):
            count[0] += 1
            if count[0] == count[1]:
                os._exit(9)
            return real(self, *arguments, **options)

        return call

    for operation, real in list(vars(System).items()):
        if not operation.startswith("_"):
            monkeypatch.setattr(System, operation, counted(real))

    at, killed = 0, True
    while killed:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "other.json").write_text("{}")
        count[:] = 0, 0
        formats.write(state(1.0), folder / name, max_shard_size=600, durable=False)

        def save(folder=folder, at=at):
            count[:] = 0, at
            formats.write(state(2.0), folder / name, max_shard_size=largest, durable=False)

        code = os.waitstatus_to_exitcode(os.waitpid(child(save), 0)[1])
        assert code in (0, 9)
        killed = code == 9
        assert set(read_back(folder, name).values()) in ({1.0}, {2.0})
        assert killed or set(read_back(folder, name).values()) == {2.0}
        formats.write(state(3.0), folder / name, max_shard_size=600, durable=False)
        assert set(read_back(folder, name).values()) == {3.0}
        assert len(os.listdir(folder)) == 5
    assert at > 20
