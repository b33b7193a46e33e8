"""Every kind of tensor that torch saves comes back as the leaf or compound that it is, with the elements it had."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from tests.hostile.build import pickles as p

from statedict.errors import FormatError
from statedict.formats._pickle import Size, TorchConstant, TypedStorage, parse
from statedict.state import DTYPES, Compound, Leaf, Opaque, read_array

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:.*([Ss]parse|nested tensors|quantiz|ComplexHalf)"),
]

FLOATING = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
COMPLEX_AND_WHOLE = "complex128 complex64 complex32 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("name", [*FLOATING.split(), *COMPLEX_AND_WHOLE.split()])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 3), (1, 1, 1, 2, 2)], ids=str)
def test_every_dtype_and_shape(saved, name, shape):
    """A strided tensor of every dtype and rank is a leaf with its spec and elements."""
    torch.manual_seed(0)
    tensor = (torch.rand(shape) * 4).to(getattr(torch, name))
    leaf = saved({"t": tensor}).parse().value["t"]
    assert leaf.spec == (DTYPES[name], shape, tensor.stride(), 0)
    assert read_array(leaf).tobytes() == raw(tensor)


def test_views_lie_in_their_storage(saved):
    """Slices, transposes and expansions are specs over one storage."""
    whole = torch.arange(12.0).view(3, 4)
    views = {
        "whole": whole,
        "row": whole[1],
        "column": whole[:, 2],
        "turned": whole.T,
        "wide": whole[:, :1].expand(3, 5),
    }
    found = saved(views).parse().value
    assert len({leaf.storage.key for leaf in found.values()}) == 1
    for name, view in views.items():
        assert found[name].spec[1:] == (view.shape, view.stride(), view.storage_offset())
        assert (read_array(found[name]) == view.numpy()).all()


def test_parameters_and_flags(saved):
    """Parameters, requires_grad, and the lazy conjugate and negative bits are traits."""
    complex_ = torch.tensor([1 + 2j, 3 - 1j])
    values = {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "tracked": torch.ones(2, requires_grad=True),
        "conj": complex_.conj(),
        "neg": complex_.conj().imag,
    }
    found = {name: saved({name: value}).parse().value[name] for name, value in values.items()}
    assert {name: leaf.traits[:4] for name, leaf in found.items()} == {
        "parameter": (True, True, False, False),
        "frozen": (True, False, False, False),
        "tracked": (False, True, False, False),
        "conj": (False, False, True, False),
        "neg": (False, False, False, True),
    }
    assert read_array(found["conj"]).tolist() == complex_.conj().tolist()
    assert read_array(found["neg"]).tolist() == complex_.conj().imag.tolist()


FOUR, ONE, ZERO = p.integers((4,)), p.integers((1,)), p.integer(0)
SQUARE, DENSE = p.integers((2, 2)), p.integers((2, 1))
FLOATS = p.name("torch", "float32")
PER_TENSOR = p.tuple_(p.name("torch", "per_tensor_affine"), p.real(0.5), ZERO)
BY_CHANNEL = p.name("torch", "per_channel_affine")


def rebuild(function: str, *arguments: bytes) -> bytes:
    return p.call(p.name("torch._utils", function), *arguments)


def layout(name: str) -> bytes:
    return p.call(p.name("torch.serialization", "_get_layout"), p.text(f"torch.{name}"))


class Tagged(torch.Tensor):
    """A subclass that anybody could have."""


def test_subclasses_and_attributes(saved):
    """A tensor subclass is its plain tensor with a name, and Python attributes are kept."""
    plain, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(2))
    plain.note, parameter.partition = "x", {"dim": 1}
    found = saved([plain, parameter, torch.ones(2).as_subclass(Tagged)]).parse().value
    assert found[0].traits.attributes == {"note": "x"}
    assert (found[1].traits.parameter, found[1].traits.attributes) == (True, {"partition": {"dim": 1}})
    assert found[2].traits.subclass == f"{__name__}.Tagged"


def test_sparse_tensors(saved):
    """COO and compressed tensors are compounds of their parts."""
    dense = torch.tensor([[0, 1.0, 0, 2], [3, 0, 0, 0]])
    made = {
        "sparse_coo": dense.to_sparse(),
        "sparse_csr": dense.to_sparse_csr(),
        "sparse_csc": dense.to_sparse_csc(),
        "sparse_bsr": dense.to_sparse_bsr((2, 2)),
        "sparse_bsc": dense.to_sparse_bsc((2, 2)),
    }
    for layout, tensor in made.items():
        found = saved([tensor]).parse().value[0]
        assert (found.layout, found.dtype.name, found.shape) == (layout, "float32", (2, 4))
        assert read_array(found.parts["values"]).tolist() == tensor.values().tolist()
    assert saved([made["sparse_coo"]]).parse().value[0].facts == {"coalesced": True}


def test_quantised_tensors(saved):
    """Quantised tensors are compounds with their scheme, whole or by channel, packed or not."""
    floats = torch.tensor([[-1.0, 0, 1], [2, 3, 4]])
    one = saved([torch.quantize_per_tensor(floats, 0.5, 3, torch.qint8)]).parse().value[0]
    assert one.facts == {"scheme": "per_tensor_affine", "scale": 0.5, "zero_point": 3}
    assert read_array(one.parts["values"]).tolist() == [[1, 3, 5], [7, 9, 11]]
    channels = torch.quantize_per_channel(floats, torch.tensor([0.5, 1]), torch.tensor([0, 1]), 0, torch.qint32)
    many = saved([channels]).parse().value[0]
    assert (many.facts, many.dtype.name) == ({"scheme": "per_channel_affine", "axis": 0}, "qint32")
    assert read_array(many.parts["zero_points"]).tolist() == [0, 1]
    real = torch.quantize_per_channel(floats, torch.tensor([0.5, 1]), torch.tensor([0.25, 1]), 0, torch.quint4x2)
    packed = saved([real]).parse().value[0]
    assert packed.facts == {"scheme": "per_channel_affine_float_qparams", "axis": 0}
    assert (packed.shape, packed.parts["values"].spec.shape) == ((2, 3), (real.untyped_storage().nbytes(),))


def test_nested_and_meta_tensors(saved):
    """Nested tensors are compounds of their buffers; meta tensors have a shape and nothing else."""
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(1, 3)])
    found = saved([nested, torch.empty_strided((2, 3), (1, 2), device="meta", dtype=torch.float16)]).parse().value
    assert (found[0].layout, read_array(found[0].parts["sizes"]).tolist()) == ("nested", [[2, 3], [1, 3]])
    assert (found[1].layout, found[1].dtype.name, found[1].shape, found[1].facts) == (
        "meta",
        "float16",
        (2, 3),
        {"strides": (1, 2)},
    )
    assert found[1].nbytes == 0


def test_constants_and_storages(saved):
    """Sizes, dtypes, devices, layouts, qschemes and bare storages are inert values of their own."""
    values = [
        torch.Size([2, 3]),
        torch.bfloat16,
        torch.device("cuda:1"),
        torch.device("cpu"),
        torch.sparse_csr,
        torch.per_tensor_affine,
    ]
    assert saved(values).parse().value == [
        Size((2, 3)),
        DTYPES["bfloat16"],
        TorchConstant("device", "cuda:1"),
        TorchConstant("device", "cpu"),
        TorchConstant("layout", "sparse_csr"),
        TorchConstant("qscheme", "per_tensor_affine"),
    ]
    untyped = saved(torch.ones(2).untyped_storage()).parse().value
    assert (type(untyped), untyped.dtype, untyped.numel) == (TypedStorage, None, 8)
    assert read_array(untyped.leaf()).tobytes() == np.ones(2, "f4").tobytes()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_hold_legacy_files(storages, protocol):
    """A tensor in a `pickle.dump` contains a whole torch.save file, which is read by `nested`."""
    data = pickle.dumps({"w": torch.arange(4.0)}, protocol)
    seen = []

    def nested(raw):
        seen.append(torch.load(io.BytesIO(raw), weights_only=False).tolist())
        return parse(p.storage(numel=4) + b".", storage=storages())

    found = parse(data, storage=None, nested=nested)
    assert found.value["w"].spec.shape == (4,)
    assert seen == [[0, 1, 2, 3]]
    assert found.dangerous == []
    closed = parse(data, storage=None)
    assert closed.dangerous == ["torch.storage._load_from_bytes"]
    assert isinstance(closed.value["w"], Opaque)


def test_whole_modules_are_opaque(saved):
    """A module pickled whole is an Opaque with its stores as data."""
    found = saved(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))).parse()
    assert found.dangerous == []
    children = found.value.attributes()["_modules"]
    assert [child.path for child in children.values()] == [
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.batchnorm.BatchNorm1d",
    ]
    assert isinstance(children["0"].attributes()["_parameters"]["weight"], Leaf)
    assert children["0"].attributes()["_parameters"]["weight"].traits.parameter


OLD = {
    "FloatTensor and BUILD": p.build(
        p.name("torch", "FloatTensor") + b")R", p.tuple_(p.storage(), ZERO, SQUARE, DENSE)
    ),
    "Tensor and BUILD": p.build(p.name("torch", "Tensor") + b")\x81", p.tuple_(p.storage(), ZERO, SQUARE, DENSE)),
    "cuda tensor": p.build(
        p.name("torch.cuda", "FloatTensor") + b")R", p.tuple_(p.storage(location="cuda:0"), ZERO, SQUARE, DENSE)
    ),
    "_rebuild_tensor": rebuild("_rebuild_tensor", p.storage(), ZERO, SQUARE, DENSE),
}


@pytest.mark.parametrize("name", OLD)
def test_tensors_of_old_torch(read, name):
    """What torch 0.1 to 0.3 wrote for a tensor is the same leaf."""
    leaf = read(OLD[name] + b".").value
    assert leaf.spec == (DTYPES["float32"], (2, 2), (2, 1), 0)


def test_parameters_of_old_torch(read):
    """Parameters were once Variables with a state: data, and a flag three ways."""
    new = p.name("torch.nn.parameter", "Parameter") + p.tensor() + b"\x85\x81"
    assert read(new + b".").value.traits[:2] == (True, True)
    assert read(p.build(new, p.tuple_(b"\x89", b"\x89", p.ordered_dict())) + b".").value.traits[:2] == (True, False)
    five = p.tuple_(p.tensor(size=(2,)), b"N", p.ordered_dict(), b"\x89", b"\x89")
    assert read(p.build(new, five) + b".").value.spec.shape == (2,)
    call = p.call(p.name("torch.nn.parameter", "Parameter"), p.tensor(), b"\x89")
    assert read(call + b".").value.traits[:2] == (True, False)


def test_tensors_of_devices(read):
    """Tensors of devices that save a CPU copy, as tensor or array, are cast copies of it."""
    function = p.name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    made = p.call(function, p.tensor(), p.name("torch", "float16"), p.text("xla:1"), p.TRUE)
    leaf = read(made + b".").value
    assert (leaf.spec.dtype.name, leaf.traits.requires_grad) == ("float16", True)
    array = pickle.dumps(np.arange(3, dtype="f4"), 2)[2:-1]
    made = rebuild("_rebuild_xla_tensor", array, p.name("torch", "float32"), p.text("xla:1"), p.FALSE)
    assert read_array(read(made + b".").value).tolist() == [0, 1, 2]


def wrapped(state, *, kind=("mine", "Wrapped"), offset=ZERO):
    """The call by which torch.save writes a tensor that wraps others."""
    inner = p.tuple_(
        p.name(*kind),
        p.name("torch", "float32"),
        FOUR,
        ONE,
        offset,
        layout("strided"),
        p.call(p.name("torch", "device"), p.text("cpu")),
        p.FALSE,
    )
    function = p.name("torch._utils", "_rebuild_wrapper_subclass")
    return p.call(p.name("torch._tensor", "_rebuild_from_type_v2"), function, p.name(*kind), inner, state) + b"."


def test_wrapper_subclasses_are_their_parts(read):
    """A tensor that only wraps others is a Compound of the tensors among its attributes; the rest is its recipe."""
    state = p.dict_((p.text("_local"), p.tensor()), (p.text("bits"), p.integer(4)))
    found = read(wrapped(state)).value
    assert (found.layout, found.shape, list(found.parts)) == ("wrapper", (4,), ["_local"])
    assert found.facts["class"] == "mine:Wrapped"
    assert found.facts["state"] == {"_local": {"$part": "_local"}, "bits": 4}


def test_wrapper_subclasses_with_other_attributes_stay_inert(read):
    """Without parts, with attributes that are not plain data, or as a DTensor, it is Opaque; nothing is lost."""
    local = p.text("_local"), p.tensor()
    for made in (
        wrapped(p.dict_((p.text("bits"), p.integer(4)))),
        wrapped(p.dict_(local, (p.text("set"), p.call(p.name("builtins", "set"), b"]")))),
        wrapped(p.dict_(local, (p.text("grad"), p.tensor()))),
        wrapped(p.dict_(local), kind=("torch.distributed.tensor", "DTensor")),
    ):
        assert read(made).value.path == "torch._tensor._rebuild_from_type_v2"


def test_wrapper_subclasses_with_impossible_geometry(read):
    """An offset that is not a number is refused."""
    with pytest.raises(FormatError, match="its offset or its strides are not valid"):
        read(wrapped(p.dict_((p.text("_local"), p.tensor())), offset=p.text("x")))


def test_modules_of_legacy_files_are_their_class(read):
    """`("module", class, file, source)` stands for the class."""
    pid = p.tuple_(p.text("module"), p.name("mine", "Net"), p.text("net.py"), p.text("class Net: ...")) + b"Q"
    assert read(pid + b")\x81.").value.path == "mine.Net"
    assert (
        read(
            p.storage("0", 4, "FloatStorage", "cpu", p.tuple_(p.text("v"), p.integer(1), p.integer(2))) + b"."
        ).value.numel
        == 4
    )


def test_other_persistent_ids_are_the_callers(read):
    """Persistent ids that are not tuples (in tar files) are passed to the caller."""
    assert read(b"K\x07Q.", persistent=lambda identity: ("tensor", identity)).value == ("tensor", 7)


def test_location_may_be_anything(read):
    """A device tag is kept as it is and never interpreted."""
    assert read(p.tensor(p.storage(location="nonsense:99")) + b".").value.storage.location == "nonsense:99"


VIEW = {
    "size": p.tensor(size=(5,)),
    "size far": p.tensor(size=(1 << 30,)),
    "stride": p.tensor(stride=(2,)),
    "offset": p.tensor(offset=1),
    "offset huge": p.tensor(offset=2**62),
    "offset negative": p.tensor(offset=-1),
    "stride negative": p.tensor(offset=3, stride=(-1,)),
    "size negative": p.tensor(size=(-4,)),
    "sizes overflow": p.tensor(size=(2**32, 2**32), stride=(1, 1)),
    "stride overflows": p.tensor(size=(3,), stride=(2**61,)),
    "stride wraps to 0": p.tensor(size=(5,), stride=(2**62,)),
    "expanded beyond memory": p.tensor(size=(2**62, 4), stride=(0, 1)),
    "ranks differ": p.tensor(size=(2, 2)),
    "size a float": p.rebuilt(p.storage(), ZERO, p.tuple_(p.real(4.0)), ONE),
    "size a bool": p.rebuilt(p.storage(), ZERO, p.tuple_(p.TRUE), ONE),
    "size a number": p.rebuilt(p.storage(), ZERO, b"K\4", ONE),
    "offset a float": p.rebuilt(p.storage(), p.real(0.0), FOUR, ONE),
    "storage a list": p.rebuilt(b"]", ZERO, FOUR, ONE),
    "too few arguments": rebuild("_rebuild_tensor_v2", p.storage()),
    "too many arguments": rebuild("_rebuild_tensor_v2", *[b"N"] * 8),
    "flag a number": rebuild("_rebuild_tensor_v2", p.storage(), ZERO, FOUR, ONE, b"K\1", b"N"),
    "metadata a list": rebuild("_rebuild_tensor_v2", p.storage(), ZERO, FOUR, ONE, p.FALSE, b"N", p.list_(b"N")),
    "v3 without dtype": rebuild("_rebuild_tensor_v3", p.storage(), ZERO, FOUR, ONE, p.FALSE, b"N", p.text("x")),
    "v3 of a larger dtype": rebuild(
        "_rebuild_tensor_v3", p.storage(), ZERO, FOUR, ONE, p.FALSE, b"N", p.name("torch", "float64")
    ),
    "meta strides": rebuild("_rebuild_meta_tensor_no_storage", FLOATS, p.integers((2,)), p.integers(()), p.FALSE),
    "meta dtype": rebuild("_rebuild_meta_tensor_no_storage", b"N", p.integers((2,)), ONE, p.FALSE),
    "set beyond": p.build(p.name("torch", "Tensor") + b")R", p.tuple_(p.storage(), ZERO, p.integers((2**40,)), ONE)),
    "set twice": p.build(p.tensor(), p.tuple_(p.storage(), ZERO, FOUR, ONE)),
    "attributes by BUILD": p.build(p.tensor(), p.dict_((p.text("data"), p.NONE))),
    "variable without data": p.build(p.tensor(), p.tuple_(b"N", b"N", b"N", p.FALSE, b"N")),
    "item of a tensor": p.tensor() + b"K\0Ns",
    "item of a storage": p.storage() + b"K\0Ns",
    "item appended": p.tensor() + b"Na",
    "quantised far": rebuild(
        "_rebuild_qtensor",
        p.storage(numel=16, kind="QUInt8Storage"),
        ZERO,
        FOUR,
        p.integers((1000,)),
        PER_TENSOR,
        p.FALSE,
        p.ordered_dict(),
    ),
    "quantised of floats": rebuild(
        "_rebuild_qtensor", p.storage(), ZERO, FOUR, ONE, PER_TENSOR, p.FALSE, p.ordered_dict()
    ),
    "quantised without scheme": rebuild(
        "_rebuild_qtensor", p.storage(kind="QInt8Storage"), ZERO, FOUR, ONE, b")", p.FALSE, b"N"
    ),
    "quantised axis": rebuild(
        "_rebuild_qtensor",
        p.storage(kind="QInt8Storage"),
        ZERO,
        FOUR,
        ONE,
        p.tuple_(BY_CHANNEL, p.tensor(), p.tensor(), b"K\7"),
        p.FALSE,
        b"N",
    ),
    "quantised channels": rebuild(
        "_rebuild_qtensor",
        p.storage(kind="QInt8Storage"),
        ZERO,
        FOUR,
        ONE,
        p.tuple_(BY_CHANNEL, p.tensor(size=(3,)), p.tensor(size=(3,)), ZERO),
        p.FALSE,
        b"N",
    ),
    "packed too large": rebuild(
        "_rebuild_qtensor",
        p.storage(numel=2, kind="QUInt4x2Storage"),
        ZERO,
        p.integers((5,)),
        ONE,
        PER_TENSOR,
        p.FALSE,
        b"N",
    ),
    "sparse without layout": rebuild("_rebuild_sparse_tensor", p.text("torch.sparse_coo"), b")"),
    "sparse indices floats": rebuild(
        "_rebuild_sparse_tensor",
        layout("sparse_coo"),
        p.tuple_(p.tensor(size=(1, 2), stride=(2, 1)), p.tensor(size=(2,)), p.integers((3,))),
    ),
    "sparse shape": rebuild(
        "_rebuild_sparse_tensor",
        layout("sparse_coo"),
        p.tuple_(p.tensor(p.storage(kind="LongStorage"), 0, (1, 2), (2, 1)), p.tensor(size=(3,)), p.integers((3,))),
    ),
    "compressed parts": rebuild(
        "_rebuild_sparse_tensor", layout("sparse_csr"), p.tuple_(b"N", b"N", p.tensor(), p.integers((2, 2)))
    ),
    "nested parts": rebuild("_rebuild_nested_tensor", p.tensor(), p.tensor(), p.tensor(), p.tensor()),
    "parameter named data": rebuild(
        "_rebuild_parameter_with_state", p.tensor(), p.FALSE, p.ordered_dict(), p.dict_((p.text("data"), p.NONE))
    ),
    "parameter's class": rebuild(
        "_rebuild_parameter_with_state", p.tensor(), p.FALSE, p.ordered_dict(), p.dict_((p.text("__class__"), p.NONE))
    ),
    "size of text": p.call(p.name("torch", "Size"), p.tuple_(p.text("4"))),
}


@pytest.mark.parametrize("name", VIEW)
def test_a_tensor_beyond_its_storage_is_refused(read, storages, watched, name):
    """Bounds are checked with exact integers; a tensor outside of them is a FormatError, and nothing is allocated
    for it."""
    sixteen = {"0": bytes(16)} if "quantised" not in name and "sparse" not in name else None
    with watched() as events, pytest.raises(FormatError):
        read(VIEW[name] + b".", storage=storages(sixteen))
    assert events == []


def test_legal_oddities_load(read):
    """Expanded views, empty views with a large offset, and huge meta tensors are valid."""
    assert read(p.tensor(size=(2**40,), stride=(0,)) + b".").value.spec.nbytes == 2**42
    assert read(p.tensor(offset=10**6, size=(0,)) + b".").value.spec.offset == 0
    meta = rebuild(
        "_rebuild_meta_tensor_no_storage",
        FLOATS,
        p.integers((2**40,)),
        ONE,
        p.FALSE,
    )
    assert read(meta + b".").value.shape == (2**40,)


def test_a_whole_training_checkpoint(saved):
    """A nested checkpoint with an optimizer equals what torch.load gives, tensor by tensor."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "args": {"lr": 0.1}}
    found = saved(checkpoint).parse().value
    assert list(found["model"]) == list(checkpoint["model"])
    assert found["model"]._metadata == checkpoint["model"]._metadata
    assert isinstance(found["model"], OrderedDict)
    for name, tensor in checkpoint["model"].items():
        assert read_array(found["model"][name]).tolist() == tensor.tolist()
    for number, entry in checkpoint["optimizer"]["state"].items():
        for name, tensor in entry.items():
            assert read_array(found["optimizer"]["state"][number][name]).tolist() == tensor.tolist()
    assert found["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    assert (found["epoch"], found["args"]) == (3, {"lr": 0.1})


def test_compounds_of_parameters(saved):
    """A sparse or quantised Parameter is a compound with that trait."""
    made = torch.nn.Parameter(torch.eye(2).to_sparse())
    found = saved([made]).parse().value[0]
    assert isinstance(found, Compound)
    assert found.traits.parameter


@pytest.mark.parametrize(("index", "known"), [(0, True), ((1 << 15) - 1, True), (1 << 15, False), (-1, False)])
def test_the_index_of_a_device_is_below_32768(read, index, known):
    """A device with any other index is a value of an unknown class."""
    found = read(p.call(p.name("torch", "device"), p.text("cuda"), p.integer(index)) + b".").value
    assert (found == TorchConstant("device", f"cuda:{index}")) is known
