"""Pipelines of diffusers and models of sentence-transformers: a root for each folder with weights."""

from __future__ import annotations

import numpy as np
import pytest
from tests.formats.folders import layouts
from tests.formats.folders.layouts import pipeline, write

import statedict
from statedict.errors import FormatError, RootError


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("variant", ["", "fp16"])
def test_a_pipeline_is_one_tree(tmp_path, variant, suffix):
    """Each model is at the name of its folder; folders without weights are left out; a variant is read if it is alone."""
    folder = pipeline(tmp_path / "sd", variant=variant, suffix=suffix)
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.object) == list(checkpoint.roots) == ["text_encoder", "unet"]
        assert (checkpoint.format, checkpoint.unopened) == ("submodels", {})
    fresh, expected = layouts.model(7), layouts.model(1)
    statedict.load_state_dict(fresh, folder, root="unet")
    assert not statedict.diff(fresh, expected)
    with pytest.raises(
        RootError, match=r"several state dicts, .*Available: 'text_encoder', 'unet'; choose one with root="
    ):
        statedict.load_state_dict(fresh, folder)


def test_the_plain_weights_win_over_a_variant(tmp_path):
    """If there are plain weights and a variant, the plain ones are read, as in diffusers."""
    pipeline(tmp_path, variant="fp16")
    zeros = {name: value * 0 for name, value in layouts.model(1).state_dict().items()}
    write(tmp_path, {"unet/diffusion_pytorch_model.safetensors": zeros})
    with statedict.open(tmp_path) as checkpoint:
        assert all(np.all(array == 0) for array in checkpoint.state_dict("unet").numpy().values())


def test_a_sharded_model_of_a_pipeline_is_one_root(tmp_path):
    """A sharded model of a pipeline is one root, with an index, or without one for a variant."""
    pipeline(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    state = layouts.model(1).state_dict()
    statedict.save(state, tmp_path / "unet" / "diffusion_pytorch_model.safetensors", max_shard_size=200)
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    with statedict.open(tmp_path) as checkpoint:
        assert not statedict.diff(checkpoint.state_dict("unet"), state)


def test_missing_models_are_named(tmp_path):
    """A model that the index lists and that has no weights is an error of verify, and of its root; the others load."""
    folder = pipeline(tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    write(
        folder, {"model_index.json": {**layouts.PIPELINE, "vae": ["diffusers", "AutoencoderKL"], "x": [1, 2], "y": {}}}
    )
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.unopened) == ["unet", "vae"]
        assert [finding.where for finding in checkpoint.verify() if finding.level == "error"] == ["unet", "vae"]
        for name in ("unet", "vae"):
            with pytest.raises(
                RootError, match=rf"/{name}: model_index\.json lists this model, but its weights are missing"
            ):
                checkpoint.state_dict(name)
        with pytest.raises(RootError, match=r"several state dicts, .*'unet' cannot be read"):
            checkpoint.state_dict()
        assert len(checkpoint.state_dict("text_encoder")) == 9
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(
        FormatError, match=r"text_encoder: model_index\.json lists this model, but its weights are missing"
    ):
        statedict.open(folder)


def test_a_damaged_model_leaves_the_others(tmp_path):
    """The error of its root names the file; the models after it are read."""
    folder = pipeline(tmp_path)
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"x")
    with statedict.open(folder) as checkpoint:
        assert list(checkpoint.unopened) == ["text_encoder"]
        assert not statedict.diff(checkpoint.state_dict("unet"), layouts.model(1))
        with pytest.raises(RootError, match=r"'text_encoder' cannot be read: .*text_encoder/model\.safetensors"):
            checkpoint.state_dict("text_encoder")


def test_a_damaged_index_is_an_error(tmp_path):
    """An index that is not a JSON object, or has a key twice, is refused."""
    folder = pipeline(tmp_path)
    (folder / "model_index.json").write_bytes(b"{")
    with pytest.raises(FormatError, match=r"model_index.json.*: invalid JSON"):
        statedict.open(folder)


def test_the_modules_of_a_sentence_transformer_have_the_names_of_their_folders(tmp_path):
    """The transformer is the model if it is at the top, as newer versions write it; modules without weights are left out."""
    modules = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}]
    dense = {"linear.weight": layouts.model(3).state_dict()["0.weight"]}
    files = {"modules.json": modules, "1_Pooling/config.json": {}, "2_Dense/model.safetensors": dense}
    state = layouts.model(1).state_dict()
    for place, root in (("model.safetensors", "model"), ("0_Transformer/model.safetensors", "0_Transformer")):
        with statedict.open(write(tmp_path / root, {**files, place: state})) as checkpoint:
            assert set(checkpoint.object) == {root, "2_Dense"}
            assert not statedict.diff(checkpoint.state_dict(root), state)
    plain = {"modules.json": modules, "1_Pooling/config.json": {}, "model.safetensors": state}
    with statedict.open(write(tmp_path / "plain", plain)) as checkpoint:
        assert (checkpoint.format, list(checkpoint.roots)) == ("safetensors", [""])


def test_a_trained_sentence_transformer_has_both(tmp_path):
    """A `checkpoint-N` has the modules and the state of the training."""
    folder = layouts.trainer(tmp_path / "checkpoint-4", layouts.Training())
    write(
        folder,
        {"modules.json": [], "2_Dense/model.safetensors": {"linear.weight": layouts.model(3)[0].weight.detach()}},
    )
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"model", "2_Dense", "optimizer", "scheduler", "rng", "trainer_state"}
        assert len(checkpoint.state_dict()) == 9
