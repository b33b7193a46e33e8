"""`.pt2` packages of torch.export and AOTInductor; torch.export.load is the oracle, of older layouts too."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from tests.archives import packed, unpacked

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FormatError, UnknownFormatError
from statedict.state import Absent, Compound, Opaque

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


class Net(torch.nn.Module):
    """Tied, transposed, empty and narrow parameters, buffers of both kinds, and two kinds of constants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.second = torch.nn.Linear(3, 4)
        self.second.weight = self.first.weight
        self.turned = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).t())
        self.narrow = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False)
        self.empty = torch.nn.Parameter(torch.empty(0, 3))
        self.register_buffer("eight", torch.arange(3.0).to(torch.float8_e4m3fn))
        self.register_buffer("slice", torch.arange(8.0)[2:6])
        self.register_buffer("scratch", torch.arange(4.0), persistent=False)
        self.plain = torch.arange(3.0)

    def forward(self, x):
        y = self.norm(self.first(x)) + self.second(x) + self.scratch + self.slice + torch.tensor([7.0])
        return (
            y + self.turned.sum() + self.narrow.sum() + self.empty.sum() + self.plain.sum() + self.eight.float().sum()
        )


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(1)
    return torch.export.export(Net().eval(), (torch.randn(2, 3),))


@pytest.fixture(scope="module")
def raw(program):
    """The bytes of a package that this PyTorch writes."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"note.txt": "hello"})
    return file.getvalue()


@pytest.fixture(scope="module")
def latest(raw):
    """The same, if it has the layout of PyTorch 2.9."""
    if torch.__version__ < (2, 9):
        pytest.skip("PyTorch writes this layout from 2.9 on")
    return raw


def opened(raw):
    return formats.open(io.BytesIO(raw))


def same(found, expected):
    """Whether two tensors have the same type, shape, strides and bytes."""
    facts = [(type(t), t.dtype, t.shape, t.stride(), t.requires_grad) for t in (found, expected)]
    one, other = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found, expected))
    return facts[0] == facts[1] and torch.equal(one, other)


def check(raw, program):
    """Raise AssertionError unless `load` gives what torch.export.load gives."""
    found = statedict.load(io.BytesIO(raw))
    assert set(found["state_dict"]) == set(program.state_dict)
    assert all(same(found["state_dict"][name], value) for name, value in program.state_dict.items())
    assert set(found["constants"]) == set(program.constants)
    assert all(same(found["constants"][name], value) for name, value in program.constants.items())
    (args, kwargs), (expected, _) = found["example_inputs"], program.example_inputs
    assert len(args) == len(expected)
    assert all(map(torch.equal, args, expected))
    assert kwargs == {}


def flat(program, suffix=".pt"):
    """The layout of PyTorch 2.1 (suffix .json) to 2.7."""
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    artifact = serialize(program)
    return {
        "serialized_exported_program.json": artifact.exported_program,
        f"serialized_state_dict{suffix}": artifact.state_dict,
        f"serialized_constants{suffix}": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
        "version": ".".join(map(str, SCHEMA_VERSION)),
        "extra_files/note.txt": "hello",
    }


def eight(program, raw):
    """The layout of PyTorch 2.8."""
    from torch._export.serde.serialize import serialize

    artifact = serialize(program)
    (top,) = {name.partition("/")[0] for name in unpacked(raw)}
    kept = {n: d for n, d in unpacked(raw).items() if "/data/weights/" not in n and "/data/constants/" not in n}
    return {
        f"{top}/data/weights/model.pt": artifact.state_dict,
        f"{top}/data/constants/model.pt": artifact.constants,
        **kept,
    }


def test_a_package_is_read_as_torch_export_load_reads_it(raw):
    """Names, values, strides, Parameters and flags are those of the ExportedProgram; the extra files are metadata."""
    check(raw, torch.export.load(io.BytesIO(raw)))
    with opened(raw) as checkpoint:
        assert (checkpoint.format, checkpoint.producer) == ("pt2", "torch.export")
        assert list(checkpoint.roots) == ["state_dict", "constants"]
        assert checkpoint.state_dict().tied == [("first.weight", "second.weight")]
        assert checkpoint.texts == {"note.txt": "hello"}
        assert checkpoint.verify() == []
        assert checkpoint.dangerous == []


@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_packages_before_2_8_are_read(program, suffix):
    """Packages of PyTorch before 2.8, files of torch.save without a folder, are read as torch.export.load does."""
    raw = packed(flat(program, suffix))
    check(raw, torch.export.load(io.BytesIO(raw)))
    with opened(raw) as checkpoint:
        assert checkpoint.texts == {"note.txt": "hello"}
        assert checkpoint.verify() == []


def test_packages_of_2_8_are_read(program, latest):
    """Packages of 2.8, whose weights and constants are one file of torch.save each, are read."""
    made = packed(eight(program, latest))
    check(made, torch.export.load(io.BytesIO(made)))


def test_packages_that_were_compressed_again_are_read(program):
    """Deflated members are decompressed within the limits."""
    check(packed(flat(program), zipfile.ZIP_DEFLATED), program)


def test_a_module_loads_from_its_packed(raw, tmp_path):
    """`load_state_dict` fills the module that was exported, and `convert` writes its state dict."""
    from statedict.cli import main

    path = tmp_path / "m.pt2"
    path.write_bytes(raw)
    expected = torch.export.load(path).state_dict
    module = Net()
    missing, unexpected = statedict.load_state_dict(module, path)
    assert not missing
    assert not unexpected
    assert all(torch.equal(value.float(), expected[name].float()) for name, value in module.state_dict().items())
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(path), str(tmp_path / "m.safetensors")])
    assert ended.value.code in (0, None)
    with statedict.open(tmp_path / "m.safetensors") as converted:
        assert set(converted.state_dict()) == set(expected)


def test_a_module_without_parameters_has_an_empty_state_dict():
    """If a module has no parameters, its state dict is empty, and its constants are not taken for it."""

    class Nothing(torch.nn.Module):
        def forward(self, x):
            return x + torch.tensor([1.0])

    file = io.BytesIO()
    torch.export.save(torch.export.export(Nothing(), (torch.ones(1),)), file)
    with opened(file.getvalue()) as checkpoint:
        assert list(checkpoint.state_dict()) == []
        assert list(checkpoint.roots["constants"]) == ["lifted_tensor_0"]


@pytest.mark.usefixtures("latest")
def test_several_programs_have_their_roots_below_their_names(program):
    """`package_pt2` can write several programs into one file."""
    from torch.export.pt2_archive._package import package_pt2

    other = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    file = io.BytesIO()
    package_pt2(file, exported_programs={"encoder": program, "head": other})
    with opened(file.getvalue()) as checkpoint:
        assert list(checkpoint.roots) == [
            "encoder/state_dict", "encoder/constants", "head/state_dict",
        ]  # fmt: skip
        assert list(checkpoint.state_dict("head/state_dict")) == ["weight", "bias"]


@pytest.mark.usefixtures("latest")
def test_weights_that_were_fake_have_no_values():
    """A program exported under FakeTensorMode stores shapes only; its tensors are like those of the meta device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        module, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
        fake = torch.export.export(module, (x,))
    file = io.BytesIO()
    torch.export.save(fake, file)
    with opened(file.getvalue()) as checkpoint:
        weight = checkpoint.object["state_dict"]["weight"]
        assert isinstance(weight, Compound)
        assert (weight.layout, weight.shape) == ("meta", (2, 3))


