"""What is written equals torch.save's bytes, and reading it gives the original values."""

from __future__ import annotations

import datetime
import io
import pickle
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archives import packed

from statedict.errors import SaveError
from statedict.formats._pickle import Pair, Placement, Size, TorchConstant, emit, parse
from statedict.state import DTYPES, Compound, Leaf, Opaque, StateDict, leaf_of, read_array

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:.*([Ss]parse|nested tensors|quantiz|ComplexHalf)"),
]


def adam():
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.BatchNorm2d(3) for _ in range(20)), torch.nn.LSTM(2, 3))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


def attributed():
    plain, parameter = torch.zeros(3), torch.nn.Parameter(torch.zeros(3))
    plain.note, parameter.partition = [1, torch.ones(2)], "x"
    return [plain, parameter, plain]


class Sub(torch.Tensor):
    pass


class Around:
    class Inner(torch.Tensor):
        pass


def cyclic():
    value: list = [torch.zeros(2)]
    value.append(value)
    return value


def cyclic_tuple():
    value: tuple = ([],)
    value[0].append(value)
    return value


ONE, ROW = torch.zeros(4, 4), torch.arange(6.0).view(2, 3)
COMPLEX = torch.tensor([1 + 2j])
TORCH = {
    "state": lambda: torch.nn.Linear(2, 2).state_dict(),
    "model": lambda: torch.nn.Linear(2, 2),
    "parameters": lambda: dict(torch.nn.Linear(2, 2).named_parameters()),
    "shared": lambda: [ONE, ONE, [ONE, (ONE,)]],
    "views": lambda: {"whole": ROW, "row": ROW[1], "turned": ROW.T, "wide": ROW[:, :1].expand(2, 4)},
    "empty": lambda: [torch.zeros(0), torch.zeros(2, 0, 3)],
    "new dtypes": lambda: [torch.zeros(2, dtype=torch.uint16), torch.uint16, torch.zeros(2, dtype=torch.float8_e5m2)],
    "size": lambda: torch.Size([1, 2]),
    "dtypes": lambda: [torch.float32, torch.float32, torch.int8],
    "devices": lambda: [torch.device("cuda:0"), torch.device("cpu"), "cpu", ONE],
    "layouts": lambda: [torch.strided, torch.sparse_coo, torch.eye(2).to_sparse()],
    "qscheme": lambda: torch.per_tensor_affine,
    "quantised": lambda: torch.quantize_per_tensor(ROW, 0.5, 3, torch.qint8),
    "by channel": lambda: torch.quantize_per_channel(
        ROW, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8
    ),
    "packed": lambda: torch.quantize_per_channel(
        ROW, torch.tensor([0.1, 0.2]), torch.tensor([0.5, 1]), 0, torch.quint4x2
    ),
    "coo": lambda: [torch.eye(3).to_sparse(), torch.eye(2).to_sparse()],
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "csc": lambda: torch.eye(3).to_sparse_csc(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "bsc": lambda: torch.eye(4).to_sparse_bsc((2, 2)),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(1, 3)]),
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "conjugated": lambda: [COMPLEX.conj(), COMPLEX.clone().conj()],
    "negated": lambda: COMPLEX.conj().imag,
    "tracked": lambda: torch.zeros(2, requires_grad=True),
    "attributes": attributed,
    "subclass": lambda: torch.zeros(3).as_subclass(Sub),
    "subclass in a class": lambda: [torch.zeros(3).as_subclass(Around.Inner), Around.Inner],
    "batch norms": lambda: adam()[0].state_dict(),
    "modules": lambda: adam()[0],
    "optimizer": lambda: adam()[1].state_dict(),
    "scalars": lambda: {str(n): torch.tensor(float(n)) for n in range(300)},
    "functions": lambda: [torch.relu, torch.nn.functional.relu, torch.nn.functional.gelu, len],
    "many": lambda: {
        f"l{n}": torch.zeros(n % 7, 3, dtype=[torch.float32, torch.float16, torch.bfloat16, torch.int64][n % 4])
        for n in range(400)
    },
    "many shared": lambda: {f"l{n}": ROW[n % 2] for n in range(200)},
    "arrays": lambda: [
        np.zeros(3),
        np.zeros((2, 2)).T,
        np.float32(1),
        np.dtype("f4"),
        np.datetime64("2020-01-01"),
        np.array([None]),
    ],
    "cyclic list": cyclic,
    "storages": lambda: [torch.ones(2).untyped_storage(), torch.ones(2, dtype=torch.int16).storage()],
    "a tensor and its storage": lambda: (lambda tensor: [tensor, tensor.untyped_storage()])(
        torch.ones(2, dtype=torch.uint8)
    ),
    "cyclic tuple": cyclic_tuple,
}


