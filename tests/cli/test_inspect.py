"""statedict inspect: the answers a person with a file wants, and no more than its headers read."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from statedict.cli._inspect import parts_of

SCRIPT = "import sys; sys.modules['torch'] = None; from statedict.cli import main; main(sys.argv[1:])"


def program(*arguments, script=SCRIPT, **options):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, timeout=120, **options
    )


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """A training checkpoint as PyTorch writes it: model (with ties), optimizer, epoch, arguments."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.ModuleDict(
        {"encoder": nn.TransformerEncoder(layer, 3), "embed": nn.Embedding(5, 8), "head": nn.Linear(8, 5)}
    )
    model["head"].weight = model["embed"].weight
    optimizer = torch.optim.AdamW(model.parameters())
    path = tmp_path_factory.mktemp("files") / "run.pt"
    options = argparse.Namespace(lr=0.1, name="tiny")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7, "options": options}, path)
    return path


def test_a_person_sees_the_layers_folded(call, run_file):
    """One screen: format, size, roots, repeated layers as one row, ties, other content, classes that are not known."""
    ended = call("inspect", run_file)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"{run_file}: ")
    assert "root model" in ended.out
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert rows["encoder.layers.{0…2}"].split()[-1] == "3×"
    assert rows["self_attn"]
    assert "24×8" in rows["in_proj_weight"]
    assert "= embed.weight" in ended.out
    assert "7" in rows["epoch"]
    assert "argparse.Namespace" in rows["options"]
    assert "tiny" in rows["options/name"]


def test_json_tells_everything(call, run_file):
    """The documented shape: every tensor by name, dtype, shape and bytes; ties; totals; other content."""
    told = json.loads(call("inspect", run_file, "--json").out)
    assert list(told) == [
        "schema",
        "file",
        "format",
        "producer",
        "bytes",
        "auto",
        "roots",
        "other",
        "globals",
        "metadata",
        "notes",
        "unopened",
    ]
    assert told["schema"] == 1
    assert told["bytes"] == run_file.stat().st_size
    expected = torch.load(run_file, weights_only=False)
    model = next(root for root in told["roots"] if root["path"] == "model")
    assert [(t["name"], tuple(t["shape"])) for t in model["tensors"]] == [
        (name, tuple(value.shape)) for name, value in expected["model"].items()
    ]
    assert {t["name"]: t["tied_to"] for t in model["tensors"] if "tied_to" in t} == {"head.weight": "embed.weight"}
    others = {fact["path"]: fact["value"] for fact in told["other"]}
    assert others["epoch"] == 7
    assert others["options/lr"] == 0.1


def test_one_root_and_matching_names(call, run_file):
    """--root shows one state dict, --match some of its names, --flat each on a row of its own."""
    told = json.loads(call("inspect", run_file, "--root", "model", "--match", "*.norm1.*", "--json").out)
    assert [root["path"] for root in told["roots"]] == ["model"]
    assert [t["name"] for t in told["roots"][0]["tensors"]] == [
        f"encoder.layers.{i}.norm1.{leaf}" for i in range(3) for leaf in ("weight", "bias")
    ]
    flat = call("inspect", run_file, "--root", "model", "--match", "*.norm1.*", "--flat").out
    assert [line.split()[0] for line in flat.splitlines() if ".norm1." in line] == [
        t["name"] for t in told["roots"][0]["tensors"]
    ]


def test_statistics(call, run_file):
    """--stats are NumPy's."""
    told = json.loads(call("inspect", run_file, "--root", "model", "--match", "head.bias", "--stats", "--json").out)
    bias = torch.load(run_file, weights_only=False)["model"]["head.bias"].numpy().astype(np.float64)
    ((found,),) = [[t["stats"] for t in root["tensors"]] for root in told["roots"]]
    expected = {
        "min": bias.min(),
        "max": bias.max(),
        "mean": bias.mean(),
        "std": bias.std(),
        "zeros": 0,
        "nan": 0,
        "inf": 0,
    }
    assert found == pytest.approx(expected)
    assert f"{bias.min():.4g}" in call("inspect", run_file, "--root", "model", "--match", "head.bias", "--stats").out


