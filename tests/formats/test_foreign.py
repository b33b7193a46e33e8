"""Checkpoints of trainers whose classes no longer exist: the tensors load, and the rest can be inspected."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from statedict import formats
from statedict.state import Leaf, Opaque, library, materialize

torch = pytest.importorskip("torch")
HERE = Path(__file__).with_name("foreign")
KINDS = ["zip", "legacy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that foreign/make.py writes, by code that is deleted afterwards."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("project.py", "make.py"):
        shutil.copy(HERE / name, folder / name)
    subprocess.run([sys.executable, "-W", "ignore", "make.py", str(folder)], cwd=folder, check=True, timeout=120)
    for name in ("project.py", "make.py"):
        (folder / name).unlink()
    return folder


def array(leaf):
    [made] = materialize([leaf], library("numpy"))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_lightning_checkpoint_opens(folder, kind):
    """Its state dict is the root; callbacks, schedulers and hyper-parameters of unknown classes are data."""
    with formats.open(folder / f"lightning.{kind}") as checkpoint:
        state = checkpoint.state_dict()
        assert list(state)[:2] == ["model.0.weight", "model.0.bias"]
        assert {"state_dict"} <= set(checkpoint.roots)
        assert checkpoint.dangerous == []
        assert checkpoint.object["epoch"] == 3
        callback = checkpoint.object["callbacks"]["ModelCheckpoint{'monitor': 'loss'}"]
        assert array(callback["best_model_score"]) == 0.25
        hyper = checkpoint.object["hyper_parameters"]
        assert isinstance(hyper, Opaque)
        assert hyper.path == "project.AttributeDict"
        found = {pair.key: pair.value for pair in hyper.items}
        assert found["config"].attributes()["width"] == 8
        child = found["node"].attributes()["_content"]["child"]
        assert child.attributes()["_parent"] is found["node"]
        assert array(child.attributes()["_content"][2]).tolist() == [1, 1, 1]
        assert [finding for finding in checkpoint.verify(values=True) if finding.level == "error"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_nested_trainer_checkpoint_opens(folder, kind):
    """Every state dict in it is a root by its path, and values of the standard library and NumPy are themselves."""
    with formats.open(folder / f"trainer.{kind}") as checkpoint:
        assert {"checkpoint/model", "checkpoint/ema/state_dict"} <= set(checkpoint.roots)
        saved = checkpoint.object
        assert checkpoint.dangerous == []
        assert saved["best"] == 0.5
        assert saved["saved"].year == 2024
        assert str(saved["where"]) == "runs/1"
        name, keys, position, *_ = saved["rng"]["numpy"]
        assert name == "MT19937"
        assert np.array_equal(array(keys) if isinstance(keys, Leaf) else keys, np.random.RandomState(0).get_state()[1])
        assert position == 624
        assert array(saved["rng"]["torch"]).dtype == np.uint8
        assert [path for path, _ in formats.tensors(saved) if "slotted" in path]
        assert saved["points"][0].args == (1.0, 2.0)
        assert {named.path for named in checkpoint.globals} >= {"project.rebuild_frame", "project.Point"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_are_those_that_torch_loads(folder, kind):
    """Every tensor of a trainer's file that torch can be made to read is equal to ours."""
    names = ["model", "ema"]
    plain = torch.load(folder / f"trainer.{kind}", weights_only=False, pickle_module=_Stubs)
    with formats.open(folder / f"trainer.{kind}") as checkpoint:
        ours = checkpoint.object["checkpoint"]
        theirs = plain["checkpoint"]
        for name in names:
            a = theirs[name] if name == "model" else theirs[name]["state_dict"]
            b = ours[name] if name == "model" else ours[name]["state_dict"]
            assert list(a) == list(b)
            for key in a:
                assert np.array_equal(a[key].numpy(), array(b[key]))


class _Stubs:
    """A pickle module for torch.load that gives a stand-in for every class of the project."""

    import pickle as _pickle

    loads = staticmethod(_pickle.loads)
    load = staticmethod(_pickle.load)

    class Unpickler(_pickle.Unpickler):
        def find_class(self, module, name):
            return _StubType(name, (_Stub,), {}) if module == "project" else super().find_class(module, name)


class _StubType(type):
    """Gives stand-ins any member: before Python 3.11.4 an enum member is pickled as an attribute of its class."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls()


class _Stub:
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        self.built = args

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value): ...

    def append(self, value): ...

    def extend(self, values): ...


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_gives_its_state_dict(folder, kind):
    """A pickled module whose class is gone has the names, order, values, ties and buffers that its state dict had."""
    with formats.open(folder / f"module.{kind}") as checkpoint:
        ours = checkpoint.state_dict().numpy()
        assert checkpoint.dangerous == []
        theirs = torch.load(folder / "module-state.pt")
        assert list(ours) == list(theirs)
        assert ("encoder.0.weight", "tied.weight") in ours.tied
        assert ours._metadata == theirs._metadata
        for name, value in theirs.items():
            assert np.array_equal(ours[name], value.numpy())
