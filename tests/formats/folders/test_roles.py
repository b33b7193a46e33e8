"""Folders of accelerate, transformers' Trainer and skorch: each file has a root by its role; torch is the oracle."""

from __future__ import annotations

import io
import os
import pickle

import pytest
import torch
from tests.formats.folders import layouts
from tests.formats.folders.layouts import Training, accelerate, skorch, trainer

import statedict
from statedict import files, formats
from statedict.errors import FormatError, LimitError, RootError, UnknownFormatError


def equal(a, b):
    """Whether two trees of tensors and values are equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def resumed(folder, root=("auto",) * 3):
    """The states of a model, an optimizer and a scheduler loaded from a folder, without naming a root unless given."""
    fresh = Training(seed=7)
    objects = fresh.model, fresh.optimizer, fresh.scheduler
    for obj, where in zip(objects, root):
        statedict.load_state_dict(obj, folder, root=where)
    return [obj.state_dict() for obj in objects]


def states(training):
    return [obj.state_dict() for obj in (training.model, training.optimizer, training.scheduler)]


@pytest.mark.parametrize("safe", [True, False])
def test_accelerate_is_loaded_without_naming_a_root(tmp_path, safe):
    """A folder of save_state is one tree, and each object finds its own part of it."""
    training = Training()
    folder = accelerate(
        tmp_path / "f", [training], safe=safe, custom_checkpoint_0__pkl={"n": 3}, scaler__pt={"scale": 2.0}
    )
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"model", "optimizer", "scheduler", "rng", "custom_checkpoint_0", "scaler"}
        assert checkpoint.format == "directory"
        assert checkpoint.object["rng"]["step"] == 0
        assert checkpoint.unopened == {}
        assert [finding.level for finding in checkpoint.verify()] == []
    assert equal(resumed(folder), states(training))
    assert equal(statedict.load(folder)["optimizer"], training.optimizer.state_dict())


@pytest.mark.parametrize("safe", [True, False])
def test_each_of_several_objects_has_its_number(tmp_path, safe):
    """The second model, optimizer and scheduler are at `_1`, and none of two is chosen for an optimizer or scheduler."""
    trainings = [Training(), Training(seed=1)]
    folder = accelerate(tmp_path / "f", trainings, safe=safe, ranks=2, custom_checkpoint_1__pkl={"n": 3})
    with statedict.open(folder) as checkpoint:
        numbered = {f"{root}{end}" for root in ("model", "optimizer", "scheduler", "rng") for end in ("", "_1")}
        assert set(checkpoint.object) == {*numbered, "custom_checkpoint_1"}
    assert equal(resumed(folder, ("model_1", "optimizer_1", "scheduler_1")), states(trainings[1]))
    for obj, kind in ((trainings[0].optimizer, "optimizer"), (trainings[0].scheduler, "scheduler")):
        with pytest.raises(RootError, match=rf"several parts of the source fit. Available: '{kind}', '{kind}_1'"):
            statedict.load_state_dict(obj, folder)


def test_a_further_model_in_two_formats_is_read_once(tmp_path):
    """If `model_1` is there as safetensors and as pickle, the safetensors file is read, as for the first model."""
    folder = accelerate(tmp_path / "f", [Training(), Training(seed=1)])
    layouts.write(
        folder, {"pytorch_model_1.bin": {"other": torch.zeros(1)}, "pytorch_model.bin": {"other": torch.zeros(1)}}
    )
    with statedict.open(folder) as checkpoint:
        assert {root: len(checkpoint.state_dict(root)) for root in ("model", "model_1")} == {"model": 9, "model_1": 9}


def test_trainer_is_loaded_without_naming_a_root(tmp_path):
    """A `checkpoint-N` of Trainer is one tree; the state of the trainer is in it as plain values, also if not finite."""
    training = Training()
    folder = trainer(tmp_path / "checkpoint-4", training, optimizer_0__bin=None)
    assert equal(resumed(folder), states(training))
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"model", "optimizer", "scheduler", "rng", "trainer_state"}
        assert checkpoint.object["trainer_state"]["global_step"] == 4
        assert repr(checkpoint.object["trainer_state"]["log_history"][0]["loss"]) == "nan"
        assert checkpoint.producer == "statedict, PyTorch"


def test_every_rank_and_other_names_of_the_optimizer_have_roots(tmp_path):
    """`optimizer.bin`, `rng_state_N.pth` and `scaler.pt` are those of a training on several processes."""
    training = Training()
    more = {"optimizer__bin": training.optimizer.state_dict(), "rng_state_0__pth": {"cpu": torch.get_rng_state()}}
    more |= {"rng_state_1__pth": {"cpu": torch.get_rng_state()}, "scaler__pt": {"scale": 2.0}}
    folder = trainer(tmp_path / "f", training, optimizer__pt=None, rng_state__pth=None, **more)
    with statedict.open(folder) as checkpoint:
        found = {"model", "optimizer", "scheduler", "rng", "rng_1", "scaler", "trainer_state"}
        assert set(checkpoint.object) == found
    assert equal(resumed(folder), states(training))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_shards_are_the_model(tmp_path, name):
    """An index and its shards beside files with roles are the model."""
    training = Training()
    folder = trainer(tmp_path / "f", training, model__safetensors=None)
    statedict.save(training.model.state_dict(), folder / name, max_shard_size=200)
    assert (folder / f"{name}.index.json").exists()
    assert equal(resumed(folder), states(training))


def test_an_adapter_is_the_model(tmp_path):
    """The weights of a PEFT adapter are at `model`, and those of further adapters at the names of their folders."""
    adapter = {"base_model.model.q.lora_A.weight": torch.ones(2, 4)}
    more = {
        "adapter_model__safetensors": adapter,
        "second/adapter_model__safetensors": adapter,
        "adapter_config__json": {},
    }
    folder = trainer(tmp_path / "f", Training(), model__safetensors=None, **more)
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.state_dict()) == list(checkpoint.state_dict("second")) == list(adapter)


def test_further_adapters_without_files_of_roles_are_noted(tmp_path):
    """What PEFT saves alone is opened as the first adapter; a note lists the folders of the others."""
    adapter = {"base_model.model.q.lora_A.weight": torch.ones(2, 4)}
    files = {f"{place}adapter_model.safetensors": adapter for place in ("", "second/")}
    with statedict.open(layouts.write(tmp_path / "f", {**files, "adapter_config.json": {}})) as checkpoint:
        assert list(checkpoint.object) == list(adapter)
        assert checkpoint.notes[-1] == "other adapters, in folders of this directory, were not read: second"


def test_models_in_folders_beside_files_with_roles_have_their_names(tmp_path):
    """Trainings of diffusers save each model in its folder, and the rest by accelerate."""
    folder = accelerate(tmp_path / "checkpoint-500", [Training()])
    (folder / "model.safetensors").unlink()
    states = {name: layouts.model(n).state_dict() for n, name in enumerate(("unet", "unet_ema"))}
    layouts.write(folder, {f"{name}/diffusion_pytorch_model.safetensors": state for name, state in states.items()})
    layouts.write(folder, {"logs/events.txt": b"x", ".cache/x.bin": b"x"})
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"unet", "unet_ema", "optimizer", "scheduler", "rng"}
        assert equal(dict(statedict.load(folder)["unet_ema"]), dict(states["unet_ema"]))


def test_a_folder_of_transformers_stays_the_weights(tmp_path):
    """The configuration and the arguments of a training are not state: the file of weights is the checkpoint."""
    state = Training().model.state_dict()
    files = {"config.json": {}, "tokenizer.json": {}, "training_args.bin": {"lr": 0.1}}
    with statedict.open(layouts.write(tmp_path / "f", {**files, "model.safetensors": state})) as checkpoint:
        assert (checkpoint.format, list(checkpoint.object)) == ("safetensors", list(state))
    with pytest.raises(UnknownFormatError, match="this directory does not contain a checkpoint"):
        statedict.open(layouts.write(tmp_path / "g", files))


@pytest.mark.parametrize("safe", [True, False])
def test_skorch_has_the_best_and_the_last(tmp_path, safe):
    """What skorch saves at the end of a training is below `train_end`; the model is that of its callback."""
    best, last = Training(), Training(seed=1)
    folder = skorch(tmp_path / "f", best, safe=safe)
    skorch(folder, last, "train_end_", safe=safe)
    with statedict.open(folder) as checkpoint:
        assert checkpoint.object["history"][0]["train_loss"] == 0.5
        assert set(checkpoint.object["train_end"]) == {
            "model",
            "history",
            *(() if safe else ("optimizer", "criterion")),
        }
        assert equal(dict(checkpoint.state_dict().torch()), dict(best.model.state_dict()))
        assert equal(dict(checkpoint.state_dict("train_end/model").torch()), dict(last.model.state_dict()))
    if not safe:
        assert equal(resumed(folder, ("auto", "auto"))[:2], states(best)[:2])


def test_a_damaged_optimizer_leaves_the_model_and_is_named(tmp_path):
    """The model and the scheduler load; an error about the optimizer, and verify, give the file and the reason."""
    training = Training()
    folder = trainer(tmp_path / "f", training)
    raw = (folder / "optimizer.pt").read_bytes()
    (folder / "optimizer.pt").write_bytes(raw[: len(raw) // 2])
    fresh = Training(seed=7)
    statedict.load_state_dict(fresh.model, folder)
    statedict.load_state_dict(fresh.scheduler, folder)
    assert equal(states(fresh)[::2], states(training)[::2])
    for root in ("auto", "optimizer"):
        with pytest.raises(RootError, match=r"'optimizer' cannot be read: .*f/optimizer\.pt: .*ends? "):
            statedict.load_state_dict(fresh.optimizer, folder, root=root)
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.unopened) == ["optimizer"]
        (error,) = [finding for finding in checkpoint.verify() if finding.level == "error"]
        assert error.where == "optimizer"
        assert "optimizer.pt" in error.text
        with pytest.raises(RootError, match="'optimizer' cannot be read"):
            checkpoint.state_dict("optimizer/state")
        assert "cannot be read" in checkpoint._repr_html_()


def test_nothing_takes_the_place_of_a_damaged_model(tmp_path):
    """If the weights cannot be read, no other root is loaded into the model: the error names their file."""
    folder = accelerate(tmp_path / "f", [Training(), Training(seed=1)])
    (folder / "model.safetensors").write_bytes(b"")
    before = layouts.model(3)
    state = {name: value.clone() for name, value in before.state_dict().items()}
    with pytest.raises(RootError, match=r"'model' cannot be read: .*f/model.safetensors: the file is empty"):
        statedict.load_state_dict(before, folder)
    assert equal(dict(before.state_dict()), state)


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_file_that_would_run_code_is_left_out_and_named(tmp_path, monkeypatch):
    """Nothing is run, the rest loads, and an error about the root names the import."""
    monkeypatch.chdir(tmp_path)
    training = Training()
    folder = accelerate(tmp_path / "f", [training], custom_checkpoint_0__pkl=pickle.dumps(Evil()))
    assert equal(resumed(folder), states(training))
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.unopened) == ["custom_checkpoint_0"]
        assert checkpoint.dangerous == []
        with pytest.raises(
            RootError, match=r"custom_checkpoint_0.pkl: unpickling this file would run code: .* posix.system"
        ):
            checkpoint.state_dict("custom_checkpoint_0")
        assert [finding.level for finding in checkpoint.verify()] == ["error"]
    assert not (tmp_path / "executed").exists()


def test_two_files_with_one_role_have_their_names(tmp_path):
    """`optimizer.pt` and `optimizer.bin` are both kept, and none is chosen."""
    training = Training()
    folder = trainer(tmp_path / "f", training, optimizer__bin=Training(seed=1).optimizer.state_dict())
    with statedict.open(folder) as checkpoint:
        assert {"optimizer.pt", "optimizer.bin"} < set(checkpoint.object)
    with pytest.raises(RootError, match=r"several parts of the source fit. Available: 'optimizer.bin', 'optimizer.pt'"):
        statedict.load_state_dict(training.optimizer, folder)
    statedict.load_state_dict(training.optimizer, folder, root="optimizer.pt")


def test_an_object_that_nothing_fits_is_refused(tmp_path):
    """A scheduler is not given the tree of a whole folder."""
    training = Training()
    folder = trainer(tmp_path / "f", training, scheduler__pt=None)
    with pytest.raises(RootError, match="the source contains no state of this kind of object"):
        statedict.load_state_dict(training.scheduler, folder)


def test_a_folder_without_weights_has_the_other_roots(tmp_path):
    """The optimizer of a folder without a model can be loaded, and a model is said to be missing."""
    training = Training()
    folder = trainer(tmp_path / "f", training, model__safetensors=None)
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"optimizer", "scheduler", "rng", "trainer_state"}
    statedict.load_state_dict(training.optimizer, folder)
    with pytest.raises(statedict.StateDictError):
        statedict.load_state_dict(training.model, folder)


def test_weights_at_the_top_are_the_result_of_a_run(tmp_path):
    """A folder with weights and folders of steps is the weights: these were saved at the end."""
    final = Training(seed=1)
    trainer(tmp_path / "out" / "checkpoint-500", Training())
    layouts.write(tmp_path / "out", {"model.safetensors": final.model.state_dict(), "training_args.bin": {}})
    fresh = layouts.model(7)
    statedict.load_state_dict(fresh, tmp_path / "out")
    assert equal(dict(fresh.state_dict()), dict(final.model.state_dict()))


def test_a_distributed_checkpoint_beside_roles_is_joined_with_them(tmp_path):
    """Its own roots are beside those of the files; a state without roots is the model."""
    training = Training()
    files = {"rng_state_0.pth": {"cpu": torch.get_rng_state()}, "scheduler.pt": training.scheduler.state_dict()}
    state = {"model": training.model.state_dict(), "step": 3}
    layouts.distributed(tmp_path / "nested", state)
    layouts.distributed(tmp_path / "flat", training.model.state_dict())
    for name in ("nested", "flat"):
        folder = layouts.write(tmp_path / name, files)
        with statedict.open(folder) as checkpoint:
            assert set(checkpoint.object) == {"model", "scheduler", "rng", *(["step"] if name == "nested" else [])}
        fresh = layouts.model(7)
        statedict.load_state_dict(fresh, folder)
        assert equal(dict(fresh.state_dict()), dict(training.model.state_dict()))


def test_a_distributed_checkpoint_with_the_same_root_is_the_model(tmp_path):
    """If both have an optimizer, neither replaces the other."""
    training = Training()
    layouts.distributed(tmp_path, {"model": training.model.state_dict(), "optimizer": {"x": torch.ones(2)}})
    layouts.write(tmp_path, {"optimizer.pt": training.optimizer.state_dict()})
    with statedict.open(tmp_path) as checkpoint:
        assert {"model/model", "model/optimizer", "optimizer"} <= set(checkpoint.roots)


def test_weights_beside_a_folder_called_model_are_both_read(tmp_path):
    """The folder has its name, and neither replaces the other."""
    folder = trainer(tmp_path / "f", Training())
    layouts.write(folder, {"model/model.safetensors": {"w": torch.ones(1)}})
    with statedict.open(folder) as checkpoint:
        assert (list(checkpoint.state_dict("model")), len(checkpoint.state_dict("weights"))) == (["w"], 9)


def test_accelerates_folders_of_parts_have_roles(tmp_path):
    """FSDP of accelerate: `pytorch_model_fsdp_0` and `optimizer_0` are torch.distributed.checkpoint folders of one entry."""
    training = Training()
    folder = accelerate(tmp_path / "f", [training])
    (folder / "model.safetensors").unlink()
    (folder / "optimizer.bin").unlink()
    layouts.distributed(folder / "pytorch_model_fsdp_0", {"model": training.model.state_dict()})
    moments = {f"{n}.exp_avg": torch.full((2,), float(n)) for n in range(3)}
    layouts.distributed(folder / "optimizer_0", {"optimizer": {"state": moments}})
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"model", "optimizer", "scheduler", "rng"}
        assert equal(dict(checkpoint.state_dict().torch()), dict(training.model.state_dict()))
        assert list(checkpoint.object["optimizer"]) == ["state"]


@pytest.mark.parametrize("weights", [False, True])
def test_the_folder_of_deepspeed_has_the_roots_of_the_others(tmp_path, weights):
    """The folder that `latest` names is joined with the files beside it, or has its own root beside gathered weights."""
    training = Training()
    more = {"latest": b"global_step4\n", **({} if weights else {"model__safetensors": None})}
    folder = trainer(tmp_path / "checkpoint-4", training, optimizer__pt=None, **more)
    inside = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}
    layouts.write(folder, {"global_step4/model.pt": inside, "global_step3/model.pt": {}})
    with statedict.open(folder) as checkpoint:
        own = {"global_step4", "model"} if weights else {"model", "optimizer"}
        assert set(checkpoint.object) == {*own, "scheduler", "rng", "trainer_state"}
    assert equal(resumed(folder), states(training))


def test_files_of_unknown_purpose_do_not_replace_the_folder_of_deepspeed(tmp_path):
    """Several files beside it, of which no name marks one as the model's, are left out; a note lists them."""
    training = Training()
    state = training.model.state_dict()
    inside = {"model": state, "optimizer": training.optimizer.state_dict()}
    files = {"latest": b"global_step4", "global_step4/model.pt": inside, "a.pt": state, "b.pt": state}
    with statedict.open(layouts.write(tmp_path / "f", files)) as checkpoint:
        assert set(checkpoint.object) == {"model", "optimizer"}
        assert checkpoint.notes[-1].endswith("no name marks one as the model's: a.pt, b.pt")


