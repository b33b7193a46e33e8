"""statedict merge: what the method says arrives in the file."""

import json

import pytest
import torch


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
        (["--weight", "1"], "weights"),
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
    """Files with other shapes are refused, naming what differs."""
    place, _ = files
    torch.save({"w": torch.zeros(2), "step": torch.tensor(0)}, place / "other.pt")
    ended = call("merge", place / "0.pt", place / "other.pt", "-o", place / "out.pt")
    assert (ended.code, ended.out) == (2, "")
    assert "w" in ended.err
    assert not (place / "out.pt").exists()
