"""Archives whose members are files of a checkpoint: Stable-Baselines3's zips, `.mar`, `.nemo`."""

from __future__ import annotations

import zipfile

import pytest
import torch
from tests.formats.folders import layouts
from tests.formats.folders.layouts import Training

import statedict
from statedict.errors import FormatError, RootError, UnknownFormatError


def test_a_zip_of_stable_baselines_has_a_root_for_each_file(tmp_path):
    """The policy and its optimizer are loaded without naming a root; the plain values at `data` are those not pickled."""
    training = Training()
    path = layouts.sb3(tmp_path / "ppo.zip", training)
    with statedict.open(path) as checkpoint:
        assert checkpoint.format == "stable-baselines3"
        assert checkpoint.producer == "Stable-Baselines3 2.9.2"
        assert set(checkpoint.object) == {"policy", "policy.optimizer", "pytorch_variables", "data"}
        assert checkpoint.object["data"] == {"gamma": 0.99, "num_timesteps": 32}
        assert checkpoint.verify() == []
    fresh = Training(seed=7)
    statedict.load_state_dict(fresh.model, path)
    statedict.load_state_dict(fresh.optimizer, path)
    assert not statedict.diff(fresh.model, training.model)
    expected = training.optimizer.state_dict()
    assert fresh.optimizer.state_dict()["param_groups"] == expected["param_groups"]
    assert torch.equal(fresh.optimizer.state_dict()["state"][0]["exp_avg"], expected["state"][0]["exp_avg"])


def test_an_unpacked_zip_of_stable_baselines_is_the_same(tmp_path):
    """The members as files of a folder have the same roots."""
    path = layouts.sb3(tmp_path / "ppo.zip", Training())
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    with statedict.open(path) as packed, statedict.open(tmp_path / "unpacked") as unpacked:
        assert list(packed.roots) == list(unpacked.roots)
        assert not statedict.diff(packed.state_dict("policy"), unpacked.state_dict("policy"))


def test_a_damaged_member_leaves_the_others(tmp_path):
    """A damaged member is named with the archive, and the rest loads."""
    path = layouts.sb3(tmp_path / "ppo.zip", Training())
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("policy.optimizer.pth")
    raw[info.header_offset + 100 : info.header_offset + info.file_size] = bytes(info.file_size - 100)
    path.write_bytes(raw)
    with statedict.open(path) as checkpoint:
        assert list(checkpoint.unopened) == ["policy.optimizer"]
        assert len(checkpoint.state_dict("policy")) == 9
        with pytest.raises(RootError, match=r"ppo\.zip/policy\.optimizer\.pth"):
            checkpoint.state_dict("policy.optimizer")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_model_archive_is_its_weights(tmp_path, compression):
    """The member with the weights is read in place if it is stored, and decompressed if it is small."""
    state = layouts.model(1).state_dict()
    with statedict.open(layouts.mar(tmp_path / "m.mar", state, compression)) as checkpoint:
        assert not statedict.diff(checkpoint.state_dict(), state)


def test_a_large_compressed_member_is_not_decompressed(tmp_path):
    """A large compressed member is refused, because it would be held in memory; the error says what to do."""
    path = layouts.mar(tmp_path / "m.mar", {"w": torch.zeros(1 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(
        FormatError, match=r"m\.mar: model\.pt: this member is compressed \(unpack the archive, and open"
    ):
        statedict.open(path)


def test_a_nemo_file_is_its_weights(tmp_path):
    """The weights in a tar are read in place."""
    state = layouts.model(1).state_dict()
    with statedict.open(layouts.nemo(tmp_path / "m.nemo", state)) as checkpoint:
        assert not statedict.diff(checkpoint.state_dict(), state)
    with pytest.raises(UnknownFormatError, match=r"tar archive, but not a checkpoint; its members: model_config.yaml"):
        statedict.open(layouts.tar(tmp_path / "m.tar", {"./model_config.yaml": b"a: 1"}))


def test_an_archive_reads_a_file_object(tmp_path):
    """The archive need not have a path."""
    path = layouts.sb3(tmp_path / "ppo.zip", Training())
    with path.open("rb") as file, statedict.open(file) as checkpoint:
        assert len(checkpoint.state_dict()) == 9
