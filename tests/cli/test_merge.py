"""statedict merge: what the method says arrives in the file."""

import json

import numpy as np
import pytest
import torch

import statedict


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(0)
    states = [{"w": torch.randn(3, 4), "step": torch.tensor(n)} for n in range(3)]
    for n, state in enumerate(states):
        torch.save({"model": state}, tmp_path / f"{n}.pt")
    return tmp_path, [state["w"] for state in states]


def test_average(call, files):
    """The average of three files is their mean."""
    place, weights = files
    ended = call("merge", *(place / f"{n}.pt" for n in range(3)), "-o", place / "mean.pt")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{place / 'mean.pt'}: average of 3 files, 2 tensors, 56 B\n"
    torch.testing.assert_close(torch.load(place / "mean.pt")["w"], torch.stack(weights).mean(0))


def test_weights_and_base(call, files):
    """Task arithmetic adds weighted differences to the base; slerp takes one weight; --json says what was written."""
    place, (base, a, b) = files
    options = ["--method", "task_arithmetic", "--base", place / "0.pt", "--weight", "0.5", "--weight", "2"]
    ended = call("merge", place / "1.pt", place / "2.pt", "-o", place / "out.pt", *options, "--json")
    assert json.loads(ended.out) == {
        "schema": 1, "file": str(place / "out.pt"), "method": "task_arithmetic", "tensors": 2, "bytes": 56,
    }  # fmt: skip
    torch.testing.assert_close(torch.load(place / "out.pt")["w"], base + 0.5 * (a - base) + 2 * (b - base))
    slerp = ["--method", "slerp", "--weight", "0", "--root", "model"]
    assert call("merge", place / "1.pt", place / "2.pt", "-o", place / "out.safetensors", *slerp).code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "median"], "median"),
        (["--method", "task_arithmetic"], "base"),
        (["--weight", "1"], "--weight [1.0]"),
        (["--method", "ties"], "needs --base and --density"),
        (["--density", "0.5"], "--density is not used by --method 'average'"),
        (["--method", "ema", "--decay", "2"], "--decay 2.0"),
        (["--method", "lora"], "1.pt has no adapter_config.json, or one that is not valid JSON"),
        (["--root", "ema"], "'model'"),
    ],
)
def test_mistakes(call, files, options, said):
    """A mistake is told, exit code 2, and no file is made."""
    place, _ = files
    ended = call("merge", place / "0.pt", place / "1.pt", "-o", place / "out.pt", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert not (place / "out.pt").exists()


def test_states_that_do_not_go_together(call, files):
    """Files with other shapes are refused, naming the file and what differs."""
    place, _ = files
    torch.save({"w": torch.zeros(2), "step": torch.tensor(0)}, place / "other.pt")
    ended = call("merge", place / "0.pt", place / "other.pt", "-o", place / "out.pt")
    assert (ended.code, ended.out) == (2, "")
    assert f"{place / 'other.pt'} has different shapes for w" in ended.err
    assert not (place / "out.pt").exists()


def test_texts_that_differ_are_told(call, tmp_path):
    """Texts of the files that all have in common are in the output; those that differ are named on standard error."""
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        statedict.save({"w": np.ones(2)}, path, metadata={"license": "MIT", "step": str(number)})
    out = tmp_path / "out.safetensors"
    ended = call("merge", tmp_path / "0.safetensors", tmp_path / "1.safetensors", "-o", out)
    assert ended.code == 0
    assert ended.err == "statedict: not merged: the metadata 'step', which differs between the sources\n"
    with statedict.open(out) as checkpoint:
        assert checkpoint.texts == {"license": "MIT"}


def test_ties_dare_and_ema(call, files):
    """Options arrive at the methods: the file has what `merge` returns."""
    place, _ = files
    for method, options in {
        "ties": {"base": place / "0.pt", "density": 0.5, "weights": [1, 2]},
        "dare_ties": {"base": place / "0.pt", "density": 0.5, "seed": 3},
        "ema": {"decay": 0.9},
    }.items():
        said = [word for name, value in options.items() if name != "weights" for word in (f"--{name}", value)]
        said += [word for weight in options.get("weights", ()) for word in ("--weight", weight)]
        ended = call("merge", place / "1.pt", place / "2.pt", "-o", place / "out.pt", "--method", method, *said)
        assert (ended.code, ended.err) == (0, "")
        expected = statedict.merge([place / "1.pt", place / "2.pt"], method, **options).torch()
        assert torch.equal(torch.load(place / "out.pt")["w"], expected["w"])


def test_an_extracted_lora_is_a_folder_that_merges_again(call, tmp_path):
    """`extract_lora` writes the two files of PEFT; `lora` adds them to the base; an existing folder is not touched."""
    torch.manual_seed(0)
    base = {"layer.q.weight": torch.randn(6, 8), "layer.q.bias": torch.randn(6), "norm.weight": torch.ones(6)}
    change = {"layer.q.weight": torch.randn(6, 2) @ torch.randn(2, 8), "norm.weight": torch.randn(6)}
    tuned = {name: value + change.get(name, 0) for name, value in base.items()}
    for name, state in (("base", base), ("tuned", tuned)):
        statedict.save(state, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "tuned")]
    options = ["--method", "extract_lora", "--base", files[0], "--rank", "2", "-o", f"{tmp_path}/adapter/"]
    ended = call("merge", files[1], *options)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = call("merge", files[1], *options)
    assert (again.code, "an adapter is written to a new" in again.err, "--output" in again.err) == (2, True, True)
    assert call("merge", files[0], tmp_path / "adapter", "--method", "lora", "-o", tmp_path / "out.pt").code == 0
    merged = torch.load(tmp_path / "out.pt")
    assert merged.keys() == tuned.keys()
    for name, value in tuned.items():
        torch.testing.assert_close(merged[name], value)
    failed = call("merge", files[0], *options[:-1], tmp_path / "none")
    assert (failed.code, "does not differ from its base" in failed.err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter",
        "base.safetensors",
        "out.pt",
        "tuned.safetensors",
    ]
