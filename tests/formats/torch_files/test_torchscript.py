"""TorchScript archives; torch.jit is the oracle."""

from __future__ import annotations

import io
import warnings
import zipfile

import numpy as np
import pytest
from tests.archives import deflated
from tests.hostile.build import pickles as p
from tests.hostile.build import scripts
from tests.hostile.build.torch_zips import member

from statedict import formats
from statedict.errors import ChecksumError, FormatError
from statedict.state import Leaf, library, materialize

torch = pytest.importorskip("torch")


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.register_buffer("ids", torch.arange(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.plain = torch.ones(2)
        self.listed = [torch.full((1,), 7.0)]
        self.name = "inner"
        self.rate = 0.5

    def forward(self, x):
        return self.linear(x) + self.plain * self.rate


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.norm = torch.nn.BatchNorm1d(2)
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        self.named = torch.nn.ModuleDict({"a-b": torch.nn.Linear(1, 1)})
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1)) for _ in range(2)])
        self.tied = self.inner.linear
        self.narrow = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))

    def forward(self, x):
        return self.layers(self.norm(self.inner(x))) + self.tied(x)


class Lstm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, num_layers=2)

    def forward(self, x):
        return self.lstm(x)[0]


def scripted(model):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(model)


def traced(model):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(model.eval(), torch.ones(4, 3))


def saved(module, **options):
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(module, file, **options)
    return file.getvalue()


def loaded(raw):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.load(io.BytesIO(raw))


def assert_same_state(raw):
    """Our state dict is that of the module that torch loads: names, order, bits and `_metadata`."""
    theirs = loaded(raw).state_dict()
    with formats.open(io.BytesIO(raw)) as checkpoint:
        assert checkpoint.format == "torchscript"
        assert checkpoint.dangerous == []
        assert [finding for finding in checkpoint.verify() if finding.level == "error"] == []
        ours = checkpoint.state_dict()
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            leaf = ours.leaf(name)
            [array] = materialize([leaf], library("numpy"))
            assert (f"torch.{leaf.spec.dtype}", leaf.spec.shape) == (str(value.dtype), tuple(value.shape))
            assert array.tobytes() == bytes(value.detach().contiguous().reshape(-1).view(torch.uint8).tolist())
        return ours


@pytest.mark.parametrize("compile", [scripted, traced])
@pytest.mark.parametrize("model", [Net, Inner, Lstm])
@pytest.mark.parametrize("pack", [lambda raw: raw, deflated], ids=["as saved", "compressed"])
def test_the_state_dict_is_that_of_torch(compile, model, pack):
    """Scripted and traced modules, nested, shared and in containers, have torch's names in torch's order."""
    torch.manual_seed(0)
    assert_same_state(pack(saved(compile(model()))))


def test_ties_are_found():
    """A module under two names is tied under both."""
    tied = assert_same_state(saved(scripted(Net()))).tied
    assert {"inner.linear.weight", "tied.weight"} in map(set, tied)


def test_attributes_are_values_and_never_in_the_state():
    """Plain tensors, lists and numbers are in the tree; lists come out of the call that types them."""
    with formats.open(io.BytesIO(saved(scripted(Inner())))) as checkpoint:
        attributes = checkpoint.object.attributes()
        assert isinstance(attributes["plain"], Leaf)
        assert isinstance(attributes["listed"], list)
        assert attributes["name"] == "inner"
        assert attributes["rate"] == 0.5


def test_a_frozen_module_gives_its_constants():
    """Freezing moves weights into the code's constants; they are there all the same."""
    torch.manual_seed(0)
    model = scripted(Net().eval())
    with warnings.catch_warnings(action="ignore"):
        frozen = saved(torch.jit.freeze(model))
    with formats.open(io.BytesIO(frozen)) as checkpoint:
        assert list(loaded(frozen).state_dict()) == []
        constants = checkpoint.object.attributes()["constants.pkl"]
        arrays = materialize([value for value in constants if isinstance(value, Leaf)], library("numpy"))
    wanted = model.state_dict()["layers.0.weight"].numpy()
    assert any(np.array_equal(array, wanted) or np.array_equal(array.T, wanted) for array in arrays)


def test_extra_files_and_empty_records_are_accepted():
    """Archives may contain other files beside the module, empty members included."""
    raw = saved(scripted(Inner()), _extra_files={"note.txt": b"hello", "empty.bin": b""})
    assert_same_state(raw)


def test_a_custom_class_is_opaque():
    """An attribute of a TorchScript class that is not a module is an Opaque value."""

    pair = scripts.instance("Pair", a=p.tensor())
    net = scripts.instance("Net", w=p.tensor(), b=p.tensor(), x=pair)
    with formats.open(io.BytesIO(scripts.script(p.pickled(net)))) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w", "b"]
        assert checkpoint.object.attributes()["x"].path == "__torch__.Pair"


def test_classes_without_a_list_of_buffers_are_older_than_pytorch_1_5():
    """In their modules every tensor that is not a parameter is a buffer."""
    code = scripts.CODE.replace(b'  __buffers__ = ["b", ]\n', b"") + scripts.CHILD
    with formats.open(io.BytesIO(scripts.script(code=code))) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w", "b", "x", "child.w"]


def test_an_archive_without_its_code_still_has_its_tensors():
    """Without its code, an archive's state has every tensor attribute."""
    with formats.open(io.BytesIO(scripts.script(code=b""))) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w", "b", "x", "child.w"]


def test_a_changed_byte_in_the_code_is_noticed():
    """Source members have checksums too."""
    raw = scripts.script()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        info = archive.getinfo("archive/code/__torch__.py")
    at = info.header_offset + 30 + len(info.filename) + 4
    with pytest.raises((ChecksumError, FormatError)):
        formats.open(io.BytesIO(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]))


def test_a_module_inside_itself_has_its_names_once():
    """A cycle of modules does not give names without end."""
    net = p.name("__torch__", "Net") + b")\x81" + p.put(0)
    looped = p.pickled(p.build(net, p.dict_((p.text("w"), p.tensor()), (p.text("child"), p.get(0)))))
    with formats.open(io.BytesIO(scripts.script(looped))) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w"]


def test_modules_shared_again_and_again_cost_no_more_than_the_file():
    """Sixty levels of a module that holds the next one twice have 2**60 names, and are refused."""
    level = scripts.instance("Child", w=p.tensor())
    for slot in range(60):
        level = level + p.put(slot) + b"0" + scripts.instance("Net", a=p.get(slot), b=p.get(slot))
    checkpoint = formats.open(io.BytesIO(scripts.script(p.pickled(level))))
    with pytest.raises(FormatError, match="modules are nested in each other in more than"):
        checkpoint.state_dict()


def test_evil_code_is_only_text():
    """The code in the archive is not compiled or run."""
    code = b"import os\nos.system('touch statedict-ran')\n" + scripts.CODE + scripts.CHILD
    with formats.open(io.BytesIO(scripts.script(code=code, first=[member("code/setup.py", b"1/0")]))) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w", "b", "child.w"]


@pytest.mark.real
def test_a_published_archive_is_read_as_torch_reads_it(package):
    """A speech detector out of a package: scripted, quantities of code, constants."""
    assert_same_state((package("silero-vad==5.1.2") / "silero_vad/data/silero_vad.jit").read_bytes())
