"""Imports are listed and judged, and never made."""

from __future__ import annotations

import argparse
import pickle
import sys

import pytest
from tests.hostile.build import pickles as p

from statedict.errors import FormatError
from statedict.formats._pickle import Import
from statedict.formats._pickle._names import risk_of
from statedict.state import Opaque

DANGEROUS = """
    torch._dynamo.decorators.disable
    os.system posix.system nt.system subprocess.Popen sys.exit builtins.eval builtins.exec builtins.compile
    builtins.__import__ builtins.open builtins.map importlib.import_module runpy.run_path pty.spawn socket.socket
    shutil.rmtree ctypes.CDLL pickle.loads _pickle.loads marshal.loads code.InteractiveInterpreter timeit.timeit
    cProfile.run pdb.run bdb.Bdb pkgutil.resolve_name operator.methodcaller operator.attrgetter functools.reduce
    webbrowser.open asyncio.run tempfile.mktemp distutils.spawn.spawn imp.load_source types.FunctionType
    types.CodeType typing.get_type_hints torch.hub.load torch.jit.load torch.load torch.serialization.load
    torch.utils.collect_env.run torch.utils.cpp_extension.load_inline torch._inductor.codecache.compile_file
    torch.distributed.run.main torch.fx.graph_module.reduce_graph_module torch.package.PackageImporter
    torch.utils._config_module.ConfigModule numpy.testing._private.utils.runstring numpy.load numpy.f2py.compile
    pandas.read_pickle dill._dill._create_function cloudpickle.cloudpickle._make_function pip.main anything.os
    anything.eval anything.__globals__
"""
ORDINARY = """
    torch.nn.modules.linear.Linear torch.nn.functional.relu torch._C._nn.gelu torch.optim.adam.Adam torch.Generator
    torch.distributed.checkpoint.metadata.Metadata torch.distributed.remote_device._remote_device
    torch.utils.data.dataset.TensorDataset argparse.Namespace
    enum.Enum collections.ChainMap functools.partial logging.getLogger re._compile builtins.object
    torch._dynamo.decorators._DimRange
    builtins.ValueError builtins.max numpy.random._pickle.__randomstate_ctor numpy.core.multiarray.anything
    omegaconf.dictconfig.DictConfig __main__.Model pandas.core.frame.DataFrame
    transformers.training_args.TrainingArguments pathlib.Path
"""


@pytest.mark.parametrize("path", DANGEROUS.split())
def test_what_runs_code_is_dangerous(path):
    """Functions that are known to run code are dangerous."""
    module, _, name = path.rpartition(".")
    assert risk_of(module, name) == "dangerous"


@pytest.mark.parametrize("path", ORDINARY.split())
def test_ordinary_classes_are_unknown(path):
    """Classes and functions that ordinary checkpoints name are unknown, not dangerous."""
    module, _, name = path.rpartition(".")
    assert risk_of(module, name) == "unknown"


def test_a_dotted_name_is_dangerous_unless_it_is_a_class_in_a_class():
    """A dotted name walks attributes; only `Outer.Inner` is honest."""
    assert risk_of("torch", "serialization.os.system") == "dangerous"
    assert risk_of("mine", "Outer.os") == "dangerous"
    assert risk_of("mine", "Outer.Inner") == "unknown"


def test_every_import_is_listed_in_order(read):
    """`globals` is every import in order of first mention, with its risk."""
    data = (
        b"]("
        + p.name("mine", "A")
        + p.name("collections", "OrderedDict")
        + p.name("os", "system")
        + p.name("mine", "A")
        + b"e."
    )
    assert read(data).globals == [
        Import("mine", "A", "unknown"),
        Import("collections", "OrderedDict", "safe"),
        Import("os", "system", "dangerous"),
    ]