@pytest.mark.parametrize("name", TORCH)
def test_bytes_are_torchs(saved, write, name):
    """Live values are written as torch.save writes them, and so are the values read from such a file."""
    value = TORCH[name]()
    expected = saved(value)
    assert write(value) == expected.pickle
    if name not in ("arrays", "devices"):  # NumPy's dtypes and the text "cpu" are shared otherwise once they were read.
        assert write(expected.parse().value) == expected.pickle


def stored(pickled: bytes, storages: list[bytes]) -> io.BytesIO:
    data = {f"archive/data/{n}": raw for n, raw in enumerate(storages)}
    return io.BytesIO(packed({"archive/data.pkl": pickled, "archive/version": b"3\n", **data}))


def kept(value: object, **arguments: object) -> tuple[bytes, list[bytes]]:
    """The pickle of a value with its storages' bytes, each leaf stored as the elements that it shows."""
    storages: list[bytes] = []

    def store(leaf: Leaf) -> Placement:
        storages.append(np.ascontiguousarray(read_array(leaf)).tobytes())
        return Placement(str(len(storages) - 1), "cpu", len(storages[-1]), leaf.spec.dense())

    return emit(value, store, **arguments), storages


def doubtful(tree):
    """What `emit` gives to `check`, as a list; an empty one if it does not call it."""
    found, numbers = [], {}

    def store(leaf):
        number = numbers.setdefault(leaf.storage.key, len(numbers))
        return Placement(str(number), leaf.storage.location, leaf.storage.nbytes, leaf.spec)

    emit(tree, store, check=lambda pickled, values: found.append(values))
    return found


def test_only_values_that_are_made_by_calls_are_checked():
    """The check gets the outermost values that are written as calls; no tensors, numbers, texts, or arrays of numbers."""
    state = {f"layer.{n}": torch.ones(2) for n in range(300)}
    usual = {**state, "seed": 2**64 - 1, "random": (3, tuple(range(625)), None), "array": np.arange(99999)}
    odd, outer = {"a"}, Namespace(inner=Namespace(a=b"x"))
    assert doubtful(usual) == []
    assert doubtful({**usual, "odd": odd, "outer": [outer]}) == [[odd, outer]]


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, "M8[s]"), np.zeros(2, ">f4"), np.zeros(2, "f4,i4")])
def test_arrays_of_anything_but_numbers_are_checked(array):
    """An array of objects, dates, records, or of another byte order is checked."""
    assert doubtful([array]) == [[array]]


@pytest.mark.parametrize("tree", [{2.5: 1}, {1 << 62: 1}, [1 << 40000], [b"x" * (1 << 17)]], ids=range(4))
def test_what_readers_limit_is_checked_as_a_whole(tree):
    """A pickle with unusual keys, very large integers, or large values made by calls is checked as it is."""
    assert doubtful(tree) == [None]


def test_arrays_of_a_state_dict_are_tensors():
    """NumPy arrays directly in a StateDict are tensors of the file; elsewhere they are arrays."""
    array = np.arange(3, dtype="f4")
    found = torch.load(stored(*kept(StateDict({"w": array}, {"": {"version": 1}}))), weights_only=True)
    assert torch.equal(found["w"], torch.arange(3.0))
    assert (type(found), found._metadata) == (OrderedDict, OrderedDict({"": {"version": 1}}))
    found = torch.load(stored(*kept({"w": array})), weights_only=False)
    assert type(found["w"]) is np.ndarray


