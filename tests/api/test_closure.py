"""What `save` accepts, `load` gives back in a fresh process; what it would not is refused, and nothing is written."""

import argparse
import codecs
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import types
import uuid

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import statedict
from statedict.errors import LoadError, SaveError
from statedict.formats import unloadable


class Mode(enum.Enum):
    A = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Config:
    a: int = 1


Pair = collections.namedtuple("Pair", "a b")


class Code:
    def __reduce__(self):
        return os.system, ("true",)


class Labelled(torch.Tensor):
    pass


class Sampler:
    """Has a state, and only that can be saved of it."""

    def __init__(self, at=3):
        self.at, self.lock = at, threading.Lock()

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def labelled():
    return torch.ones(2).as_subclass(Labelled)


def namespace():
    made = argparse.Namespace(lr=0.1, weight=torch.ones(2))
    made.itself = made
    return made


def trained():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net.weight.sum().backward()
    optimizer.step()
    return optimizer


def spawned():
    made = np.random.default_rng([1, 2])
    made.spawn(2)
    return made


def nested(depth):
    made = []
    for _ in range(depth):
        made = [made]
    return made


def with_attribute(value, name):
    setattr(value, name, 1)
    return value


# Values of every kind that people put into checkpoints: those that come back, and those that do not.
KEPT = {
    "none": lambda: None,
    "integer": lambda: 1 << 300,
    "float": lambda: float("inf"),
    "complex": lambda: 1 + 2j,
    "text": lambda: "lone \ud800",
    "bytes": lambda: b"\0\xff",
    "bytearray": lambda: bytearray(b"ab"),
    "path": lambda: pathlib.PurePosixPath("a/b"),
    "datetime": lambda: datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "timedelta": lambda: datetime.timedelta(1, 2),
    "decimal": lambda: decimal.Decimal("1.50"),
    "fraction": lambda: fractions.Fraction(1, 3),
    "uuid": lambda: uuid.UUID(int=7),
    "range": lambda: range(1, 9, 2),
    "slice": lambda: slice(1, None, 2),
    "set": lambda: {1, "a", (2, 3)},
    "frozenset": lambda: frozenset({1}),
    "deque": lambda: collections.deque([1, 2], 5),
    "counter": lambda: collections.Counter("abca"),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "ordered": lambda: collections.OrderedDict(a=1),
    "namespace": lambda: argparse.Namespace(lr=0.1),
    "simple namespace": lambda: types.SimpleNamespace(a=[1]),
    "array": lambda: np.arange(3),
    "records": lambda: np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "scalar": lambda: np.float64(2.5),
    "odd keys": lambda: {1: "a", None: "b", 2.5: "c", (1, "x"): "d", b"k": "e", False: "f"},
    "dtype": lambda: torch.bfloat16,
    "size": lambda: torch.Size([2, 3]),
    "device": lambda: torch.device("cpu"),
    "0-dim": lambda: torch.tensor(2.0),
    "view": lambda: torch.arange(6.0).view(2, 3).t(),
    "expanded": lambda: torch.ones(1).expand(4),
    "empty": lambda: torch.zeros(0, 3),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "nested": lambda: nested(500),
}
REFUSED = {
    "an enum": (lambda: Mode.A, "made by .*Mode would be loaded as inert data"),
    "a number of an enum": (lambda: Level.LOW, "made by .*Level would be loaded as inert data"),
    "a dataclass": (lambda: Config(2), r"made by .*Config .*add_safe_globals\(\[Config\]\)"),
    "a named tuple": (lambda: Pair(1, 2), "made by .*Pair would be loaded as inert data"),
    "a class": (lambda: nn.Linear, r"a class or function \(torch.nn.modules.linear.Linear\).*save its name"),
    "a builtin class": (lambda: int, r"a class or function \(builtins.int\)"),
    "the class of a state dict": (lambda: collections.OrderedDict, r"a class or function \(collections.OrderedDict\)"),
    "a function that another value was made by": (
        lambda: [b"a", codecs.encode],
        r"a class or function \(_codecs.encode\)",
    ),
    "attributes of a mapping that are its methods": (
        lambda: with_attribute(collections.OrderedDict(a=1), "keys"),
        "could not be loaded again: an attribute of OrderedDict would replace one of its methods",
    ),
    "a function": (lambda: labelled, "a class or function .*labelled"),
    "a partial": (lambda: functools.partial(len), "made by functools.partial"),
    "a lambda": (lambda: lambda: 1, "cannot be pickled"),
    "a lock": (threading.Lock, "cannot be pickled"),
    "code": (Code, "system would run code"),
    "an enum as a key": (lambda: {Mode.A: 1}, "the key .*Mode.* would be loaded as inert data"),
    "an enum in a set": (lambda: {Mode.A}, "would be loaded as inert data"),
    "objects in an array": (lambda: np.array([1, "a"], dtype=object), "an array of Python objects"),
    "another tensor class": (labelled, "a tensor of the class .*Labelled would be loaded as a plain tensor"),
    "a meta tensor": (lambda: torch.ones(2, device="meta"), "on the meta device and has no values"),
    "deep": (lambda: nested(1200), "could not be loaded again: a nesting of values"),
    "a masked array": (
        lambda: np.ma.array([1.0, 2.0], mask=[0, 1]),
        "made by numpy.ma.core._mareconstruct would be loaded",
    ),
    "a large integer": (lambda: 1 << 40000, "could not be loaded again: an integer of 5,001 bytes"),
    "a large key": (lambda: {tuple(range(200)): 1}, "could not be loaded again: a key of 200 values"),
    "keys of one hash": (lambda: {i * (2**61 - 1): i for i in range(40)}, "17 keys of one dict with the same hash"),
}
PLACES = {
    "directly": lambda value: value,
    "in a list": lambda value: [1, value],
    "in a tuple in a dict": lambda value: {"a": (value, "b")},
    "in a namespace": lambda value: argparse.Namespace(x=value),
    "in extra state": lambda value: collections.OrderedDict(_extra_state={"x": value}),
    "among tensors": lambda value: {"w": torch.ones(3), "x": {"y": value}},
}