@pytest.mark.usefixtures("latest")
def test_weights_of_aotinductor_are_read(program):
    """A compiled model with its weights on disk: views by name of tensors that torch.save wrote."""
    from torch.export.pt2_archive._package import package_pt2
    from torch.export.pt2_archive._package_weights import TensorProperties, Weights

    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "row": whole[1], "turned": whole.t(), "other": torch.arange(3)}
    weights = Weights({name: (tensor, TensorProperties(tensor)) for name, tensor in tensors.items()})
    file = io.BytesIO()
    package_pt2(file, aoti_files={"model": [weights]})
    found = statedict.load(io.BytesIO(file.getvalue()))["weights"]
    assert {name: value.tolist() for name, value in found.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_compiled_code_without_weights_is_named():
    """The error lists the members and says how to get at the weights."""
    raw = packed({"data/aotinductor/model/a.so": b"\x7fELF", "archive_format": b"pt2", "version": b"1"})
    with pytest.raises(
        UnknownFormatError, match=r"contains no tensors; its members: data/aotinductor/model/a\.so.*torch\.save"
    ):
        opened(raw)


def test_pickled_payloads_are_data(latest):
    """Objects and tensors of other classes are pickles in the archive: nothing that they name is imported."""
    members = unpacked(latest)
    config = next(name for name in members if name.endswith("constants_config.json"))
    entries = json.loads(members[config])
    entries["config"]["thing"] = {
        "path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None,
    }  # fmt: skip
    members[config] = json.dumps(entries).encode()
    folder = config.rpartition("/")[0]
    members[f"{folder}/opaque_obj_0"] = b"cos\nsystem\n(S'exit 1'\ntR."
    with opened(packed(members)) as checkpoint:
        assert isinstance(checkpoint.object["constants"]["thing"], Opaque)
        assert checkpoint.dangerous == ["os.system"]


def changed(raw, change, name="weights_config.json"):
    """The package with its configuration changed."""
    members = unpacked(raw)
    config = next(each for each in members if each.endswith(name))
    entries = json.loads(members[config])
    change(entries["config"])
    members[config] = json.dumps(entries).encode()
    return packed(members)


def meta(**fields):
    return lambda config: config["first.bias"]["tensor_meta"].update(fields)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (meta(dtype=99), "its dtype has the unknown number 99"),
        (meta(dtype="7"), "its dtype has the unknown number '7'"),
        (meta(layout=1), r"its layout has the number 1; only strided tensors \(7\)"),
        (meta(sizes=[{"as_int": 5}]), "reaches 20 bytes into a storage of 16"),
        (meta(sizes=[{"as_int": -1}]), "not a non-negative integer"),
        (meta(sizes=4), "expected a list, found 4"),
        (meta(sizes=[4]), "expected a dict, found 4"),
        (meta(sizes=[{"as_int": 1 << 62}], strides=[{"as_int": 0}]), "more than can be addressed|elements"),
        (meta(strides=[]), "1 sizes but 0 strides"),
        (meta(strides=[{"as_int": 2}]), "reaches 28 bytes into a storage of 16"),
        (meta(storage_offset={"as_int": 1}), "reaches 20 bytes into a storage of 16"),
        (meta(storage_offset={"as_int": -1}), "its offset is not a non-negative integer"),
        (meta(storage_offset={"as_expr": {"expr_str": "s0"}}), "expected a dict, found None"),
        (lambda config: config["first.bias"].update(tensor_meta=None), "expected a dict, found None"),
        (lambda config: config["first.bias"].update(path_name="../../m"), "missing"),
        (lambda config: config["first.bias"].update(path_name="model_weights_config.json"), "should begin with 'weight_'"),
        (lambda config: config["first.bias"].update(path_name=7), "expected a str, found 7"),
        (lambda config: config.update({"first.bias": []}), "expected a dict, found a list"),
    ],
)  # fmt: skip
def test_a_configuration_that_contradicts_the_members_is_refused(latest, change, problem):
    """The error names the tensor; nothing outside its member can be reached."""
    with pytest.raises(FormatError, match=problem) as caught, opened(changed(latest, change)) as checkpoint:
        statedict.load_state_dict(Net(), checkpoint)
    assert "first.bias" in str(caught.value)