def test_the_values_of_a_folder_are_limited(tmp_path):
    """A file of plain values is JSON, no longer and no deeper than allowed."""
    folder = trainer(tmp_path / "f", Training(), trainer_state__json=b"[" * 101 + b"]" * 101)
    with pytest.raises(LimitError, match=r"trainer_state\.json: JSON nested 101 deep"):
        statedict.open(folder)
    layouts.write(folder, {"trainer_state.json": b'{"a": 1, "a": 2}'})
    with statedict.open(folder) as checkpoint:
        assert "appears twice" in str(checkpoint.unopened["trainer_state"])
    size = (folder / "trainer_state.json").write_text(f'"{"x" * 2000}"')
    with pytest.raises(LimitError, match=rf"trainer_state\.json: JSON of {size:,} bytes exceeds the limit of 1,000"):
        statedict.open(folder, limits=statedict.Limits(json_bytes=1000))


class CountedReads(io.BytesIO):
    """A file in memory that counts how often it is read."""

    reads = 0

    def readinto(self, into):
        self.reads += 1
        return super().readinto(into)

    def read(self, nbytes=-1):
        self.reads += 1
        return super().read(nbytes)


def reads_of(damaged, names):
    """How often a damaged file is read when a Folder with it, and with good files of other names, is opened."""
    good = io.BytesIO()
    torch.save({"x": torch.ones(1)}, good)
    file = CountedReads(b"\x80\x02damaged")
    opener = lambda name: files.open(file if name == damaged else io.BytesIO(good.getvalue()))  # noqa: E731
    try:
        with formats.open(files.Folder("memory", opener, [damaged, *names])) as checkpoint:
            assert list(checkpoint.unopened) == ["model"]
    except FormatError:
        assert not names
    return file.reads


