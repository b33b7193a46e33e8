"""Directories of torch.distributed.checkpoint; torch is the oracle."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests import forked
from tests.hostile.build import pickles as p
from tests.hostile.build import shards
from tests.hostile.build.torch_zips import as_torch_writes

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FormatError, LimitError, UnsafeFileError
from statedict.formats.many_files import _metadata
from statedict.state import Leaf, Read, library, materialize

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A training state that one process saved, and the directory."""
    import torch.distributed.checkpoint as dcp

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": {"rates": [1, 2.5, {"table": torch.arange(3)}], "name": "x", "none": None},
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7.0),
        "half": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "turned": torch.randn(3, 5).T,
        "expanded": torch.ones(1).expand(4, 4),
        "spectrum": torch.randn(3, dtype=torch.complex64),
    }
    folder = tmp_path_factory.mktemp("distributed") / "step-1"
    with warnings.catch_warnings(action="ignore"):  # of a process group that is not there
        dcp.save(state, checkpoint_id=str(folder))
    return state, folder


def as_torch(tree):
    """The tree of a checkpoint with torch tensors in place of its leaves."""
    if isinstance(tree, Leaf):
        return torch_array(tree)
    if isinstance(tree, dict):
        return {key: as_torch(value) for key, value in tree.items()}
    return [as_torch(value) for value in tree] if isinstance(tree, list) else tree


def torch_array(leaf):
    [array] = materialize([leaf], library("numpy"))
    dtype = getattr(torch, leaf.spec.dtype.name)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).view(dtype).reshape(leaf.spec.shape)


def assert_same(a, b):
    """Trees are equal: torch tensors bit for bit, containers by their items, keys by what they print as."""
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    elif isinstance(a, dict):
        assert list(map(str, a)) == list(map(str, b))
        for key, other in zip(a, b):
            assert_same(a[key], b[other])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    else:
        assert a == b


def test_a_saved_state_is_read_as_the_tree_that_it_was(saved):
    """Names, order, nesting, lists, values and tensors of every kind come back (dict keys as text, as PyTorch's do)."""
    state, folder = saved
    with formats.open(folder) as checkpoint:
        found = as_torch(checkpoint.object)
        order = sorted(found, key=list(state).index)
        assert_same(state, {key: found[key] for key in order})
        assert checkpoint.format == "distributed"
        assert checkpoint.size == sum(file.stat().st_size for file in folder.iterdir())
        assert checkpoint.dangerous == []
        assert checkpoint.verify() == []


def test_the_classes_of_the_metadata_are_known(saved):
    """The classes that describe every such checkpoint are not listed as unknown."""
    with formats.open(saved[1]) as checkpoint:
        others = {named.name for named in checkpoint.globals if named.risk != "safe"}
        # CPython 3.11.0 to 3.11.3 pickle the member of an Enum as getattr(class, name).
        assert others <= {"getattr"}


