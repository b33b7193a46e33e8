"""A checkpoint of CheckpointManager is one Checkpoint: a root for each object, and the values beside them."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FormatError, RootError, TruncatedError, UnknownFormatError
from statedict.formats import runs
from statedict.formats.runs import FileFacts

STEP = "step-0000000007"


class Counter:
    """An object with a state that is not a module."""

    count = 3

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def training():
    torch.manual_seed(0)
    model, other = nn.Linear(3, 2), nn.Linear(2, 2)
    optimizers = [torch.optim.AdamW(part.parameters()) for part in (model, other)]
    sum(parameter.sum() for part in (model, other) for parameter in part.parameters()).backward()
    for optimizer in optimizers:
        optimizer.step()
    return {"model": model, "parts": {"other": other, "rate": 0.5}, "optimizers": optimizers, "counter": Counter()}


@pytest.fixture
def saved(tmp_path):
    """The objects of a save, and its directory."""
    objects = training()
    with statedict.CheckpointManager(tmp_path / "run", durable=False) as manager:
        manager.save(7, {"loss": 0.5}, **objects, epoch=3, order=np.arange(4), pair=(1, 2))
    return objects, tmp_path / "run" / STEP


def rewrite(step, **changed):
    """Write the manifest anew, with changed fields, and the facts of the files that it lists."""
    manifest = replace(runs.read(step), **changed)
    files = {name: FileFacts.of(step / name) if (step / name).is_file() else f for name, f in manifest.files.items()}
    (step / "manifest.json").write_bytes(runs.dump(replace(manifest, files=files)))


def errors(step):
    with formats.open(step) as checkpoint:
        return {finding.where: finding.text for finding in checkpoint.verify() if finding.level == "error"}


def test_the_objects_are_the_roots(saved):
    """Each object has its name in the manifest, also one in a list or mapping; the random state is there, too."""
    objects, step = saved
    with statedict.open(step) as checkpoint:
        assert {"model", "parts/other", "optimizers/0", "optimizers/1", "random/torch"} <= set(checkpoint.roots)
        assert checkpoint.format == "step"
        for root, module in (("model", objects["model"]), ("parts/other", objects["parts"]["other"])):
            state = checkpoint.state_dict(root).torch()
            assert {name: value.tolist() for name, value in state.items()} == {
                name: value.tolist() for name, value in module.state_dict().items()
            }
        assert checkpoint.state_dict() is checkpoint.roots["model"]
        assert checkpoint.verify() == []


def test_the_values_are_beside_the_objects(saved):
    """The values of the manifest and of `values.pt`, also those that share a mapping with an object."""
    _, step = saved
    tree = statedict.load(step)
    assert (tree["epoch"], tree["pair"], tree["order"].tolist()) == (3, (1, 2), [0, 1, 2, 3])
    assert (tree["parts"]["rate"], tree["counter"]) == (0.5, {"count": 3})
    assert list(tree["optimizers"]) == ["0", "1"]


def test_step_time_and_metrics_are_metadata(saved, tmp_path):
    """They are shown, but belong to no state: equal states of two steps are equal, and a conversion does not keep them."""
    objects, step = saved
    with statedict.open(step) as checkpoint:
        facts = checkpoint.shown_texts
        assert (facts["statedict.step"], json.loads(facts["statedict.metrics"])) == ("7", {"loss": 0.5})
        assert facts["statedict.time"].startswith("20")
        assert checkpoint.texts == checkpoint.state_dict().texts == {}
    with statedict.CheckpointManager(tmp_path / "run", durable=False) as manager:
        manager.save(8, {"loss": 0.25}, **objects)
    assert not statedict.diff(step, tmp_path / "run" / "step-0000000008")


def test_the_verbs_take_the_folder(saved, tmp_path):
    """`load_state_dict` of modules, optimizers and other objects, `diff`, `merge`, `match`: by root, or by their kind."""
    objects, step = saved
    made = training()
    for part in (made["model"], made["parts"]["other"]):
        nn.init.zeros_(part.weight)
    counter = Counter()
    counter.count = 0
    statedict.load_state_dict(made["model"], step)
    statedict.load_state_dict(made["parts"]["other"], step, root="parts/other")
    statedict.load_state_dict(made["optimizers"][1], step, root="optimizers/1")
    statedict.load_state_dict(counter, step, root="counter")
    assert not statedict.diff(made["model"], objects["model"])
    assert counter.count == 3
    assert statedict.merge([step, tmp_path / "run"]).numpy()["weight"].tolist() == made["model"].weight.tolist()
    assert statedict.match(made["model"], step).key_map is not None
    report = statedict.load_state_dict(made["model"], step)
    assert report.root == "model"
    assert set(report.other_roots) == {"parts/other"}
    with pytest.raises(RootError, match="several parts of the source fit"):
        statedict.load_state_dict(made["optimizers"][0], step)


def test_objects_in_directories(saved):
    """What several ranks saved: a directory of torch.distributed.checkpoint for an object, a random state of each rank."""
    import torch.distributed.checkpoint as dcp

    objects, step = saved
    (step / "model.pt").unlink()
    with warnings.catch_warnings(action="ignore"):  # of a single process
        dcp.save(objects["model"].state_dict(), checkpoint_id=step / "model")
    for rank in (0, 1):
        (step / f"random-{rank:05d}.pt").write_bytes((step / "random.pt").read_bytes())
    (step / "random.pt").unlink()
    manifest = runs.read(step)
    places = {name: place for name, place in manifest.objects.items() if name != "random"}
    present = [path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file()]
    listed = {name: FileFacts(0, 0) for name in present if name != "manifest.json"}
    rewrite(step, objects={**places, "model": "model"}, files=listed)
    model = nn.Linear(3, 2)
    statedict.load_state_dict(model, step)
    assert not statedict.diff(model, objects["model"])
    with formats.open(step) as checkpoint:
        assert {"random/0/torch", "random/1/torch"} <= set(checkpoint.roots)
        assert [finding for finding in checkpoint.verify() if finding.level == "error"] == []
    (step / "model" / ".metadata").write_bytes(b"")
    assert errors(step).keys() >= {"model/.metadata", "model"}
    with formats.open(step) as checkpoint:
        assert checkpoint.state_dict("parts/other").numpy()["weight"].shape == (2, 2)
        assert checkpoint.verify() != []


def test_frozen_parameters_in_shards(tmp_path):
    """An object that the manager saved in shards is read through its index."""
    model = nn.Linear(600, 600).requires_grad_(False)
    with statedict.CheckpointManager(tmp_path, durable=False) as manager:
        manager.save(1, model=model)
    assert (tmp_path / "step-0000000001" / "model.pt.index.json").exists()
    assert not statedict.diff(model, tmp_path)
    with formats.open(tmp_path) as checkpoint:
        assert [finding.level for finding in checkpoint.verify()] == ["note"]


# damage


def test_a_missing_file_is_named_and_the_rest_loads(saved):
    """An error about the object names the file; nothing else is taken for the model."""
    _, step = saved
    (step / "model.pt").unlink()
    with pytest.raises(RootError, match=r"'model' cannot be read: .*model\.pt"):
        statedict.load_state_dict(nn.Linear(3, 2), step)
    with pytest.raises(TruncatedError, match=r"model\.pt: the file is missing, but the manifest lists it"):
        statedict.load(step)
    statedict.load_state_dict(nn.Linear(2, 2), step, root="parts/other")
    found = errors(step)
    assert found["model.pt"] == "the file is missing, but the manifest lists it"
    assert found["model"].startswith("cannot be read: ")
    with formats.open(step) as checkpoint:
        assert list(checkpoint.unopened) == ["model"]


def test_missing_values_are_named(saved):
    """Without `values.pt`, the objects load; its entries are missing."""
    _, step = saved
    (step / "values.pt").unlink()
    statedict.load_state_dict(nn.Linear(3, 2), step)
    with formats.open(step) as checkpoint:
        assert list(checkpoint.unopened) == ["values"]
        assert "order" not in checkpoint.object
    assert errors(step)["values.pt"] == "the file is missing, but the manifest lists it"


def test_a_missing_optimizer_is_named(saved):
    """For an optimizer, by its root or by its kind."""
    _, step = saved
    for number in (0, 1):
        (step / f"optimizers.{number}.pt").unlink()
    optimizer = torch.optim.AdamW(nn.Linear(3, 2).parameters())
    with pytest.raises(RootError, match=r"'optimizers/1' cannot be read: .*optimizers\.1\.pt"):
        statedict.load_state_dict(optimizer, step, root="optimizers/1")
    with pytest.raises(
        RootError, match=r"no state of this kind of object; 'optimizers/0' cannot be read: .*optimizers\.0"
    ):
        statedict.load_state_dict(optimizer, step)


def test_every_damaged_file_is_reported(saved):
    """`verify` reads all files: each one that is missing, of another size or of another content is an error."""
    _, step = saved
    (step / "random.pt").unlink()
    (step / "counter.pt").write_bytes(b"short")
    raw = bytearray((step / "parts.other.pt").read_bytes())
    raw[-30] ^= 1
    (step / "parts.other.pt").write_bytes(raw)
    found = errors(step)
    assert found["random.pt"] == "the file is missing, but the manifest lists it"
    assert found["counter.pt"].startswith("the file has 5 bytes, expected ")
    assert found["parts.other.pt"].startswith("the file is damaged: its CRC-32 is ")
    assert "model.pt" not in found


def test_a_file_that_cannot_be_read_is_not_called_damaged(saved, monkeypatch):
    """A file without permission is unread, not damaged."""
    _, step = saved
    genuine = runs.check_file

    def refuse(folder, name, expected):
        if name == "model.pt":
            raise PermissionError(13, "Permission denied", folder.path_of(name))
        genuine(folder, name, expected)

    monkeypatch.setattr("statedict.formats.runs._step.check_file", refuse)
    with formats.open(step) as checkpoint:
        (finding,) = checkpoint.verify()
    assert (finding.level, finding.where) == ("unread", "model.pt")
    assert "Permission denied" in finding.text


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda raw: b"", TruncatedError, "the manifest is empty"),
        (lambda raw: raw[:-30], FormatError, "not valid JSON"),
        (lambda raw: raw.replace(b'"step": 7', b'"step": 8'), ChecksumError, "the manifest is damaged"),
        (lambda raw: b"\xff" + raw[1:], FormatError, "not valid JSON"),
    ],
)
def test_a_damaged_manifest_is_an_error(saved, change, error, text):
    """A checkpoint whose manifest is damaged is not opened by the names of its files instead."""
    _, step = saved
    path = step / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(error, match=text):
        formats.open(step)


def test_a_copy_under_another_name(saved, tmp_path):
    """A copied checkpoint opens under any name; only the name of another step is an error."""
    _, step = saved
    step.rename(tmp_path / "best")
    assert errors(tmp_path / "best") == {}
    (tmp_path / "best").rename(tmp_path / "step-0000000009")
    text = "the manifest is for step 7, but the directory is named step-0000000009"
    assert errors(tmp_path / "step-0000000009") == {"manifest.json": text}


def test_another_manifest(tmp_path):
    """A `manifest.json` of something else does not make a folder a checkpoint of the manager."""
    statedict.save({"w": np.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "manifest.json").write_text('{"name": "app"}')
    with formats.open(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        ({"a": "model.pt", "b": "model.pt"}, "the objects 'a' and 'b' have the same file 'model.pt'"),
        ({"a": "model.pt", "a/b": "random.pt"}, "'a/b' cannot be the name of an object beside the others"),
        ({"a//b": "model.pt"}, "'a//b' cannot be the name of an object"),
        ({"/".join("a" * 21): "model.pt"}, "cannot be the name of an object"),
    ],
)
def test_contradictory_objects_are_refused(saved, objects, text):
    """Two objects of one file, or an object inside another one, make no tree."""
    _, step = saved
    rewrite(step, objects=objects)
    with pytest.raises(FormatError, match=text):
        formats.open(step)


def test_values_that_contradict_the_objects(saved):
    """An object replaces a value of the same name."""
    _, step = saved
    rewrite(step, values={"model": 1, "optimizers": 2, "parts": [None, 5]})
    tree = statedict.load(step)
    assert set(tree["model"]) == {"weight", "bias"}
    assert list(tree["optimizers"]) == ["0", "1"]
    assert (list(tree["parts"]), tree["parts"]["1"]) == (["0", "1", "other"], 5)


def test_a_newer_version_is_unknown(saved, monkeypatch):
    """A manifest of a later version is not damaged: upgrade."""
    _, step = saved
    manifest = runs.read(step)
    monkeypatch.setattr("statedict.formats.runs._manifest.VERSION", 2)
    (step / "manifest.json").write_bytes(runs.dump(manifest))
    monkeypatch.undo()
    with pytest.raises(UnknownFormatError, match="upgrade statedict"):
        formats.open(step)
