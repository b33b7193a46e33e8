"""What opening a file costs, and the table that tells formats by their bytes."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import formats
from statedict.state import Leaf, StateDict, leaf_of, library, materialize, read_array

FORMATS = ["torch", "safetensors", "npz"]


# What reading a format needs; of the files that read or write the others nothing is imported.
NEEDED = {
    "torch": {"_pickle.reading._opcodes", "zip._archive"},
    "legacy": {"_pickle.reading._opcodes"},
    "safetensors": {"safetensors._read"},
    "npz": {"zip._archive"},
}


@pytest.mark.parametrize("format", NEEDED)
def test_a_format_brings_in_its_own_reader(tmp_path, format):
    """Opening a file imports the reader of its format only: not other readers, writers, or the code for
    unknown files."""
    path = tmp_path / "small"
    if format == "legacy":
        torch = pytest.importorskip("torch")
        torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    else:
        formats.write(StateDict({"weight": np.ones(2)}), path, format=format)
    code = "import sys; from statedict import formats; formats.open(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    loaded = {name.removeprefix("statedict.formats.") for name in done.stdout.split()}
    readers = {
        "_pickle.reading._opcodes",
        "zip._archive",
        "safetensors._read",
        "torch_files._tar",
        "many_files._shards",
        "many_files._distributed",
    }
    assert readers & loaded == NEEDED[format]
    writers = {"_pickle.writing._write", "zip._write", "torch_files._write"}
    assert not (writers | {"_foreign_formats", "torch_files._truncated", "secrets"}) & loaded


@pytest.mark.parametrize("format", FORMATS)
def test_a_small_file_is_listed_without_numpy(tmp_path, format):
    """Opening a file, listing and choosing its state imports neither numpy nor torch, which would take longer."""
    path = tmp_path / "small"
    formats.write(StateDict({f"n{i}.weight": np.ones((2, 3)) for i in range(50)}), path, format=format)
    code = """
import sys
from statedict import formats
with formats.open(sys.argv[1]) as checkpoint:
    state = checkpoint.state_dict()
    print(len(state), [state.spec(name).shape for name in state][-1], checkpoint.verify())
print(*sorted({"numpy", "torch", "ml_dtypes"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("50 (2, 3) []\n\n", "")


@pytest.mark.parametrize("format", FORMATS)
def test_the_suffix_tells_what_is_written(tmp_path, format):
    """The suffix of a path says which format is written, in capitals, too."""
    path = tmp_path / f"model.{'PT' if format == 'torch' else format.upper()}"
    formats.write(StateDict({"w": np.ones(3)}), path)
    with formats.open(path) as checkpoint:
        assert checkpoint.format == format


leaves = st.builds(lambda n, kind: np.arange(n, dtype=kind), st.integers(0, 5), st.sampled_from(["<f4", "<i8", "|u1"]))
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=80)
@given(tree=trees, state=st.dictionaries(st.text(max_size=5), leaves, max_size=4))
def test_load_of_save_is_the_tree(tree, state):
    """Whatever tree is written in the torch format, the same tree is read, a state's arrays as leaves."""
    out = io.BytesIO()
    formats.write({"tree": tree, "state": StateDict(state)}, out)
    out.seek(0)
    found = formats.open(out).object
    assert same(found["tree"], tree)
    assert list(found["state"]) == list(state)
    assert all(isinstance(leaf, Leaf) for leaf in found["state"].values())
    assert all(same(read_array(leaf), state[name]) for name, leaf in found["state"].items())


def same(a, b):
    if isinstance(a, Leaf):
        a = read_array(a)
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and bool((a == b).all())
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_mapped_load_costs_no_copy(tmp_path):
    """Mapped arrays lie in the file's memory; eager ones in memory of their own, verified."""
    path = tmp_path / "m.pt"
    formats.write(StateDict({"a": np.ones(1 << 20), "b": np.zeros(3)}), path)
    with formats.open(path) as checkpoint:
        leaves = list(checkpoint.object.values())
        mapped = materialize(leaves, library("numpy"), mapped=True)
        eager = materialize(leaves, library("numpy"))
    assert [array.flags.writeable for array in (*mapped, *eager)] == [True] * 4
    mapped[0][:] = 7
    with formats.open(path) as checkpoint:
        assert read_array(checkpoint.object["a"])[0] == 1
    assert eager[0][0] == 1


def test_tensors_of_a_tree_have_paths():
    """Every tensor is found by its path, shared and cyclic parts once, compounds whole or in parts."""
    shared = [np.ones(1)]
    leaf = leaf_of(np.zeros(2))
    tree = {"model": {"w": leaf}, "list": [1, (leaf,)], "shared": shared, "again": shared}
    tree["self"] = tree
    assert [(path, found is leaf) for path, found in formats.tensors(tree)] == [("model/w", True), ("list/1/0", True)]
    assert [path for path, _ in formats.leaves(tree)] == ["model/w", "list/1/0"]


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_what_was_saved_in_shards_is_opened_by_its_index(tmp_path, suffix):
    """If a state was saved in shards, the error for the path that was given to `save` names the index."""
    path = tmp_path / f"model.{suffix}"
    formats.write({"a": np.ones(2), "b": np.ones(2)}, path, max_shard_size=1)
    with pytest.raises(FileNotFoundError, match=r"it was saved in shards: open .*model\.\w+\.index\.json"):
        formats.open(path)