PAYLOADS = {
    "GLOBAL and REDUCE": p.shell() + b".",
    "STACK_GLOBAL": p.call(p.stack_name("posix", "system"), p.text("id")) + b".",
    "STACK_GLOBAL from the memo": p.text("posix")
    + b"q\0"
    + p.text("system")
    + b"q\1"
    + b"00h\0h\1\x93"
    + p.text("id")
    + b"\x85R.",
    "INST": b"(" + p.text("id") + b"iposix\nsystem\n.",
    "OBJ": b"(" + p.name("posix", "system") + p.text("id") + b"o.",
    "NEWOBJ": p.name("subprocess", "Popen") + p.text("id") + b"\x85\x81.",
    "NEWOBJ_EX": p.name("subprocess", "Popen") + p.tuple_(p.text("id")) + b"}" + p.text("shell") + b"\x88s\x92.",
    "Python 2's name": p.call(p.name("commands", "getoutput"), p.text("id")) + b".",
    "popped": p.shell() + b"0}.",
    "a key": p.dict_((p.shell(), p.NONE)) + b".",
    "an argument": p.call(p.name("mine", "A"), p.shell()) + b".",
    "a state": p.build(p.call(p.name("mine", "A")), p.dict_((p.text("x"), p.shell()))) + b".",
    "never called": b"](" + p.name("posix", "system") + b"e.",
    "getattr of an import": p.call(
        p.call(p.name("builtins", "getattr"), p.name("builtins", "__import__"), p.text("__call__")), p.text("os")
    )
    + b".",
    "the call of a result": p.call(p.call(p.name("functools", "partial"), p.name("mine", "A"))) + b".",
    "torch in torch": p.call(p.name("torch.storage", "_load_from_bytes"), b"C\x01x") + b".",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_listed_and_never_run(read, watched, name):
    """However a call is hidden, it is inert data and its import is listed as dangerous."""
    with watched() as events:
        found = read(PAYLOADS[name])
    assert events == []
    assert found.dangerous


def test_a_payload_in_a_persistent_id_is_never_run(read, watched):
    """A call inside a persistent id does not make a storage."""
    with watched() as events, pytest.raises(FormatError, match=r"key is not a string.*posix\.system"):
        read(p.storage(key=p.shell()) + b".")
    assert events == []


def test_setstate_is_never_installed(read, watched):
    """BUILD keeps the state as data; a second one, which would call what the first installed, is refused."""
    made = p.call(p.name("mine", "A"))
    with watched() as events, pytest.raises(FormatError, match="sets attributes twice"):
        read(p.build(p.build(made, p.dict_((p.text("__setstate__"), p.name("posix", "system")))), p.text("id")) + b".")
    assert events == []


class Outer:
    class Inner:
        def method(self) -> None:
            """A method to be bound."""


def test_honest_uses_of_getattr_are_not_dangerous(read):
    """Protocol 2 names inner classes and bound methods by getattr, which alone is not dangerous."""
    found = read(pickle.dumps([Outer.Inner, Outer.Inner(), Outer.Inner().method], 2))
    assert found.dangerous == []
    inner, instance, method = found.value
    assert (inner.name, inner.args) == ("Outer.Inner", None)
    assert (instance.name, instance.args, instance.new) == ("Outer.Inner", (), True)
    assert method.path == "__builtin__.getattr"
    assert read(pickle.dumps(Outer.Inner, 4)).value.name == "Outer.Inner"


@pytest.mark.parametrize(
    "arguments",
    [
        (b"K\x01", p.text("real")),
        (p.name("mine", "A"), p.text("__globals__")),
        (p.name("mine", "A"),),
        (p.name("mine", "A"), b"K\x01"),
        (p.name("mine", "A"), p.text("a.b")),
    ],
)
def test_other_uses_of_getattr_are_dangerous(read, arguments):
    """getattr of anything but a public name of an unknown value is dangerous, and so is one that is never called."""
    assert read(p.call(p.name("builtins", "getattr"), *arguments) + b".").dangerous == ["builtins.getattr"]
    assert read(p.name("builtins", "getattr") + b".").dangerous == ["builtins.getattr"]


def test_unknown_values_are_opaque(read):
    """A value of an unknown class keeps the name of its class, its arguments, state and items."""
    namespace = argparse.Namespace(lr=0.1)
    for protocol in range(6):
        found = read(pickle.dumps(namespace, protocol)).value
        assert isinstance(found, Opaque)
        assert (found.path, found.args, found.new, found.attributes()) == ("argparse.Namespace", (), True, {"lr": 0.1})


def test_a_class_is_a_storage_only_if_it_is_of_torch(read):
    """Calls of another module's class with the name of a storage are values of an unknown class."""
    found = read(p.call(p.name("simulator", "FloatStorage"), p.integer(4)) + b".").value
    assert (type(found), found.path, found.args) == (Opaque, "simulator.FloatStorage", (4,))


class Bag(list):
    pass


class Map(dict):
    def __reduce__(self):
        return Map, (1,), {"x": 2}, iter([3, (4, 5)]), iter([("k", "v")])


def test_items_of_opaque_values_are_kept(read):
    """List items and key-value pairs of an unknown class are kept apart."""
    assert read(pickle.dumps(Bag([1, (2, 3)]), 2)).value.items == [1, (2, 3)]
    found = read(pickle.dumps(Map(), 2)).value
    assert (found.args, found.state) == ((1,), {"x": 2})
    assert found.items == [3, (4, 5), ("k", "v")]
    assert [type(item).__name__ for item in found.items] == ["int", "tuple", "Pair"]


def test_calling_a_class_and_making_an_instance_are_told_apart(read):
    """`new` says that `__init__` was not run."""
    assert read(p.call(p.name("mine", "A"), p.integer(1)) + b".").value.new is False
    assert read(p.name("mine", "A") + p.tuple_(p.integer(1)) + b"\x81.").value.new is True
    found = read(p.name("mine", "A") + b")" + p.dict_((p.text("k"), p.integer(1))) + b"\x92.").value
    assert (found.new, found.kwargs) == (True, {"k": 1})


def test_no_module_is_imported_for_a_name_in_a_file(read):
    """Reading a pickle that names modules leaves sys.modules as it was."""
    before = set(sys.modules)
    read(b"](" + p.name("antigravity", "x") + p.name("this", "d") + p.name("no.such", "Thing") + b"e.")
    assert set(sys.modules) == before
