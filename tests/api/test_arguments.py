"""Arguments of another kind are refused in words that name the argument, what it is, and what was given."""

import io
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import statedict
from statedict.errors import NotAStateError, StateDictError

SOURCE = str(Path(statedict.__file__).parent)
MODEL = nn.Linear(2, 2)
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1)
STATE = statedict.state_dict(MODEL)
BAD = {
    "None": None,
    "an int": 3,
    "a float": 3.5,
    "nan": float("nan"),
    "a list": [1],
    "a list of None": [None],
    "a tuple": (1, 2),
    "a dict": {"a": 1},
    "a dict of numbers": {1: 2},
    "text": "nope",
    "no text": "",
    "bytes": b"x",
    "an object": object(),
    "a class": nn.Linear,
    "a NumPy type": np.float32,
    "a set": set(),
    "a tensor": torch.ones(2),
    "an array": np.ones(2),
    "a function": lambda value: value,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("arguments") / "model.pt"
    statedict.save(MODEL, path)
    return path


def of(verb, *arguments, **fixed):
    """One case for each keyword argument of a verb."""

    def case(name):
        return lambda file, value: verb(
            *(file if each == "FILE" else each for each in arguments), **{**fixed, name: value}
        )

    return case


LOADING = [
    "strict",
    "assign",
    "into",
    "root",
    "include",
    "exclude",
    "rename",
    "allow_missing",
    "allow_unexpected",
    "allow_casts",
    "mismatched",
    "dtype",
    "device",
    "verify",
    "dry_run",
    "model",
]
METHODS = ("select", "drop", "sub", "with_prefix", "leaf", "spec", "get", "pop", "popitem", "move_to_end", "update")
METHODS += ("setdefault", "__contains__")
VERBS = {
    **{f"load_state_dict {name}": of(statedict.load_state_dict, MODEL, STATE)(name) for name in LOADING},
    **{f"load_state_dict {name}, file": of(statedict.load_state_dict, MODEL, "FILE")(name) for name in LOADING},
    **{
        f"load_state_dict {name}, assigned": lambda file, value, name=name: statedict.load_state_dict(
            nn.Linear(2, 2, device="meta"), file, **{"assign": True, name: value}
        )
        for name in LOADING
    },
    **{
        f"load_state_dict {name}, optimizer": of(statedict.load_state_dict, OPTIMIZER, OPTIMIZER.state_dict())(name)
        for name in LOADING
    },
    "load_state_dict obj": lambda file, value: statedict.load_state_dict(value, STATE),
    "load_state_dict source": lambda file, value: statedict.load_state_dict(MODEL, value),
    "load_state_dict source, optimizer": lambda file, value: statedict.load_state_dict(OPTIMIZER, value),
    **{f"state_dict {name}": of(statedict.state_dict, MODEL)(name) for name in ("prefix", "keep_vars", "model")},
    "state_dict obj": lambda file, value: statedict.state_dict(value),
    "state_dict model": of(statedict.state_dict, OPTIMIZER)("model"),
    "snapshot obj": lambda file, value: statedict.snapshot(value),
    "snapshot out": of(statedict.snapshot, MODEL)("out"),
    "audit model": lambda file, value: statedict.audit(value),
    "audit optimizer": of(statedict.audit, MODEL)("optimizer"),
    "open path": lambda file, value: statedict.open(value),
    "open limits": of(statedict.open, "FILE")("limits"),
    "open root": lambda file, value: statedict.open(file).state_dict(value),
    "open verify": lambda file, value: statedict.open(file).verify(value),
    "load path": lambda file, value: statedict.load(value),
    **{f"load {name}": of(statedict.load, "FILE")(name) for name in ("map_location", "mmap", "backend", "verify")},
    **{
        f"save {name}, {format}": lambda file, value, name=name, format=format: statedict.save(
            MODEL, io.BytesIO(), **{"format": format, name: value}
        )
        for name in ("format", "metadata", "max_shard_size", "durable")
        for format in ("torch", "safetensors", "npz")
    },
    "KeyMap": lambda file, value: statedict.KeyMap(value),
    "KeyMap()": lambda file, value: statedict.KeyMap("a -> b")(value),
    "KeyMap.rename": lambda file, value: statedict.KeyMap("a -> b").rename(value),
    "KeyMap.from_toml": lambda file, value: statedict.KeyMap.from_toml(value),
    "KeyMap.strays": lambda file, value: statedict.KeyMap("a -> b").strays(value),
    "match model": lambda file, value: statedict.match(value, STATE),
    "match source": lambda file, value: statedict.match(MODEL, value),
    "match root": of(statedict.match, MODEL, "FILE")("root"),
    "diff a": lambda file, value: statedict.diff(value, STATE),
    "diff b": lambda file, value: statedict.diff(STATE, value),
    "diff root": of(statedict.diff, "FILE", "FILE")("root"),
    "merge sources": lambda file, value: statedict.merge(value),
    "merge source": lambda file, value: statedict.merge([STATE, value]),
    **{f"merge {name}": of(statedict.merge, [STATE, STATE])(name) for name in ("method", "weights", "base", "root")},
    "merge base, task_arithmetic": of(statedict.merge, [STATE, STATE], method="task_arithmetic")("base"),
    "merge weights, slerp": of(statedict.merge, [STATE, STATE], method="slerp")("weights"),
    **{
        f"StateDict.{method}": lambda file, value, method=method: getattr(STATE.copy(), method)(value)
        for method in METHODS
    },
    "StateDict values": lambda file, value: statedict.StateDict(value),
    "StateDict metadata": lambda file, value: statedict.StateDict({}, value),
    "StateDict backend": lambda file, value: statedict.StateDict({"a": np.ones(1)}, backend=value).numpy(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_argument_is_refused_here(file, verb, monkeypatch, tmp_path):
    """Whatever is given, what is raised is raised by this library, and not by PyTorch, NumPy or Python below it."""
    monkeypatch.chdir(tmp_path)
    allowed = {"a function"} if verb == "load map_location" else set()
    raised = {kind: raised_elsewhere(VERBS[verb], file, BAD[kind]) for kind in BAD if kind not in allowed}
    assert {kind: what for kind, what in raised.items() if what is not None} == {}
    assert torch.equal(MODEL.weight, STATE["weight"])


def raised_elsewhere(act, file, value):
    """What was raised by other code than a `raise` of this library; None where nothing was."""
    try:
        act(file, value)
    except StateDictError:
        return None
    except OSError as error:  # the system's own, of a path
        return None if isinstance(value, str) and error.filename is not None else error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return None if last.filename.startswith(SOURCE) and "raise" in (last.line or "") else error
    return None


TEXTS = [
    (lambda: statedict.load_state_dict(MODEL, STATE, strict="no"), r"strict= must be True or False, not 'no' \(str\)"),
    (lambda: statedict.load_state_dict(MODEL, STATE, root=3), r"root= must be a string, not 3 \(int\)"),
    (lambda: statedict.load_state_dict(MODEL, STATE, into=3), r"into= must be a string, not 3 \(int\)"),
    (
        lambda: statedict.load_state_dict(MODEL, STATE, include=[3]),
        r"include= must be a pattern such as 'encoder\.\*'",
    ),
    (
        lambda: statedict.load_state_dict(MODEL, STATE, device=3.5),
        r"device= must be a device such as 'cuda:0', not 3\.5",
    ),
    (
        lambda: statedict.load_state_dict(OPTIMIZER, OPTIMIZER.state_dict(), model=3),
        "model= must be the module whose parameters",
    ),
    (lambda: statedict.state_dict(nn.Linear), r"Linear is a class: pass an instance, Linear\(…\)"),
    (lambda: statedict.audit(3), r"audit\(\) expects a torch.nn.Module, not 3 \(int\)"),
    (lambda: statedict.audit(MODEL, 3), "optimizer= must be a torch optimizer or a list of them, not 3"),
    (lambda: statedict.merge("a.pt"), r"merge needs a list of sources, such as \['a\.pt', 'b\.pt'\], not 'a\.pt'"),
    (lambda: statedict.merge([STATE], weights=object()), "weights= must be a number for each source, not <object"),
    (lambda: statedict.KeyMap(3), "rules must be text such as 'old -> new', a mapping from old to new names"),
    (lambda: statedict.KeyMap({1: "a"}), r"old and new names must be strings, not 1 \(int\)"),
    (
        lambda: statedict.KeyMap("a -> b").rename({1: 2}),
        r"the names in a state dict must be strings, but this one has 1 \(int\)",
    ),
    (lambda: statedict.KeyMap("a -> b").rename(3), r"state= must be a mapping, such as a dict, not 3 \(int\)"),
    (lambda: statedict.KeyMap.from_toml("nope"), "the text of a key map is not valid TOML: Expected '='"),
    (
        lambda: statedict.save(MODEL, io.BytesIO(), metadata=3),
        r"metadata= must be a mapping, such as a dict, not 3 \(int\)",
    ),
]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_the_error_names_the_argument(number):
    """The text has the argument, what it should be, and what it is."""
    act, text = TEXTS[number]
    with pytest.raises((TypeError, ValueError), match=text):
        act()


def test_limits_and_devices(file):
    """The error for a value that is not a Limits, or not a device of PyTorch, says so."""
    with pytest.raises(TypeError, match=r"limits= must be a statedict\.Limits\(…\), not 3"):
        statedict.open(file, limits=3)
    with pytest.raises(ValueError, match="'nope' is not a device: Expected one of cpu"):
        statedict.load(file, map_location="nope")


def test_a_module_that_can_read_is_a_module():
    """A method `read` does not make a file of a module, whatever it is given to."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def read(self, text):
            return text

        def seek(self, place):
            return place

    assert statedict.load_state_dict(Reader(), Reader()).ok
    assert not statedict.diff(Reader(), Reader())
    assert not statedict.match(Reader(), Reader()).unfilled
    assert torch.equal(statedict.merge([Reader(), Reader()])["weight"], torch.ones(2))

    class Stateful:
        def state_dict(self):
            return {"epoch": 3}

        def load_state_dict(self, state):
            self.state = state

        read = seek = None

    statedict.load_state_dict(taker := Stateful(), Stateful())
    assert taker.state == {"epoch": 3}
    with pytest.raises(NotAStateError, match="A source is a path"):
        statedict.load_state_dict(MODEL, io.BytesIO)