def test_a_hint_of_a_symbolic_size_is_used(latest):
    """As in PyTorch, a size that is an expression has the value of its hint."""
    symbolic = [{"as_expr": {"expr_str": "s0", "hint": {"as_int": 4}}}]
    with opened(changed(latest, meta(sizes=symbolic))) as checkpoint:
        assert checkpoint.state_dict().spec("first.bias").shape == (4,)


def test_a_missing_member_is_named_and_the_rest_loads(latest):
    """The tensors of a missing member are absent; the error for one names the member."""
    members = unpacked(latest)
    lost = next(name for name in members if name.endswith("/weight_0"))
    del members[lost]
    with opened(packed(members)) as checkpoint:
        state = checkpoint.state_dict()
        (name,) = [name for name, leaf in state.leaves() if isinstance(leaf, Absent)]
        with pytest.raises(FormatError, match=f"{lost}.*missing"):
            dict(state.numpy())
        assert len(dict(state.drop(name).numpy())) == len(state) - 1


def test_damage_is_detected(latest):
    """Each tensor is checked against the CRC of its member, and `verify` names both."""
    with opened(latest) as checkpoint:
        leaf = checkpoint.object["state_dict"]["first.bias"]
        at = leaf.storage.where.offset
    damaged = bytearray(latest)
    damaged[at] ^= 1
    with opened(bytes(damaged)) as checkpoint:
        assert [(f.level, f.where) for f in checkpoint.verify()] == [("error", "state_dict/first.bias")]
        with pytest.raises(ChecksumError, match=r"first\.bias"):
            dict(checkpoint.state_dict().numpy())


def test_damaged_inputs_do_not_prevent_loading(program, latest):
    """A root other than the state dict that cannot be read is left out, and `verify` says why."""
    members = unpacked(latest)
    inputs = next(name for name in members if "sample_inputs" in name)
    members[inputs] = members[inputs][:100]
    with opened(packed(members)) as checkpoint:
        assert list(checkpoint.object) == ["state_dict", "constants"]
        assert list(checkpoint.unopened) == ["example_inputs"]
        assert [(f.level, f.where) for f in checkpoint.verify()] == [("error", "example_inputs")]


def test_big_endian_payloads_are_turned(latest):
    """The member `byteorder` says in which order the bytes of the payloads are."""
    members = {}
    for name, data in unpacked(latest).items():
        turned = np.frombuffer(data, ">f4").astype("<f4").tobytes() if name.endswith("/weight_4") else data
        members[name] = b"big" if name.endswith("byteorder") else turned
    with opened(latest) as plain, opened(packed(members)) as checkpoint:
        member = "weight_4"
        named = {n: leaf.storage.where.member for n, leaf in plain.state_dict().leaves()}
        (name,) = [n for n, found in named.items() if found.endswith(f"/{member}")]
        assert checkpoint.state_dict().select(name).numpy()[name].tolist() == plain.state_dict().numpy()[name].tolist()


def test_an_archive_that_torch_load_can_read_is_a_file_of_torch_save():
    """A member `archive_format` beside `data.pkl` does not hide what PyTorch would load."""
    file = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, file)
    members = unpacked(file.getvalue())
    with opened(packed({**members, "archive/archive_format": b"pt2"})) as checkpoint:
        assert checkpoint.format == "torch"
