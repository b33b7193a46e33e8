"""statedict match: what a load would do, without doing it."""

import json

import pytest
import torch


def net(prefix="", classes=3, encoder="encoder"):
    return {
        f"{prefix}{encoder}.{i}.{leaf}": torch.zeros(shape)
        for i in range(3)
        for leaf, shape in (("weight", (4, 4)), ("bias", 4))
    } | {f"{prefix}head.weight": torch.zeros(classes, 4)}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": net("module."), "epoch": 3}, "theirs.pt")
    torch.save(net(), "mine.pt")
    torch.save(net(classes=5), "larger.pt")
    torch.save(net(encoder="layers"), "renamed.pt")
    (tmp_path / "zoo_for_match.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    encoder = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))\n"
        "    return nn.ModuleDict({'encoder': encoder, 'head': nn.Linear(4, 3, bias=False)})\n"
    )
    return tmp_path


def test_it_fits(call, files):
    """A file that would load, wrapper and root and all: exit code 0."""
    assert call("match", "theirs.pt", "--keys", "mine.pt").code == 0
    assert call("match", "theirs.pt", "--model", "zoo_for_match:make").code == 0


def test_it_does_not_fit(call, files):
    """What does not fit is listed, with the names: exit code 1; leaving it out makes it fit."""
    ended = call("match", "mine.pt", "--keys", "larger.pt")
    assert ended.code == 1
    assert "head.weight" in ended.out
    told = json.loads(call("match", "mine.pt", "--keys", "larger.pt", "--json").out)
    assert (told["schema"], told["ok"], len(told["loaded"]), len(told["mismatched"])) == (1, False, 6, 1)
    assert call("match", "mine.pt", "--keys", "larger.pt", "--exclude", "head").code == 0
    assert call("match", "mine.pt", "--keys", "larger.pt", "--mismatched", "skip").code == 0


def test_rules(call, files):
    """--rename and --map make other names fit; --infer finds them, and --save-map writes what --map reads."""
    assert call("match", "renamed.pt", "--keys", "mine.pt").code == 1
    assert call("match", "renamed.pt", "--keys", "mine.pt", "--rename", "layers -> encoder").code == 0
    inferred = call("match", "renamed.pt", "--keys", "mine.pt", "--infer", "--save-map", "names.toml")
    assert (inferred.code, inferred.err) == (0, "")
    assert call("match", "renamed.pt", "--keys", "mine.pt", "--map", "names.toml").code == 0
    told = json.loads(call("match", "renamed.pt", "--keys", "mine.pt", "--infer", "--json").out)
    assert list(told) == ["schema", "rules", "steps", "unmatched", "unfilled"]
    assert [list(step) for step in told["steps"][:1]] == [["source", "target", "reason"]]
    assert (told["unmatched"], told["unfilled"]) == ([], [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "exactly one of them is required"),
        (["--keys", "mine.pt", "--model", "a:b"], "exactly one of them is required"),
        (["--model", "no_such_module:make"], "no_such_module"),
        (["--model", "zoo_for_match:nothing"], "nothing"),
        (["--model", "zoo_for_match"], "zoo_for_match"),
        (["--keys", "mine.pt", "--mismatched", "ignore"], "ignore"),
        (["--keys", "mine.pt", "--rename", "nonsense"], "nonsense"),
    ],
)
def test_mistakes(call, files, options, said):
    """A mistake is told: exit code 2."""
    ended = call("match", "mine.pt", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