def test_values(call, run_file):
    """--values prints the elements of one tensor; a name that is not there is told with those that are near."""
    bias = torch.load(run_file, weights_only=False)["model"]["head.bias"].numpy()
    assert call("inspect", run_file, "--values", "head.bias").out == f"{bias}\n"
    told = json.loads(call("inspect", run_file, "--values", "head.bias", "--json").out)
    assert (told["root"], told["name"], told["values"]) == ("model", "head.bias", bias.tolist())
    ended = call("inspect", run_file, "--root", "model", "--values", "head.bais")
    assert (ended.code, ended.out) == (2, "")
    assert "did you mean 'head.bias'" in ended.err


def test_a_state_dict_that_is_the_file(call, tmp_path):
    """A plain state dict is the root of its file, and needs no heading."""
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "linear.pt")
    out = call("inspect", tmp_path / "linear.pt").out
    assert "\nroot " not in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith(("weight", "bias"))] == [
        ["weight", "3×2", "float32"],
        ["bias", "3", "float32"],
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [(None, "No such file"), (b"", "empty"), (b"<!DOCTYPE html><html>", "HTML"), (b"\0" * 64, "")],
    ids=["missing", "empty", "a web page", "zeros"],
)
def test_mistakes_are_one_line(call, tmp_path, made, said):
    """A wrong file is one line on standard error that names it, exit code 2, and no traceback."""
    path = tmp_path / "wrong.pt"
    if made is not None:
        path.write_bytes(made)
    ended = call("inspect", path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("statedict: ")
    assert str(path) in ended.err
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_an_unknown_root_is_told_with_those_there_are(call, run_file):
    """--root with a path that is not there lists the roots of the file."""
    ended = call("inspect", run_file, "--root", "modle")
    assert (ended.code, ended.out) == (2, "")
    assert "'model'" in ended.err


def test_parameters_are_counted(call, run_file):
    """The totals count the elements of a model, tied tensors once, as parameters; those of an optimizer are elements."""
    model = torch.load(run_file, weights_only=False)["model"]
    expected = sum(value.numel() for name, value in model.items() if name != "head.weight")
    shown = call("inspect", run_file).out
    assert f"{len(model)} tensors, {expected:,} parameters, " in shown
    optimizer = call("inspect", run_file, "--root", "optimizer").out
    assert " parameters, " not in optimizer
    facts = json.loads(call("inspect", run_file, "--json").out)["roots"]
    (counted,) = (root for root in facts if root["path"] == "model")
    assert sum(total["elements"] for total in counted["dtypes"].values()) == expected


def test_tensors_are_sorted(call, run_file):
    """`--sort size` lists the largest tensors first, `--sort name` all in the order of their names, without folding."""
    sizes = [t["bytes"] for root in _roots(call, run_file, "--sort", "size") for t in root["tensors"]]
    assert sizes == sorted(sizes, reverse=True)
    names = [t["name"] for root in _roots(call, run_file, "--sort", "name") for t in root["tensors"]]
    assert names == sorted(names)
    assert "encoder.layers.1.norm1.weight" in call("inspect", run_file, "--sort", "size").out


def _roots(call, file, *options):
    return json.loads(call("inspect", file, "--root", "model", *options, "--json").out)["roots"]


def test_a_root_without_tensors_has_none_to_list(call, tmp_path):
    """The option that lists the tensors of a root is named only for roots that have some."""
    states = {
        "model": nn.Linear(1, 1).state_dict(),
        "ema": nn.Linear(2, 1).state_dict(),
        "criterion": nn.MSELoss().state_dict(),
    }
    torch.save(states, tmp_path / "run.pt")
    shown = call("inspect", tmp_path / "run.pt").out
    assert "root criterion\n0 tensors\n" in shown
    assert "--root criterion" not in shown
    assert "(use --root ema to list its tensors)" in shown


def test_hostile_names_cannot_reach_the_terminal(call, tmp_path):
    """Escape sequences and markup in a file's names and values are shown, not obeyed."""
    torch.save({"a\x1b[31m.[bold]w\n": torch.zeros(2), "note": "x\x1b]0;owned\x07"}, tmp_path / "hostile.pt")
    ended = call("inspect", tmp_path / "hostile.pt")
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out
    assert "\x07" not in ended.out
    assert "\\x1b[31m.[bold]w\\n" in ended.out


def test_without_torch_or_numpy(run_file):
    """The whole process imports neither torch nor numpy."""
    script = SCRIPT.replace(
        "main(sys.argv[1:])", "import atexit; atexit.register(lambda: print(sorted(sys.modules)));"
    ) + ("main(sys.argv[1:])")
    ended = program("inspect", run_file, script=script, text=True)
    assert ended.returncode == 0, ended.stderr
    modules = ended.stdout.splitlines()[-1]
    assert "'statedict.formats'" in modules
    assert "'numpy'" not in modules


def test_values_of_the_state_dict_that_the_file_is_about(call, tmp_path):
    """A name that several state dicts have is the model's; one that only others share needs --root."""
    model, ema = {"w": torch.zeros(2), "x": torch.zeros(1)}, {"w": torch.ones(2)}
    torch.save(
        {"model": model, "ema": ema, "more": {"y": torch.ones(1)}, "most": {"y": torch.ones(1)}}, tmp_path / "a.pt"
    )
    assert call("inspect", tmp_path / "a.pt", "--values", "w").out == "[0. 0.]\n"
    assert call("inspect", tmp_path / "a.pt", "--values", "w", "--root", "ema").out == "[1. 1.]\n"
    ended = call("inspect", tmp_path / "a.pt", "--values", "y")
    assert (ended.code, ended.out) == (2, "")
    assert "several state dicts have 'y'" in ended.err


def test_hyper_parameters_of_an_optimizer(call, run_file):
    """The learning rate is on the first screen."""
    rows = [line.split() for line in call("inspect", run_file).out.splitlines()]
    assert ["param_groups/0/lr", "float", "0.001"] in rows


def parts(*names):
    return sorted(set(parts_of(names)))


def test_parts():
    """A part is the first label in which the modules' paths differ; repeated layers are one."""
    assert parts("encoder.0.w", "encoder.1.w", "head.w") == ["encoder", "head"]
    assert parts("net.layers.0.q.w", "net.layers.1.k.w") == ["net.layers.*.k", "net.layers.*.q"]
    assert parts("state.0.exp_avg", "state.1.exp_avg") == ["state.*"]
    assert parts("w", "b") == [""]
    assert parts() == []


def test_steps_of_an_optimizer_are_one_row(call, tmp_path):
    """Equal values under paths that differ in a number are told once, unless --flat; others stay."""
    state = {i: {"step": 5, "exp_avg": torch.zeros(2)} for i in (10**14, 10**14 + 7, *range(20))}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(state)}]}
    torch.save({"model": {"w": torch.zeros(2)}, "optimizer": optimizer}, tmp_path / "run.pt")
    rows = [line.split() for line in call("inspect", tmp_path / "run.pt").out.splitlines()]
    assert ["state.{0…19,…+2}.step", "int", "5"] in rows
    flat = [line.split() for line in call("inspect", tmp_path / "run.pt", "--flat").out.splitlines()]
    assert ["state.19.step", "int", "5"] in flat


