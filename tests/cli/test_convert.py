"""statedict convert: what the options say arrives in the file, read back by the format's own library."""

import argparse
import io
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import statedict
from statedict.cli._progress import counted, showing
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
    """The suffix of the destination is its format; every tensor arrives, in safetensors tied ones once."""
    target = tmp_path / f"out.{suffix}"
    ended = call("convert", model, target)
    assert ended.code == 0
    expected = torch.load(model)["model"]
    kind = {"pt": "torch"}.get(suffix, suffix)
    assert ended.out == f"{target}: {kind}, {len(expected)} tensors, {StateDict(expected).nbytes} B\n"
    found = load(target)
    assert found.keys() == expected.keys() - ({"tied.weight"} if suffix == "safetensors" else set())
    assert all(torch.equal(found[name], expected[name]) for name in found)
    with statedict.open(target) as checkpoint:
        assert list(checkpoint.state_dict()) == list(expected)


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
    options = ["--dtype", "bf16", "--dtype", "head=float64", "--dtype", "head.bias=torch.float16"]
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
    assert done.stderr.splitlines()[-1].startswith(b"-: safetensors, 11 tensors")


def test_json(call, model, tmp_path):
    """--json says what was written."""
    told = json.loads(call("convert", model, tmp_path / "out.pt", "--json").out)
    assert told == {
        "schema": 1, "file": str(tmp_path / "out.pt"), "format": "torch", "shards": 1, "tensors": 11, "bytes": 216
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--include", "nothing"], "none of the 11 names matches"),
        (["--dtype", "int8"], "'int8' is not a floating-point dtype"),
        (["--dtype", "head=float31"], "'float31' is not a floating-point dtype"),
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


def test_what_is_left_behind_is_told(call, model, tmp_path):
    """One state dict is written; what else the file holds is named, unless the state dict was chosen by its path."""
    assert "not converted: 'epoch'" in call("convert", model, tmp_path / "out.pt").err
    assert call("convert", model, tmp_path / "out.pt", "--root", "model").err == ""
    assert call("convert", tmp_path / "out.pt", tmp_path / "again.pt").err == ""


def test_all_of_a_file(call, tmp_path):
    """`--root '*'` rewrites everything that an old file holds: state dicts, plain values, objects of unknown classes."""
    torch.manual_seed(0)
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}
    run["arguments"] = argparse.Namespace(rate=0.1)
    torch.save(run, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    ended = call("convert", tmp_path / "old.pt", tmp_path / "new.pt", "--root", "*")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{tmp_path / 'new.pt'}: torch, 8 tensors, {3 * (6 + 3) * 4 + 8} B\n"
    assert (tmp_path / "new.pt").read_bytes()[:2] == b"PK"
    found = torch.load(tmp_path / "new.pt", weights_only=False)
    assert (found["epoch"], found["arguments"], list(found)) == (7, run["arguments"], list(run))
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in run["model"].items())
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], run["optimizer"]["state"][0]["exp_avg"])


def test_all_of_a_file_that_would_run_code(call, tmp_path):
    """`--root '*'` does not pass on what would run code; the state dict alone is harmless."""

    class Command:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"model": {"w": torch.ones(2)}, "command": Command()}, tmp_path / "evil.pt")
    ended = call("convert", tmp_path / "evil.pt", tmp_path / "out.pt", "--root", "*")
    assert (ended.code, ended.out) == (2, "")
    assert "system" in ended.err
    assert call("convert", tmp_path / "evil.pt", tmp_path / "out.pt").code == 0
    assert list(torch.load(tmp_path / "out.pt", weights_only=True)) == ["w"]


def test_shards(call, model, tmp_path):
    """--max-shard-size writes shards and their index, and tells the index, which opens them all."""
    ended = call("convert", model, tmp_path / "out.safetensors", "--max-shard-size", "100B", "--json")
    told = json.loads(ended.out)
    assert told["file"] == str(tmp_path / "out.safetensors.index.json")
    assert told["shards"] == len(list(tmp_path.glob("out-*.safetensors"))) > 1
    assert call("diff", model, told["file"], "--root", "model", "--second-root", "").code == 0


def test_the_bar_is_shown_on_a_terminal_only(monkeypatch):
    """A large state moves a bar on a terminal's standard error; elsewhere it is read as it is."""
    state = StateDict({"w": torch.zeros(4, 1000)})
    monkeypatch.setattr("statedict.cli._progress.WORTH_SHOWING", 1000)
    with showing(state, "writing") as shown:
        assert shown is state
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with showing(StateDict({"w": state.leaf("w")}), "writing") as shown:
        assert torch.equal(shown["w"], state["w"])
    assert "writing" in terminal.getvalue()
    assert "16.0/16.0 kB" in terminal.getvalue()


def test_metadata_goes_along(call, tmp_path):
    """Text kept with the file is kept; where the format has no room for it, that is told."""
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"rank": "8"})
    assert call("convert", tmp_path / "a.safetensors", tmp_path / "b.pt").err == ""
    assert "metadata 'rank': '8'" in call("inspect", tmp_path / "b.pt").out
    save_file({"a": torch.ones(2)}, tmp_path / "c.safetensors", {"long": "x" * 70_000})
    ended = call("convert", tmp_path / "c.safetensors", tmp_path / "c.npz")
    assert (ended.code, "not converted: the file's metadata 'long'" in ended.err) == (0, True)