def same(a, b):
    """Whether two values are equal in type and content, tensors and arrays by their elements."""
    if isinstance(a, torch.Tensor):
        if a.layout is not torch.strided:
            return a.layout == b.layout and torch.equal(a.to_dense(), b.to_dense())
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, collections.deque)) and len(a) < 2:
        while isinstance(a, list) and len(a) == len(b) == 1:  # deep ones
            a, b = a[0], b[0]
        return same(a, b) if not isinstance(a, list) or len(a) > 1 else a == b
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (argparse.Namespace, types.SimpleNamespace)):
        return same(vars(a), vars(b))
    return a == b


def closed(tree):
    """Either the tree comes back, or it is refused and nothing was written."""
    file = io.BytesIO()
    reason = unloadable(tree)
    if reason is not None:
        with pytest.raises(SaveError):
            statedict.save(tree, file)
        assert file.getvalue() == b""
        return reason
    statedict.save(tree, file)
    file.seek(0)
    assert same(tree, statedict.load(file))
    return None


@pytest.mark.parametrize("kind", KEPT)
def test_it_comes_back(kind):
    """Data of the standard library, NumPy and PyTorch is what it was, wherever it stands."""
    for place, put in PLACES.items():
        # A bare array is a tensor of the file.
        assert (kind, place) == ("array", "directly") or closed(put(KEPT[kind]())) is None, place


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused(kind):
    """What a reader would not make again is refused with a reason, wherever it stands."""
    make, reason = REFUSED[kind]
    for put in PLACES.values():
        file = io.BytesIO()
        with pytest.raises(SaveError, match=reason):
            statedict.save(put(make()), file)
        assert file.getvalue() == b""


