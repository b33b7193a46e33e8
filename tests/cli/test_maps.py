"""`statedict maps`, and `--map` by name: convert there and back, numbers from the config, errors that say what to do."""

import json

import numpy as np
import pytest

import statedict
from statedict import maps

STATE = {
    "layers.0.attention.wq.weight": np.arange(64, dtype="f4").reshape(16, 4),
    "layers.0.attention.wk.weight": np.arange(32, dtype="f4").reshape(8, 4),
    "tok_embeddings.weight": np.ones((6, 4), "f4"),
    "rope.freqs": np.ones(2, "f4"),
}


@pytest.fixture
def meta(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    statedict.save(STATE, "meta.pt")
    return "meta.pt"


def test_the_maps_are_listed(call):
    """Without a name all maps are listed; with one, its rules, its source and its versions are shown."""
    listed = call("maps").out
    assert all(name in listed for name in maps.names())
    shown = call("maps", "llama-hf")
    for said in (
        "source: https://",
        "proven with",
        "needs head_dim",
        "leaves out rope.freqs",
        "norm.weight -> model.norm",
    ):
        assert said in shown.out
    told = json.loads(call("maps", "peft-base", "--json").out)["maps"][0]
    assert (told["name"], told["invertible"]) == ("peft-base", False)


def test_convert_there_and_back(call, meta):
    """A file is converted by the name of a map, and back by its inverse; what is left out is reported."""
    there = call("convert", meta, "hf.safetensors", "--map", "llama-hf", "--param", "head_dim=8")
    assert there.code == 0
    assert "leaves out 1 tensor ('rope.freqs')" in there.err
    assert (
        call("convert", "hf.safetensors", "back.pt", "--map", "llama-hf", "--inverse", "--param", "head_dim=8").code
        == 0
    )
    back = statedict.load("back.pt", backend="numpy")
    assert back.keys() == STATE.keys() - {"rope.freqs"}
    assert all(np.array_equal(value, STATE[name]) for name, value in back.items())
    named = statedict.load("hf.safetensors", backend="numpy")
    assert not np.array_equal(named["model.layers.0.self_attn.q_proj.weight"], STATE["layers.0.attention.wq.weight"])


def test_a_number_from_the_config(call, meta, tmp_path):
    """Without --param, the number is that of the config beside the input; the command says so."""
    (tmp_path / "params.json").write_text(json.dumps({"dim": 16, "n_heads": 2}))
    done = call("convert", meta, "hf.safetensors", "--map", "llama-hf")
    assert done.code == 0
    assert "head_dim=8, from params.json" in done.err
    given = call("convert", meta, "given.safetensors", "--map", "llama-hf", "--param", "head_dim=4")
    assert "params.json" not in given.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--map", "llama-hf"], "it needs head_dim (the size of an attention head): put the model's config.json"),
        (["--map", "llama"], "did you mean 'llama-hf'?"),
        (["--map", "llama-hf", "--param", "head_dim=x"], "'head_dim=x' is not a parameter: expected NAME=N"),
        (["--map", "llama-hf", "--param", "head_dim=0"], "expected NAME=N"),
        (
            ["--map", "llama-hf", "--param", "head_dim=3"],
            "does not consist of groups of 3 entries, or that number is odd",
        ),
        (["--map", "llama-hf", "--param", "n=3"], "does not have the parameter 'n'"),
        (["--map", "llama-hf", "--param", "head_dim=8", "--inverse"], "not of transformers: add --inverse"),
        (["--map", "peft-base", "--inverse"], "it converts in one direction only"),
        (["--map", "vit-timm-hf"], "no rule matches any of 4 tensors"),
        (["--inverse"], "it needs --map"),
        (["--param", "a=1"], "it needs --map"),
        (["--map", "bad.toml"], "bad.toml, line 2: "),
    ],
)
def test_mistakes(call, meta, tmp_path, options, said):
    """A mistake is one line that says what to do, exit code 2; nothing is written."""
    (tmp_path / "bad.toml").write_text('rules = [\n"a b"]\n')
    done = call("convert", meta, "out.pt", *options)
    assert done.code == 2
    assert said.split() == [word for word in done.err.replace("│", " ").split() if word in said.split()][
        : len(said.split())
    ] or (said in " ".join(done.err.replace("│", " ").split()))
    assert "Traceback" not in done.err
    assert not (tmp_path / "out.pt").exists()


def test_match_names_the_map_that_fits(call, meta):
    """`match` names the map, which then makes the file fit; it is not named if the names already fit."""
    call("convert", meta, "hf.safetensors", "--map", "llama-hf", "--param", "head_dim=8")
    asked = call("match", meta, "--keys", "hf.safetensors")
    assert asked.code == 1
    assert "maps that fit:\n  --map llama-hf --param head_dim=N: 3 of 3 model tensors" in asked.out
    told = json.loads(call("match", "hf.safetensors", "--keys", meta, "--json").out)["maps"]
    assert [(fit["name"], fit["inverse"]) for fit in told] == [("llama-hf", True)]
    assert "--map llama-hf" in call("match", meta, "--keys", "hf.safetensors", "--infer").out
    done = call("match", meta, "--keys", "hf.safetensors", "--map", "llama-hf", "--param", "head_dim=8")
    assert done.code == 0
    assert "maps that fit" not in done.out


def test_transformers(call):
    """The conversions of the installed transformers are reported rule by rule."""
    pytest.importorskip("transformers.conversion_mapping")
    done = call("maps", "--transformers", "ViTModel")
    assert done.code == 0
    assert "needs an anchor: attention.query -> q_proj\n    'a.q_proj.attention.query.weight' becomes" in done.out
    assert call("maps", "llama-hf", "--transformers", "ViTModel").code == 2
    assert "did you mean" in call("maps", "--transformers", "ViTModell").err
