"""Directories behind URLs: the same formats as on disk, each folder listed once."""

from __future__ import annotations

import pytest
import torch
from tests.formats.folders import layouts
from tests.formats.folders.layouts import Training

import statedict
from statedict.errors import UnknownFormatError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that copies a folder to a store, and the calls of it that list a folder."""
    system = fsspec.filesystem("memory")
    listed = []
    ls = type(system).ls
    monkeypatch.setattr(type(system), "ls", lambda self, path, *a, **k: listed.append(path) or ls(self, path, *a, **k))

    def put(folder):
        system.put(str(folder), f"/hub/{folder.name}", recursive=True)
        listed.clear()
        return f"memory://hub/{folder.name}"

    yield put, listed
    system.rm("/hub", recursive=True)


def test_weights_behind_a_url_are_found(place, tmp_path):
    """The URL of a repository finds the file of weights in it, with one listing."""
    put, listed = place
    state = layouts.model(1).state_dict()
    url = put(layouts.write(tmp_path / "name", {"config.json": {}, "model.safetensors": state, "onnx/x.bin": b"x"}))
    fresh = layouts.model(7)
    statedict.load_state_dict(fresh, url)
    assert not statedict.diff(fresh, state)
    assert listed == ["/hub/name"]
    with statedict.open(f"{url}/") as checkpoint:
        assert checkpoint.path.endswith("hub/name/model.safetensors")


def test_shards_behind_a_url_are_found(place, tmp_path):
    """An index in a remote directory finds its shards."""
    put, listed = place
    state = layouts.model(1).state_dict()
    folder = layouts.write(tmp_path / "sharded", {"config.json": {}})
    statedict.save(state, folder / "model.safetensors", max_shard_size=200)
    assert not statedict.diff(put(folder), state)
    assert listed == ["/hub/sharded"]


def test_a_pipeline_behind_a_url_is_one_tree(place, tmp_path):
    """A pipeline behind a URL is one tree, and each of its folders is listed once."""
    put, listed = place
    url = put(layouts.pipeline(tmp_path / "sd"))
    with statedict.open(url) as checkpoint:
        assert list(checkpoint.roots) == ["text_encoder", "unet"]
        assert not statedict.diff(checkpoint.state_dict("unet"), layouts.model(1))
    assert len(listed) == len(set(listed)) == 5


def test_a_training_behind_a_url_has_its_roots(place, tmp_path):
    """Files with roles, and the newest of several steps."""
    put, _ = place
    training = Training()
    layouts.trainer(tmp_path / "out" / "checkpoint-4", training)
    url = put(tmp_path / "out")
    for source in (url, f"{url}/checkpoint-4", f"file://{tmp_path}/out/checkpoint-4"):
        fresh = Training(seed=7)
        for obj in (fresh.model, fresh.optimizer, fresh.scheduler):
            statedict.load_state_dict(obj, source)
        assert not statedict.diff(fresh.model, training.model)
        assert fresh.scheduler.state_dict() == training.scheduler.state_dict()


def test_a_distributed_checkpoint_behind_a_url_is_read(place, tmp_path):
    """Its metadata is found by the listing, its chunks are ranges of the files."""
    put, _ = place
    layouts.distributed(tmp_path / "dcp", {"model": {"w": torch.arange(12.0).reshape(3, 4)}})
    assert statedict.load(put(tmp_path / "dcp"))["model"]["w"].tolist() == torch.arange(12.0).reshape(3, 4).tolist()


def test_a_folder_without_a_checkpoint_is_said_by_its_url(place, tmp_path):
    """Errors name the URL."""
    put, _ = place
    url = put(layouts.write(tmp_path / "none", {"config.json": {}}))
    with pytest.raises(UnknownFormatError, match=f"{url}: this directory does not contain a checkpoint"):
        statedict.open(url)