def test_inert_values_are_what_they_stand_for(saved, write):
    """Leaves, compounds and constants are written as the PyTorch tensors and constants that they represent."""
    leaf = leaf_of(np.zeros((2, 3), "f4"))
    assert write({"w": leaf}) == saved({"w": torch.zeros(2, 3)}).pickle
    device = TorchConstant("device", "cuda:1")
    assert write([Size((2, 3)), DTYPES["int8"]]) == saved([torch.Size([2, 3]), torch.int8]).pickle
    assert (
        write([device, device, TorchConstant("layout", "sparse_csr")])
        == saved([*[torch.device("cuda:1")] * 2, torch.sparse_csr]).pickle
    )
    meta = Compound("meta", DTYPES["float32"], (2, 3), {}, {"strides": (3, 1)})
    assert write(meta) == saved(torch.empty(2, 3, device="meta")).pickle


@dataclass
class Config:
    rate: float = 0.1
    names: list[str] = field(default_factory=lambda: ["a", "b"])


class Mode(Enum):
    FAST = 1

    def __reduce_ex__(self, protocol):
        """As CPython has it from 3.11.4 on; before, 3.11 wrote `getattr(Mode, name)`."""
        return type(self), (self.value,)


class Slotted:
    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = 1


class Listed(list):
    pass


class Keyed(dict):
    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.note = "n"


class Extended:
    def __new__(cls, *, flag: int):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"flag": 3}

    class Inner:
        pass

    def method(self) -> None:
        pass


class Reduced:
    def __reduce__(self):
        return Reduced, (), {"a": 1}, iter(range(1500)), iter([("k", n) for n in range(1)])

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def setter(value: object, state: object) -> None:
    pass


class WithSetter:
    def __reduce__(self):
        return WithSetter, (), {"a": 1}, None, None, setter


