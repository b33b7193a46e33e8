"""statedict match: what a load would do, without doing it."""

import json
import shlex

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
    assert call("match", "theirs.pt", "mine.pt").code == 0
    assert call("match", "theirs.pt", "--model", "zoo_for_match:make").code == 0
    assert call("match", "theirs.pt", "--model", "zoo_for_match.make").code == 0


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
    assert list(told) == ["schema", "rules", "steps", "unmatched", "unfilled", "maps"]
    assert [list(step) for step in told["steps"][:1]] == [
        ["source", "target", "reason", "certain", "operations", "decides"]
    ]
    assert (told["unmatched"], told["unfilled"]) == ([], [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "exactly one of them is required"),
        (["--keys", "mine.pt", "--model", "a:b"], "exactly one of them is required"),
        (["mine.pt", "--keys", "mine.pt"], "exactly one of them is required"),
        (["--model", "no_such_module:make"], "no_such_module"),
        (["--model", "zoo_for_match:nothing"], "nothing"),
        (["--model", "zoo_for_match"], "name a function in it"),
        (["--keys", "mine.pt", "--mismatched", "ignore"], "ignore"),
        (["--keys", "mine.pt", "--rename", "nonsense"], "nonsense"),
    ],
)
def test_mistakes(call, files, options, said):
    """A mistake is told: exit code 2."""
    ended = call("match", "mine.pt", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ", line " not in ended.err  # of our code, or of Python's


@pytest.mark.parametrize(
    ("file", "keys", "options"),
    [
        ("mine.pt", "larger.pt", "--mismatched head=skip"),
        ("renamed.pt", "mine.pt", "--rename 'layers.{*p} -> encoder.{*p}'"),
        ("more.pt", "mine.pt", "--allow-unexpected extra"),
        ("mine.pt", "more.pt", "--allow-missing extra"),
        ("encoder.pt", "mine.pt", "--into encoder"),
    ],
)
def test_advice_is_a_command(call, files, file, keys, options):
    """A suggestion is this command with the options that make the file load; `--json` has the same."""
    torch.save(net() | {"extra.w": torch.zeros(3)}, "more.pt")
    torch.save({name[8:]: value for name, value in net().items() if name.startswith("encoder.")}, "encoder.pt")
    command = f"statedict match {file} --keys {keys} {options}"
    ended = call("match", file, "--keys", keys)
    assert (ended.code, f"    {command}\n" in ended.out) == (1, True)
    told = json.loads(call("match", file, "--keys", keys, "--json").out)
    assert command in [one["call"] for one in told["suggestions"]]
    assert call(*shlex.split(command)[1:]).code == 0


def test_advice_keeps_the_options_given(call, files):
    """The roots that were chosen are in the suggested command."""
    torch.save({"ema": net(encoder="layers"), "model": net()}, "two.pt")
    ended = call("match", "two.pt", "--root", "ema", "--keys", "two.pt", "--keys-root", "model")
    command = "statedict match two.pt --keys two.pt --keys-root model --root ema --rename 'layers.{*p} -> encoder.{*p}'"
    assert f"    {command}\n" in ended.out
    assert call(*shlex.split(command)[1:]).code == 0


def test_policies_by_pattern(call, files):
    """The first pattern that matches a name has its policy; a policy without a pattern is for the other names."""
    told = ["match", "mine.pt", "--keys", "larger.pt", "--mismatched"]
    assert call(*told, "slice").code == 0
    assert call(*told, "encoder=skip", "--mismatched", "error").code == 1
    assert call(*told, "head=slice", "--mismatched", "error").code == 0


def test_it_is_a_forecast(call, files):
    """The text does not claim that anything was loaded."""
    assert call("match", "mine.pt", "--keys", "mine.pt").out == ("Dry run: would load 7 tensors\n")


def test_names_are_inferred_by_an_option(call, files):
    """If only `match` could find the names, the suggestion is `--infer`."""
    torch.save({f"a{i}.{name}": torch.zeros(i + 1, 3) for i, name in enumerate("uvw")}, "odd.pt")
    torch.save({f"b{i}.{name}": torch.zeros(i + 1, 3) for i, name in enumerate("xyz")}, "target.pt")
    ended = call("match", "odd.pt", "--keys", "target.pt")
    assert "    statedict match odd.pt --keys target.pt --infer\n" in ended.out
