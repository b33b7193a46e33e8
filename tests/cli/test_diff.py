"""statedict diff: says what changed, and tells scripts by its exit code."""

import json

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def files(tmp_path):
    """The same state as .pt and as safetensors, and a changed one."""
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(3, 4), "a.bias": torch.zeros(3), "step": torch.tensor(5)}
    changed = {"a.weight": state["a.weight"] + 0.5, "a.bias": torch.zeros(4), "b.bias": torch.ones(2)}
    torch.save({"model": state, "ema": changed}, tmp_path / "run.pt")
    torch.save(changed, tmp_path / "changed.pt")
    save_file(state, tmp_path / "same.safetensors")
    return tmp_path


def test_the_same_state_in_two_formats(call, files):
    """Two files of one state are the same, whatever their formats: exit code 0."""
    ended = call("diff", files / "run.pt", files / "same.safetensors", "--root", "model", "--second-root", "")
    assert (ended.code, ended.err) == (0, "")


def test_differences(call, files):
    """What was added, removed, reshaped and changed is listed: exit code 1."""
    ended = call("diff", files / "run.pt", files / "run.pt", "--root", "model", "--second-root", "ema", "--json")
    assert ended.code == 1
    told = json.loads(ended.out)
    assert (told["schema"], told["same"]) == (1, False)
    assert list(told["added"]) == ["b.bias"]
    assert list(told["removed"]) == ["step"]
    assert told["shape"] == {"a.bias": [[3], [4]]}
    assert list(told["changed"]) == ["a.weight"]
    text = call("diff", files / "same.safetensors", files / "changed.pt")
    assert text.code == 1
    assert "1 added" in text.out


def test_the_state_dict_that_was_compared_is_named(call, files):
    """If a file has several state dicts and no --root is given, standard error says which one was compared."""
    torch.save({"model": {"a.weight": torch.ones(2)}, "ema": {"a.weight": torch.ones(2)}}, files / "two.pt")
    ended = call("diff", files / "run.pt", files / "two.pt", "--json")
    lines = [
        f"statedict: {files / name}: used root 'model', the checkpoint also has 'ema'\n"
        for name in ("run.pt", "two.pt")
    ]
    assert ended.err == "".join(lines)
    assert json.loads(ended.out)["removed"].keys() == {"a.bias", "step"}
    assert call("diff", files / "run.pt", files / "two.pt", "--root", "model").err == ""
    assert call("match", files / "two.pt", files / "run.pt").err == "".join(reversed(lines))


def test_some_names(call, files):
    """--include and --exclude limit what is compared."""
    same = ["diff", files / "same.safetensors", files / "changed.pt"]
    assert call(*same, "--include", "a", "--exclude", "a.weight", "--exclude", "a.bias").code == 0
    assert call(*same, "--include", "a.weight").code == 1


def test_mistakes(call, files):
    """A file that is not there, or a root that is not, is a mistake: exit code 2."""
    assert call("diff", files / "run.pt", files / "none.pt").code == 2
    assert call("diff", files / "run.pt", files / "run.pt", "--root", "optimizer").code == 2