def test_the_metadata_file_opens_its_directory(saved):
    """Giving `.metadata` itself is the same as giving the directory."""
    with formats.open(saved[1] / ".metadata") as checkpoint:
        assert checkpoint.format == "distributed"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A directory that two ranks wrote, and what the state was."""
    folder = tmp_path_factory.mktemp("ranks")
    job = Path(__file__).with_name("distributed_job.py")
    forked.run(job, folder / "saved", action="ignore").check_returncode()
    torch.manual_seed(0)
    rows, columns, odd, whole = torch.randn(6, 4), torch.randn(3, 5, 4), torch.arange(7), torch.randn(3)
    model = {"rows": rows, "columns": columns.to(torch.bfloat16), "odd": odd, "whole": whole}
    return {"model": model, "step": 12, "note": ("a", 1.5)}, folder / "saved"


def test_chunks_of_several_ranks_are_put_together(sharded):
    """Tensors that ranks saved in parts, by rows or across them, come back whole."""
    state, folder = sharded
    assert len(list(folder.glob("*.distcp"))) == 2
    with formats.open(folder) as checkpoint:
        found = as_torch(checkpoint.object)
        for key in state:
            assert_same(state[key], {k: found[key][k] for k in state[key]} if key == "model" else found[key])
        assert checkpoint.verify() == []


def test_ranks_that_saved_each_for_itself_are_read_as_one(sharded, tmp_path):
    """If each rank has its own metadata, their chunks are joined; other values are those of the first rank, as a
    note says."""
    state, folder = sharded
    alone = folder.with_name("saved-alone")
    assert sorted(path.name for path in alone.glob("*.metadata")) == ["__0.metadata", "__1.metadata"]
    for given in (alone, alone / "__1.metadata"):
        with formats.open(given) as checkpoint:
            found = as_torch(checkpoint.object)
            assert list(found) == [*state, "rank"]
            assert_same(state["model"], {key: found["model"][key] for key in state["model"]})
            assert (found["step"], found["rank"]) == (12, 0)
            assert [finding.level for finding in checkpoint.verify()] == ["note"]
            assert "those of the first rank" in checkpoint.notes[0]
    shutil.copytree(alone, tmp_path / "one")
    (tmp_path / "one" / "__1.metadata").unlink()
    with pytest.raises(FormatError, match="do not cover the tensor exactly"):
        formats.open(tmp_path / "one")


def test_any_part_of_a_sharded_tensor_can_be_read(sharded):
    """Bytes from the middle of a tensor are those of the whole."""
    state, folder = sharded
    with formats.open(folder) as checkpoint:
        leaf = checkpoint.object["model"]["columns"]
        into = bytearray(40)
        leaf.storage.source.read_into([Read(leaf.storage, 22, memoryview(into))])
    assert bytes(into) == bytes(state["model"]["columns"].view(torch.uint8).reshape(-1).tolist())[22:62]


# directories made by hand, each with one thing wrong


def opened(folder, **changed):
    """The checkpoint of the hand-made directory, some of its files replaced (None: left out)."""
    files = {name: raw for name, raw in {**shards.distributed(), **changed}.items() if raw is not None}
    return formats.open(shards.write_all(folder / "d", files))


def metadata(old, new):
    """The hand-made metadata with one run of bytes replaced by another."""
    raw = shards.distributed()[".metadata"]
    assert raw.count(old)
    return {".metadata": raw.replace(old, new)}


def test_the_hand_made_directory_loads(tmp_path):
    """The hand-made directory has a tensor in two chunks, and a step."""
    checkpoint = opened(tmp_path)
    assert list(checkpoint.roots) == ["model"]
    assert list(checkpoint.state_dict()) == ["w"]
    assert checkpoint.object["step"] == 7
    [array] = materialize([checkpoint.object["model"]["w"]], library("numpy"))
    assert array.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [(None, "is missing"), (shards.distributed()["__1_0.distcp"][:-1], "should have at least")],
    ids=["missing", "short"],
)
def test_what_does_not_need_a_missing_file_loads(tmp_path, raw, problem):
    """A missing or truncated file of one rank is named by a note, by `verify`, and by an error about its tensors; other
    values load."""
    checkpoint = opened(tmp_path, **{"__1_0.distcp": raw})
    assert checkpoint.object["step"] == 7
    [note] = checkpoint.notes
    assert note.startswith(f"__1_0.distcp {problem}")
    assert note.endswith("the metadata places 1 of 3 stored items in it")
    errors = {finding.where: finding.text for finding in checkpoint.verify(values=True) if finding.level == "error"}
    assert problem in errors["__1_0.distcp"]
    assert problem in errors["model/w"]
    with pytest.raises(FormatError, match=rf"__1_0.distcp: model.w: the tensor is in this file, which {problem}"):
        materialize([checkpoint.object["model"]["w"]], library("numpy"))


def test_a_directory_without_its_files_is_refused(tmp_path):
    """If all files are missing, nothing can be read."""
    with pytest.raises(FormatError, match=r"none of the 2 files that the metadata refers to can be opened"):
        opened(tmp_path, **{"__1_0.distcp": None, "__0_0.distcp": None})


def test_a_damaged_value_is_named_and_the_tensors_load(tmp_path):
    """A value other than a tensor that cannot be read is named; the rest loads."""
    raw = shards.distributed()["__0_0.distcp"]
    checkpoint = opened(tmp_path, **{"__0_0.distcp": b"PK\3\5" + raw[4:]})
    [array] = materialize([checkpoint.object["model"]["w"]], library("numpy"))
    assert array.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    [error] = [finding for finding in checkpoint.verify() if finding.level == "error"]
    assert error.where == "step"
    assert "__0_0.distcp" in error.text
    assert "is damaged" in error.text


def test_a_damaged_chunk_names_its_tensor(tmp_path):
    """A changed byte in a chunk is found before anything is read, and the tensor is named."""
    raw = shards.distributed()["__1_0.distcp"]
    checkpoint = opened(tmp_path, **{"__1_0.distcp": raw.replace(shards.ROW, shards.ROW[::-1])})
    with pytest.raises(ChecksumError, match=r"__1_0.distcp"):
        materialize([checkpoint.object["model"]["w"]], library("numpy"))
    [finding] = checkpoint.verify()
    assert (finding.level, finding.where) == ("error", "model/w")


def test_a_file_elsewhere_is_never_opened(tmp_path):
    """A name with a path in it is refused."""
    longer = p.text("../x_0.distcp")
    with pytest.raises(FormatError, match="not a plain file name"):
        opened(tmp_path, **metadata(p.text("__1_0.distcp"), longer))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            shards.size(1, 0) + p.text("sizes"),
            shards.size(1, 1) + p.text("sizes"),
            "no storage location for its chunk at",
        ),
        (shards.size(2, 4), shards.size(3, 4), "do not cover the tensor exactly"),
        (p.name("torch", "float32"), p.integer(5), "its dtype is missing"),
        (p.name("torch", "float32"), p.name("torch", "float64"), "this chunk should be a tensor of float64"),
        (p.text("relative_path"), p.text("nowhere"), "not a plain file name"),
        (b"TensorStorageMetadata", b"TensorStorageMetadat0", "unknown type TensorStorageMetadat0"),
        (p.tuple_(p.text("step")), p.tuple_(p.text("model")), "is also the path of another value|leads into another"),
        (p.tuple_(p.text("step")), p.tuple_(p.text("model"), p.text("w"), p.text("x")), "leads into another value"),
        (p.tuple_(p.text("step")), p.integer(1), "no path in the tree for it"),
        (p.text("storage_data"), p.text("storage_dat0"), "its storage_data is missing"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, old, new, problem):
    """Metadata that contradicts itself or the files is refused."""
    with pytest.raises(FormatError, match=problem):
        materialize([opened(tmp_path, **metadata(old, new)).object["model"]["w"]], library("numpy"))


def test_two_items_in_one_place_are_refused(tmp_path):
    """Many names for one place are refused: reading them would cost more than the file has bytes."""
    files = shards.distributed()
    length = len(files["__1_0.distcp"])
    start = len(files["__0_0.distcp"]) - length
    old, new = shards.place("__1_0.distcp", 0, length), shards.place("__0_0.distcp", start, length)
    with pytest.raises(FormatError, match="two items in overlapping bytes"):
        opened(tmp_path, **metadata(old, new))


def test_a_claim_beyond_the_file_is_refused(tmp_path):
    """A tensor larger than its file is refused before memory is allocated."""
    big = (p.integers((1, 4)), p.integers((1, 2**40)))
    raw = shards.distributed()[".metadata"]
    raw = raw.replace(*big).replace(p.integers((2, 4)), p.integers((2, 2**40)))
    with pytest.raises(FormatError, match="is stored in only"):
        opened(tmp_path, **{".metadata": raw})


def test_huge_metadata_is_refused_unread(tmp_path):
    """Metadata larger than the limit on pickles is not read."""
    checkpoint = opened(tmp_path)
    checkpoint.close()
    with open(tmp_path / "d" / ".metadata", "r+b") as file:
        file.truncate(1 << 29)
    with pytest.raises(LimitError, match=r"metadata of 536,870,912 bytes .*pickle_bytes"):
        formats.open(tmp_path / "d")


def test_compressed_chunks_are_named(tmp_path):
    """Chunks that an extension of PyTorch compressed are refused as such."""
    raw = shards.distributed()[".metadata"]
    old = shards.place("__1_0.distcp", 0, len(shards.distributed()["__1_0.distcp"]))
    new = old[:-2] + p.text("transform_descriptors") + p.list_(p.text("stream.zstd")) + b"ub"
    with pytest.raises(FormatError, match="stored through"):
        opened(tmp_path, **{".metadata": raw.replace(old, new)})


def test_the_pickles_of_pieces_are_looked_into(tmp_path):
    """The imports of pieces, which are read later, are listed when the directory is opened."""
    files = shards.distributed()
    piece = files["__1_0.distcp"]
    evil = as_torch_writes(p.pickled(p.shell() + p.POP + p.tensor(size=(1, 4), stride=(4, 1))), {"0": shards.ROW})
    old = shards.place("__1_0.distcp", 0, len(piece))
    metadata = files[".metadata"].replace(old, shards.place("__1_0.distcp", 0, len(evil)))
    checkpoint = opened(tmp_path, **{".metadata": metadata, "__1_0.distcp": evil})
    assert checkpoint.dangerous == ["posix.system"]
    assert "posix.system" in str(checkpoint.verify()[0])
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        statedict.load(tmp_path / "d", backend="numpy")


def test_a_piece_that_cannot_be_read_is_a_finding(tmp_path):
    """A damaged piece is a finding that says that its imports are unknown."""
    files = shards.distributed()
    damaged = files["__1_0.distcp"].replace(b"PK\3\4", b"PK\3\5", 1)
    checkpoint = opened(tmp_path, **{"__1_0.distcp": damaged})
    assert checkpoint.dangerous == []
    assert [finding.where for finding in checkpoint.verify() if finding.level == "error"] == ["model/w"]


def test_places_in_the_tree_are_paid_for(tmp_path, monkeypatch):
    """The number of dicts made for the steps of names is limited."""
    monkeypatch.setattr(_metadata, "MOST_STEPS", -10_000)
    steps = p.tuple_(*(p.text(str(n)) for n in range(900)), p.text("w"))
    old = p.tuple_(p.text("model"), p.text("w"))
    with pytest.raises(FormatError, match="too many steps for the size of the metadata"):
        opened(tmp_path, **{".metadata": shards.distributed()[".metadata"].replace(old, steps)})