def test_damaged_weights_are_read_once(tmp_path):
    """A damaged file of weights beside any number of files with roles is read as often as one that is alone."""
    alone = reads_of("model.bin", [])
    assert 0 < alone < 20
    assert reads_of("model.bin", ["optimizer.pt"]) == alone
    assert reads_of("model.bin", ["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"]) == alone


def test_each_level_of_damaged_folders_is_read_once(tmp_path):
    """The rest of a folder may be a run, whose newest step has roles and a rest, and so on: each level is opened once."""
    levels = 8
    for level in range(levels):
        layouts.write(tmp_path.joinpath(*["checkpoint-1"] * level), {"optimizer.pt": b"\x80\x02damaged"})
    folder = files.open_folder(str(tmp_path))
    with pytest.raises(FormatError, match="damaged"):
        formats.open(folder)
    assert folder.count_visits(0) == levels


@pytest.mark.parametrize("links", [2, 3, 40])
def test_links_to_the_same_folder_are_not_followed_for_ever(tmp_path, links):
    """Links to a folder, in this folder, make a tree of it that has no end: exceeding the limit is an error of the whole."""
    layouts.write(tmp_path, {"model.pt": layouts.model().state_dict(), "optimizer.pt": {}})
    for number in range(links):
        (tmp_path / f"part{number}").symlink_to(".")
    message = r"a checkpoint of at least 1,0\d\d folders exceeds the limit of 1,000 .*Limits\(folders=…\)"
    with pytest.raises(LimitError, match=message) as caught:
        statedict.open(tmp_path)
    assert caught.value.file.startswith(str(tmp_path))


def test_links_that_lead_nowhere_are_not_in_the_way(tmp_path):
    """A link to itself, or to a file that does not exist, beside the files of a checkpoint."""
    layouts.write(tmp_path, {"model.pt": layouts.model().state_dict()})
    for name, target in {"loop": "loop", "lost": "nowhere"}.items():
        (tmp_path / name).symlink_to(target)
    assert statedict.load(tmp_path).keys() == layouts.model().state_dict().keys()


def test_a_checkpoint_of_as_many_folders_as_allowed(tmp_path):
    """Each folder beside the files is looked into, and those with weights are opened; one more than the limit is refused."""
    state = layouts.model().state_dict()
    layouts.write(tmp_path, {"optimizer.pt": {}, **{f"part{number}/model.pt": state for number in range(4)}})
    with statedict.open(tmp_path, limits=statedict.Limits(folders=9)) as checkpoint:
        assert set(checkpoint.object) == {"optimizer", *(f"part{number}" for number in range(4))}
    with pytest.raises(LimitError, match="at least 9 folders exceeds the limit of 8"):
        statedict.open(tmp_path, limits=statedict.Limits(folders=8))