STATES = {
    "a dict of arrays": dict,
    "a StateDict": statedict.StateDict,
    "an optimizer's state": lambda state: {"state": {0: state}, "param_groups": [{"params": [0]}]},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("odd", [["x", "yz"], [b"x"], np.zeros(2, [("a", "f4")]), np.array(["2020-01-02"], "M8[D]")])
def test_arrays_of_no_tensor_stay_what_they_are(state, odd):
    """Arrays of text, records or dates among the tensors of a state come back as arrays."""
    odd, file = np.array(odd), io.BytesIO()
    statedict.save(STATES[state]({"w": np.ones(2), "odd": odd}), file)
    file.seek(0)
    found = statedict.load(file, backend="numpy")
    found = found["state"][0] if "state" in found else found
    assert same({**found}, {"w": np.ones(2), "odd": odd})


@pytest.mark.parametrize("format", ["torch", "safetensors", "npz"])
def test_no_mask_is_lost(format):
    """A masked array beside tensors is refused by every format."""
    with pytest.raises(SaveError, match=r"MaskedArray|_mareconstruct"):
        statedict.save({"w": np.ones(2), "m": np.ma.array([1.0, 2.0], mask=[0, 1])}, io.BytesIO(), format=format)


leaf = st.sampled_from([*KEPT.values(), *(make for make, _ in REFUSED.values())]).map(lambda make: make())
trees = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@given(trees)
@settings(max_examples=60)
def test_whatever_the_tree(tree):
    """A tree of any of these comes back equal, or is refused as a whole. (A mapping of nothing but arrays is a state, whose
    arrays are tensors of the file: the step keeps it from being one.)"""
    closed({"tree": tree, "step": 1})


def test_the_path_is_told():
    """A refusal says where in the tree the value is."""
    with pytest.raises(SaveError, match=r"^config/0/mode: a value made by"):
        statedict.save({"w": torch.ones(2), "config": [{"mode": Mode.A}]}, io.BytesIO())
    with pytest.raises(SaveError, match=r"^a/b/1: this value could not be loaded again"):
        statedict.save({"a": {"b": [0, 1 << 40000]}}, io.BytesIO())
    local = collections.namedtuple("Local", "x")
    with pytest.raises(SaveError, match=r"^a/p: <class .*Local'> cannot be pickled"):
        statedict.save({"a": {"p": local(1)}}, io.BytesIO())


GENERATORS = {
    "PCG64": spawned,
    "MT19937": lambda: np.random.Generator(np.random.MT19937(3)),
    "Philox": lambda: np.random.Generator(np.random.Philox(3)),
    "SFC64": lambda: np.random.Generator(np.random.SFC64(3)),
    "PCG64DXSM": lambda: np.random.Generator(np.random.PCG64DXSM(3)),
    "RandomState": lambda: np.random.RandomState(3),
}


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_go_on(kind, backend):
    """NumPy's generators draw what they would have drawn, with torch and without."""
    made = GENERATORS[kind]()
    made.normal(size=3)
    file = io.BytesIO()
    statedict.save({"rng": made, "again": [made]}, file)
    file.seek(0)
    read = statedict.load(file, backend=backend)
    assert read["rng"] is read["again"][0]
    assert read["rng"].normal(size=5).tolist() == made.normal(size=5).tolist()
    if isinstance(made, np.random.Generator):
        assert read["rng"].spawn(1)[0].random() == made.spawn(1)[0].random()


def test_what_two_share_stays_shared():
    """A bit generator, a seed sequence, a buffer of bytes and torch's generator are the same objects and values again."""
    bits = np.random.PCG64DXSM(4)
    buffer = io.BytesIO(b"abc")
    buffer.seek(1)
    seeds = np.random.SeedSequence([1, 2], spawn_key=(3,))
    generator = torch.Generator().manual_seed(5)
    tree = {"bits": bits, "rng": np.random.Generator(bits), "buffer": buffer, "seeds": seeds, "torch": generator}
    file = io.BytesIO()
    statedict.save(tree, file)
    file.seek(0)
    read = statedict.load(file)
    assert read["rng"].bit_generator is read["bits"]
    assert (read["buffer"].getvalue(), read["buffer"].read()) == (b"abc", b"bc")
    assert read["seeds"].state == seeds.state
    assert torch.equal(torch.rand(3, generator=read["torch"]), torch.rand(3, generator=generator))


def test_a_namespace_may_hold_itself():
    """Cycles through attributes are kept."""
    file = io.BytesIO()
    statedict.save({"args": namespace()}, file)
    file.seek(0)
    read = statedict.load(file)["args"]
    assert read.itself is read
    assert torch.equal(read.weight, torch.ones(2))


def test_attributes_of_tensors():
    """What Python attributes a tensor has comes back, and is the same object elsewhere."""
    weight = nn.Parameter(torch.ones(2))
    weight.tag = [torch.zeros(1), 3]
    file = io.BytesIO()
    statedict.save({"w": weight, "tag": [weight.tag]}, file)
    file.seek(0)
    read = statedict.load(file)
    assert read["w"].tag is read["tag"][0]
    assert torch.equal(read["w"].tag[0], torch.zeros(1))


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_storages(backend):
    """Bare storages come back as storages, arrays of their elements without torch."""
    file = io.BytesIO()
    weight = torch.arange(3.0)
    torch.save({"s": weight.untyped_storage(), "w": torch.ones(2)}, file)
    file.seek(0)
    read = statedict.load(file, backend=backend)
    if backend == "torch":
        assert isinstance(read["s"], torch.UntypedStorage)
        assert bytes(read["s"].tolist()) == weight.numpy().tobytes()
    else:
        assert read["s"].tobytes() == weight.numpy().tobytes()


def test_classes_that_are_allowed():
    """`torch.serialization.safe_globals` holds for saving, loading and loading into objects."""
    tree = {"mode": Mode.A, "config": Config(4), "x": labelled()}
    file = io.BytesIO()
    with torch.serialization.safe_globals([Mode, Config, Labelled]):
        statedict.save(tree, file)
        file.seek(0)
        read = statedict.load(file)
    assert (read["mode"], read["config"], type(read["x"])) == (Mode.A, Config(4), Labelled)
    file.seek(0)
    assert repr(statedict.load(file)["mode"]) == f"<opaque {__name__}.Mode(…)>"


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.config = nn.Linear(1, 1), None

    def get_extra_state(self):
        return self.config

    def set_extra_state(self, value):
        self.config = value


@pytest.fixture
def unknown(tmp_path):
    """A file in which the extra state is of a class that is not known."""
    made = WithState()
    made.config = Config(7)
    torch.save(made.state_dict(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


@pytest.mark.parametrize("strict", [True, False])
def test_no_inert_value_reaches_a_module(unknown, strict):
    """A load that would give `set_extra_state` inert data is refused, and changes nothing."""
    model = WithState()
    before = model.linear.weight.clone()
    with pytest.raises(LoadError, match=r"'_extra_state' in the source holds data of the unknown class .*Config"):
        statedict.load_state_dict(model, unknown, strict=strict)
    report = statedict.load_state_dict(model, unknown, strict=strict, dry_run=True)
    assert "data of the unknown class" in report.errors[0]
    assert report.loaded
    assert model.config is None
    assert torch.equal(model.linear.weight, before)


class Needing(WithState):
    def _load_from_state_dict(self, state, prefix, *others):
        self.config = state[f"{prefix}_extra_state"]


class NeedingAtTheRoot(WithState):
    def load_state_dict(self, state, strict=True):
        self.config = state["_extra_state"]


class Unreadable(WithState):
    def load_state_dict(self, state, strict=True):
        raise OSError("the disk does not answer")


@pytest.mark.parametrize("kind", [Needing, NeedingAtTheRoot])
def test_a_module_that_fails_without_inert_data_is_told_of_it(kind, unknown):
    """Loading code of a module (torch.ao's quantised RNNs) that needs the name raises the error about the class instead."""
    with pytest.raises(LoadError, match="'_extra_state' in the source holds data of the unknown class") as raised:
        statedict.load_state_dict(kind(), unknown)
    assert isinstance(raised.value.__cause__, KeyError)
    assert "then its own loading code failed: KeyError: '_extra_state'" in str(raised.value)
    with pytest.raises(KeyError, match="_extra_state"):
        statedict.load_state_dict(kind(), unknown, exclude="_extra_state")


def test_errors_of_the_system_are_not_put_down_to_inert_data(unknown):
    """A disk that cannot be read says nothing about unknown classes, and a resume tries again after an OSError."""
    with pytest.raises(OSError, match="the disk does not answer"):
        statedict.load_state_dict(Unreadable(), unknown)


def test_what_is_left_out_is_not_held_against_the_rest(unknown):
    """Inert data under a name that is excluded, or allowed to be missing, is ignored; data of an allowed class is loaded."""
    for options in ({"exclude": "_extra_state"}, {"allow_missing": "_extra_state"}):
        model = WithState()
        statedict.load_state_dict(model, unknown, **options)
        assert model.config is None
    with torch.serialization.safe_globals([Config]):
        statedict.load_state_dict(model, unknown)
    assert model.config == Config(7)


def test_what_nobody_wants_is_unexpected(unknown):
    """Inert data under a name that the model lacks is an unexpected name, as any other."""
    model = nn.ModuleDict({"linear": nn.Linear(1, 1)})
    report = statedict.load_state_dict(model, unknown, strict=False)
    assert report.unexpected_keys == ["_extra_state"]


def test_a_buffer_of_bytes_is_data(tmp_path):
    """Layers that keep their extra state in a BytesIO are loaded."""
    made, other = WithState(), WithState()
    made.config = io.BytesIO(b"abc")
    torch.save(made.state_dict(), tmp_path / "a.pt")
    statedict.load_state_dict(other, tmp_path / "a.pt")
    assert other.config.getvalue() == b"abc"


def test_objects_are_saved_as_their_state():
    """Modules, optimizers, schedulers and anything else with `state_dict` are their states, wherever they stand."""
    optimizer = trained()
    net = nn.Linear(2, 2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    tree = {"models": {"g": net, "again": net}, "train": [optimizer, (scheduler, Sampler(5))], "epoch": 1}
    file = io.BytesIO()
    statedict.save(tree, file)
    file.seek(0)
    read = torch.load(file)
    assert read["models"]["g"] is read["models"]["again"]
    assert torch.equal(read["models"]["g"]["weight"], net.weight)
    assert read["train"][1][1] == {"at": 5}
    file.seek(0)
    other = torch.optim.Adam(net.parameters())
    statedict.load_state_dict(other, statedict.load(file)["train"][0])
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_nothing_is_laundered():
    """An inert value that names code is not written again, and neither is one of an unknown class."""
    file = io.BytesIO()
    torch.save({"w": torch.ones(2), "x": Code()}, file)
    file.seek(0)
    out = io.BytesIO()
    with statedict.open(file) as checkpoint, pytest.raises(SaveError, match=r"^x: (os|posix)\.system would run code"):
        statedict.save(checkpoint.object, out)
    file = io.BytesIO(pickle.dumps({"c": Config()}))
    with statedict.open(file) as checkpoint, pytest.raises(SaveError, match=r"^c: a value made by .*Config"):
        statedict.save(checkpoint.object, out)
    assert out.getvalue() == b""


def test_a_fresh_process(tmp_path):
    """Another process that has imported nothing but statedict loads all that was saved."""
    tree = {name: make() for name, make in KEPT.items() if name != "nested"}
    tree |= {"rng": spawned(), "buffer": io.BytesIO(b"x"), "lazy": nn.LazyLinear(2).weight, "net": nn.Linear(1, 1)}
    statedict.save(tree, tmp_path / "a.pt")
    read = f"import statedict; found = statedict.load({str(tmp_path / 'a.pt')!r})"
    code = f"{read}; import json; print(json.dumps([repr(value).startswith('<opaque') for value in found.values()]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False] * len(tree)


LIMITED = {
    "npz, a long name": ({"x" * 1100: np.ones(1)}, {"format": "npz"}, "a member name of 1,104 characters exceeds"),
    "npz, a name of 16 bits": ({"x" * 70_000: np.ones(1)}, {"format": "npz"}, "name of 70,004 characters exceeds"),
    "long metadata": ({"w": np.ones(1)}, {"metadata": {"a": "x" * (2 << 20)}}, "has 2,097,152 bytes; at most"),
    "NUL in metadata": ({"w": np.ones(1)}, {"metadata": {"a\0": "x"}}, "invalid member name for an archive"),
    "surrogates": ({"w": np.ones(1)}, {"metadata": {"a": "\ud800"}}, "cannot be written as UTF-8"),
    "case": ({"w": np.ones(1)}, {"metadata": {"A": "1", "a": "2"}}, "names that differ only in case"),
    "npz metadata": (
        {"w": np.ones(1)},
        {"metadata": {"a": "x" * 70_000}, "format": "npz"},
        "the metadata exceeds the",
    ),
    "an index": (
        {"a": np.ones(1), "b": np.ones(1)},
        {"metadata": {"total_size": "1"}, "max_shard_size": 8},
        "total_size is a reserved key",
    ),
}


@pytest.mark.parametrize("kind", LIMITED)
def test_writers_know_the_limits(kind, tmp_path):
    """Names, counts and metadata beyond what the format can tell, or its reader takes, are refused."""
    state, options, reason = LIMITED[kind]
    with pytest.raises(SaveError, match=reason):
        statedict.save(state, tmp_path / "a.pt", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["zip_members", "json_bytes"])
def test_counts(name, monkeypatch, tmp_path):
    """Archives of too many members and headers that are too long are refused; a smaller limit stands for the large one."""
    from statedict.formats import _limits
    from statedict.formats.safetensors import _write as _safetensors_write
    from statedict.formats.zip import _write as _zip_write

    small = _limits.Limits(**{name: 40})
    monkeypatch.setattr(_zip_write, "LIMITS", small)
    monkeypatch.setattr(_safetensors_write, "LIMITS", small)
    format, reason = ("npz", "an archive of 50 members") if name == "zip_members" else ("safetensors", "a header of")
    with pytest.raises(SaveError, match=f"{reason}.* exceeds the limit of 40"):
        statedict.save({f"w{i}": np.ones(1) for i in range(50)}, tmp_path / "a", format=format)


def test_limits_of_a_load(tmp_path):
    """`load` and `load_state_dict` take limits, as `open` does."""
    model = nn.Linear(2, 2)
    statedict.save(model, tmp_path / "a.pt")
    few = statedict.formats.Limits(pickle_bytes=10)
    for load in (statedict.load, functools.partial(statedict.load_state_dict, model)):
        with pytest.raises(statedict.errors.LimitError, match="a pickle of more than 10 bytes"):
            load(tmp_path / "a.pt", limits=few)
        load(tmp_path / "a.pt", limits=statedict.formats.Limits())


def test_what_torch_save_takes_torch_load_gives():
    """`statedict.torch.save` keeps PyTorch's contract: classes are pickled, and come back with `weights_only=False`."""
    file = io.BytesIO()
    statedict.torch.save({"m": Mode.A, "c": Config(3), "t": labelled()}, file)
    for load in (statedict.torch.load, torch.load):
        file.seek(0)
        read = load(file, weights_only=False)
        assert (read["m"], read["c"], type(read["t"])) == (Mode.A, Config(3), Labelled)