def test_a_name_on_the_hub_is_recognised(call, tmp_path, monkeypatch):
    """What looks like a repository of the Hugging Face Hub gets the form in which its files are opened."""
    monkeypatch.chdir(tmp_path)
    for name in ("org/some-model", "meta-llama/Llama-3.1-8B"):
        ended = call("inspect", name)
        assert ended.code == 2
        assert ended.err.startswith(f"statedict: {name}: No such file or directory; models on the Hugging Face Hub are")
        assert f"opened as hf://{name}" in ended.err
    (tmp_path / "here").mkdir()
    for name in ("here/model", "absent/model.pt", "absent", "a/b/c"):
        assert call("inspect", name).err == f"statedict: {name}: No such file or directory\n"


def test_no_word_is_broken_in_sixty_columns(call, monkeypatch, tmp_path):
    """A narrow table keeps names, labels and numbers whole; lines in the place of columns break between them."""
    state = {f"layers.{i}.attention.weight": torch.randn(3, 4) for i in range(2)}
    names = {"param_groups": [{"params": [0], "decoupled_weight_decay": True, "lr": 0.25}]}
    torch.save({"model": state, "optimizer": {"state": {}} | names}, tmp_path / "run.pt")
    for options in (["--root", "model", "--stats"], ["--root", "optimizer", "--flat"], []):
        monkeypatch.setenv("COLUMNS", "60")
        words = set(call("inspect", tmp_path / "run.pt", *options).out.split())
        monkeypatch.setenv("COLUMNS", "300")
        assert set(call("inspect", tmp_path / "run.pt", *options).out.split()) - words <= set(HEADINGS)
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("inspect", tmp_path / "run.pt", "--root", "model", "--stats").out.splitlines()
    assert all(line.split()[-1] not in ("min", "max", "mean", "std", "zeros", "nan", "inf") for line in lines if line)


HEADINGS = ("name", "shape", "dtype", "size", "other", "content", "type", "value")