OBJECTS = [
    Config(),
    Mode.FAST,
    [Mode.FAST, Mode.FAST, Mode],
    Slotted(),
    Listed([1, 2, 3]),
    Keyed({"a": 1}),
    Extended(flag=1),
    Extended.Inner,
    [Extended.Inner(), Extended.Inner()],
    Extended(flag=1).method,
    Reduced(),
    WithSetter(),
    Namespace(a=[1], b="x"),
    Counter("abca"),
    defaultdict(list, a=[1]),
    deque([1, 2], 5),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    Decimal("1.5"),
    Fraction(1, 3),
    Path("/a"),
    UUID(int=5),
    {1, 2},
    frozenset([1]),
    range(3),
    slice(1),
    1j,
    b"",
    b"abc",
    bytearray(b"x"),
    type(None),
    ...,
    NotImplemented,
    int,
    len,
    OrderedDict,
    list(range(999)),
    list(range(1000)),
    list(range(1001)),
    {n: n for n in range(999)},
    {n: n for n in range(1000)},
    {n: n for n in range(1001)},
    {n: n for n in range(2000)},
    OrderedDict((n, n) for n in range(1000)),
    OrderedDict((n, n) for n in range(1001)),
    [(n,) for n in range(300)],
    ValueError("x"),
    complex,
    [object(), object()],
    -(1 << 2100),
    1 << 2100,
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_objects_are_written_as_pickle_writes_them(value):
    """Any picklable object is byte for byte pickle.dumps(x, 2), and what is read from that is written again as it was."""
    expected = pickle.dumps(value, 2)
    assert emit(value, lambda leaf: None) == expected
    again = emit(parse(expected, storage=None).value, lambda leaf: None)
    assert repr(pickle.loads(again)).partition(" at 0x")[0] == repr(pickle.loads(expected)).partition(" at 0x")[0]


def test_members_of_an_enum_are_calls_of_their_class():
    """On every version of Python, so that readers which call no function can load them."""
    plain = Enum("Plain", "A", module=__name__)
    with patch.dict(globals(), Plain=plain):
        opaque = parse(emit(plain.A, lambda leaf: None), storage=None).value
    assert (opaque.path, opaque.args) == (f"{__name__}.Plain", (1,))


@pytest.mark.parametrize("protocol", range(6))
def test_opaque_values_survive(protocol):
    """An Opaque value is written so that pickle creates the original object from it."""
    value = [Config(), Keyed({"a": 1}), Listed([1]), Extended.Inner(), Mode.FAST, Namespace(a=1)]
    value += [Slotted(), Extended(flag=1)] if protocol > 1 else []
    opaque = parse(pickle.dumps(value, protocol), storage=None).value
    found = pickle.loads(emit(opaque, lambda leaf: None))
    assert [type(each) for each in found] == [type(each) for each in value]
    assert (found[0], found[1], found[1].note, found[2], found[4]) == (Config(), {"a": 1}, "n", [1], Mode.FAST)
    assert found[5] == Namespace(a=1)
    assert [each.x for each in found[6:7]] == [1] * (protocol > 1)


def test_items_of_an_opaque_value_are_written_in_their_order():
    """List items and key-value pairs are written as what they are, in order."""
    value = Opaque("mine", "Thing", (1,))
    value.items = [1, (2, 3), Pair("k", "v"), Pair("l", "w"), 4]
    value.state = {"x": 1}
    found = parse(emit(value, lambda leaf: None), storage=None).value
    assert (found.args, found.items, found.state) == (value.args, value.items, value.state)
    assert [type(item) for item in found.items] == [type(item) for item in value.items]
    keywords = Opaque("mine", "Thing", (1,), {"k": 2}, new=True)
    found = parse(emit(keywords, lambda leaf: None), storage=None).value
    assert (found.args, found.kwargs, found.new) == ((1,), {"k": 2}, True)
    called = parse(emit(Opaque("", "call", (value, 7)), lambda leaf: None), storage=None).value
    assert (called.module, called.args[1]) == ("", 7)


UNPICKLABLE = [
    lambda: None,
    torch,
    open,
    (n for n in ()),
    type("Local", (), {})(),
    {"deep": [io.StringIO(), lambda: 1]},
]


@pytest.mark.parametrize("value", UNPICKLABLE[:2] + UNPICKLABLE[3:], ids=lambda value: type(value).__name__)
def test_what_cannot_be_pickled_is_a_save_error(value):
    """A value that cannot be pickled is a SaveError that names its type."""
    with pytest.raises(SaveError, match="cannot be pickled"):
        emit(value, lambda leaf: None)


def test_a_tensor_of_a_class_that_cannot_be_found(write):
    """A tensor subclass that pickle cannot name is a SaveError, as with torch.save."""

    class Local(torch.Tensor):
        pass

    with pytest.raises(SaveError, match=r"Local.*does not exist"):
        write(torch.zeros(3).as_subclass(Local))


def test_the_error_says_where_the_value_lies():
    """A SaveError names the path to what cannot be pickled, through attributes too."""
    config = Config(names=["a", lambda: None])  # type: ignore[list-item]
    with pytest.raises(SaveError, match=r"^run/config/names/1: .*cannot be pickled"):
        emit({"run": {"config": config}}, lambda leaf: None)


def test_one_memory_as_two_types_is_refused(write):
    """PyTorch's files give a storage one type."""
    floats = torch.zeros(4)
    with pytest.raises(SaveError, match="float32 and int32"):
        write([floats, floats.view(torch.int32)])


def test_an_opaque_value_among_its_own_arguments():
    """A value whose arguments contain it is written once, and read back."""
    inside: list = []
    value = Opaque("mine", "Thing", (inside,))
    inside.append(value)
    found = parse(emit({"a": value, "b": inside}, lambda leaf: None), storage=None).value
    assert found["a"].args[0] is found["b"]
    assert found["b"] == [found["a"]]


def test_nesting_has_no_limit():
    """A list 20,000 deep is written and read without recursion."""
    from statedict.formats._limits import Limits

    value: list = []
    for _ in range(20_000):
        value = [value]
    written = emit(value, lambda leaf: None)
    found = parse(written, storage=None, limits=Limits(depth=30_000)).value
    for _ in range(20_000):
        (found,) = found
    assert found == []


names = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=100)
@given(
    st.dictionaries(
        names,
        st.tuples(
            st.sampled_from([torch.float32, torch.int64, torch.uint16, torch.bool]),
            st.lists(st.integers(0, 3), max_size=4),
        ),
    )
)
def test_any_state_is_written_as_torch_writes_it(shapes):
    """emit(state) is torch.save's pickle, and reads back with the same names, dtypes and shapes."""
    state = {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()}
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        expected = archive.read("archive/data.pkl")
    keys: dict = {}

    def store(leaf):
        key = keys.setdefault(leaf.storage.key if leaf.storage.nbytes else object(), str(len(keys)))
        return Placement(key, "cpu", leaf.storage.nbytes, leaf.spec)

    written = emit(state, store)
    assert written == expected
