"""statedict convert: what the options say arrives in the file, read back by the format's own library."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from statedict.cli._progress import counted
from statedict.state import Leaf, StateDict


@pytest.fixture
def model(tmp_path):
    """A training checkpoint with a tie and an integer buffer."""
    torch.manual_seed(0)
    made = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "head": nn.Linear(4, 2)})
    made["tied"] = nn.Linear(4, 2)
    made["tied"].weight = made["head"].weight
    torch.save({"model": made.state_dict(), "epoch": 2}, tmp_path / "run.pt")
    return tmp_path / "run.pt"


def load(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_formats(call, model, tmp_path, suffix):
    """The destination's name says the format; every tensor arrives."""
    target = tmp_path / f"out.{suffix}"
    ended = call("convert", model, target)
    assert ended.code == 0
    expected = torch.load(model)["model"]
    assert ended.out == f"{target}: {len(expected)} tensors, {StateDict(expected).nbytes} B\n"
    found = load(target)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_part_under_other_names(call, model, tmp_path):
    """--include, --exclude and --rename choose and name; a rule that fits nothing is told."""
    options = ["--include", "encoder", "--exclude", "*.num_batches_tracked", "--rename", "encoder.{*p} -> net.{*p}"]
    ended = call("convert", model, tmp_path / "out.pt", *options, "--rename", "decoder -> x")
    assert ended.code == 0
    assert "decoder" in ended.err
    names = ["net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias", "net.1.running_mean", "net.1.running_var"]
    assert list(load(tmp_path / "out.pt")) == names


def test_a_saved_map(call, model, tmp_path):
    """--map reads what KeyMap.to_toml wrote."""
    (tmp_path / "names.toml").write_text('rules = [\n    "head -> classifier",\n]\n')
    assert call("convert", model, tmp_path / "out.pt", "--map", tmp_path / "names.toml").code == 0
    assert "classifier.weight" in load(tmp_path / "out.pt")


def test_dtypes(call, model, tmp_path):
    """--dtype casts floating-point tensors; of several that fit, the last counts; integers stay as they are."""
    options = ["--dtype", "bfloat16", "--dtype", "head=float64", "--dtype", "head.bias=float16"]
    assert call("convert", model, tmp_path / "out.pt", *options).code == 0
    found, expected = load(tmp_path / "out.pt"), torch.load(model)["model"]
    wanted = {"head.weight": torch.float64, "head.bias": torch.float16, "encoder.1.num_batches_tracked": torch.int64}
    assert {name: t.dtype for name, t in found.items()} == {name: wanted.get(name, torch.bfloat16) for name in expected}
    assert all(torch.equal(found[name], expected[name].to(found[name].dtype)) for name in expected)


def test_standard_output(model):
    """`-` writes the file to standard output, and nothing else there."""
    command = [sys.executable, "-m", "statedict", "convert", str(model), "-", "--format", "safetensors"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[8 : 8 + int.from_bytes(done.stdout[:8], "little")])
    assert done.stderr.splitlines()[-1].startswith(b"-: 11 tensors")


def test_json(call, model, tmp_path):
    """--json says what was written."""
    told = json.loads(call("convert", model, tmp_path / "out.pt", "--json").out)
    assert told == {"schema": 1, "file": str(tmp_path / "out.pt"), "shards": 1, "tensors": 11, "bytes": 216}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--include", "nothing"], "none of the 11 names is left"),
        (["--dtype", "int8"], "'int8' is no floating-point dtype"),
        (["--dtype", "head=float31"], "'float31' is no floating-point dtype"),
        (["--rename", "no arrow"], "no arrow"),
        (["--rename", "head -> tied"], "would both become 'tied.weight'"),
        (["--root", "ema"], "'model'"),
        (["--format", "jpeg"], "jpeg"),
        (["--map", "no-such.toml"], "No such file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes(call, model, tmp_path, options, said):
    """A mistake is told, exit code 2, and no file is made."""
    ended = call("convert", model, tmp_path / "out.pt", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert not (tmp_path / "out.pt").exists()


def test_the_bar_counts_every_byte_and_keeps_ties():
    """A counted state gives the same tensors, tied as before, and ticks once for each byte that it reads."""
    weight = torch.arange(6.0)
    state = StateDict({"a": weight, "b": weight, "c": torch.ones(3), "step": 5})
    ticks = []
    shown = counted(StateDict({n: state.leaf(n) or state[n] for n in state}), ticks.append)
    assert shown.tied == [("a", "b")]
    assert [type(shown.leaf(name)) for name in "abc"] == [Leaf] * 3
    assert torch.equal(shown["b"], weight)
    assert torch.equal(shown["c"], torch.ones(3))
    assert shown["step"] == 5
    assert sum(ticks) == 24 + 12
