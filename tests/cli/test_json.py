"""What --json prints is what docs/reference/json.md says, key by key: nothing undocumented, nothing documented that is not
there, every value of the type that it says."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file
from tests.torch.wrappers import scaled
from torch import nn

import statedict
from statedict.cli._main import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
KINDS = {dict: "object", list: "list", str: "string", bool: "boolean", int: "integer", float: "number"}
KINDS[type(None)] = "null"
# Objects whose keys are names: tensors, dtypes, parts, metrics.
NAMED = (
    *(
        "added",
        "removed",
        "renamed",
        "shape",
        "dtype",
        "changed",
        "tied",
        "dtypes",
        "parts",
        "metrics",
        "metadata",
        "unopened",
        "environment",
        "packages",
        "limits",
    ),
    "texts",
    "proven",
    "parameters",
    "ignored",
)


def chapters():
    """The tables of the page: command (and what its second table is for) → key → (types, whether it may be absent)."""
    found = {}
    for chapter in PAGE.read_text().split("\n## ")[1:]:
        command = chapter.partition("\n")[0]
        for number, table in enumerate(re.findall(r"(?:^\|.*\n)+", chapter, re.MULTILINE)):
            rows = re.findall(r"^\| `(.+?)` \| (.+?) \|(.*)\|$", table, re.MULTILINE)
            found[f"{command}{' 2' if number else ''}"] = {
                key: (set(re.split(r", | or ", types)), "may be absent" in text) for key, types, text in rows
            }
    return found


def paths(value, path, found):
    """Every key path below a value, with the kinds of the values there."""
    if path and not (isinstance(value, dict) and path.endswith(("[]", "*"))):
        found.setdefault(path, []).append(KINDS[type(value)])
    if isinstance(value, list):
        for item in value:
            paths(item, f"{path}[]", found)
    elif isinstance(value, dict):
        named = path.rpartition(".")[2] in NAMED
        for key, item in value.items():
            paths(item, f"{path}.*" if named else f"{path}.{key}" if path else key, found)
    return found


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The arguments of calls that between them print every documented key."""
    place = tmp_path_factory.mktemp("json")
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "head": nn.Linear(3, 2)})
    model["tied"] = nn.Linear(3, 2)
    model["tied"].weight = model["head"].weight
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = model.state_dict()
    state |= {"view": state["head.weight"][1:], "sparse": torch.eye(2).to_sparse(), "empty": torch.zeros(0)}
    state["_extra_state"] = {"scale": 2.0, "note": None, "on": True, "far": float("inf")}
    run = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 7, "tags": ["a"], "rate": 0.1, "off": False}
    torch.save({**run, "none": None, "path": Path("x")}, place / "run.pt")
    (place / "damaged.pt").write_bytes((place / "run.pt").read_bytes()[:-9])
    with patch("torch.serialization.location_tag", lambda storage: "cuda:0"):
        torch.save({"w": torch.tensor([float("nan"), 1.0])}, place / "nan.pt", _use_new_zipfile_serialization=False)

    a = {
        "module.w": torch.zeros(4),
        "s": torch.zeros(2),
        "d": torch.zeros(2),
        "old": torch.ones(1),
        "step": 1,
        "f": "x",
    }
    b = {
        "w": torch.ones(4),
        "s": torch.zeros(3),
        "d": torch.zeros(2, dtype=torch.int64),
        "new": torch.ones(1),
        "step": 2,
    }
    tied = torch.ones(2)
    torch.save(a | {"t": tied, "u": tied, "x": tied.clone(), "y": tied.clone()}, place / "a.pt")
    torch.save(b | {"t": tied.clone(), "u": tied.clone(), "x": tied, "y": tied, "g": "x"}, place / "b.pt")
    target = {
        "w": torch.zeros(4, 4),
        "h": torch.zeros(3),
        "i": torch.zeros(2, dtype=torch.float64),
        "lost": torch.ones(1),
    }
    given = {"module.w": torch.zeros(4, 4), "h": torch.zeros(2), "i": torch.zeros(2), "extra": torch.ones(1), "j": tied}
    torch.save(target, place / "mine.pt")
    torch.save(given, place / "theirs.pt")
    statedict.save({"w": torch.ones(1)}, place / "told.pt", metadata={"by": "a"})
    statedict.save({"w": torch.ones(1)}, place / "untold.pt")
    with statedict.CheckpointManager(place / "run", random=False) as manager:
        manager.save(1, {"loss": 1.5, "note": "x", "worst": float("nan"), "ok": True, "none": None}, epoch=1)
    (place / "other").mkdir()
    torch.save({"w": torch.ones(1)}, place / "other" / "last.ckpt")
    statedict.save({"a": torch.ones(2), "b": torch.ones(2)}, place / "part.safetensors", max_shard_size=8)
    (place / "part-00002-of-00002.safetensors").unlink()
    (place / "folder").mkdir()
    statedict.save({"w": torch.ones(1)}, place / "folder" / "model.pt")
    (place / "folder" / "optimizer.pt").write_bytes(b"")
    theirs = {f"layers.0.attention.{name}.weight": torch.zeros(4, 4) for name in ("wq", "wk", "wv", "odd")}
    ours = {f"model.layers.0.self_attn.{name}_proj.weight": torch.zeros(4, 4) for name in "qkv"}
    statedict.save(theirs, place / "meta.pt")
    statedict.save(ours, place / "hf.safetensors")
    statedict.save({"w": scaled()}, place / "wrapped.safetensors")
    offsets = {"DCP_SHARDING_INFO": json.dumps({"w": {"saved_offsets": [2]}})}
    save_file({"w": torch.ones(2)}, place / "shard-00002-model-00001-of-00001.safetensors", offsets)
    return place


def calls(place):
    """Chapter of the page → calls that print its object."""
    merged, sharded = place / "merged.pt", place / "sharded.safetensors"
    match = ["match", place / "theirs.pt", "--keys", place / "mine.pt"]
    return {
        "inspect": [
            ["inspect", place / "run.pt", "--stats"],
            ["inspect", place / "nan.pt"],
            ["inspect", place / "part.safetensors.index.json"],
            ["inspect", place / "told.pt"],
            ["inspect", place / "folder"],
            ["inspect", place / "wrapped.safetensors"],
            ["inspect", place / "shard-00002-model-00001-of-00001.safetensors"],
        ],
        "inspect 2": [["inspect", place / "run.pt", "--values", "head.bias"]],
        "verify": [
            ["verify", place / "run.pt", place / "damaged.pt", place / "none.pt"],
            ["verify", "--values", place / "nan.pt"],
        ],
        "convert": [
            ["convert", place / "a.pt", place / "c.pt"],
            ["convert", place / "mine.pt", sharded, "--max-shard-size", 40],
        ],
        "diff": [["diff", place / "a.pt", place / "b.pt"], ["diff", place / "told.pt", place / "untold.pt"]],
        "merge": [["merge", place / "mine.pt", place / "mine.pt", "-o", merged]],
        "match": [
            match,
            [*match, "--mismatched", "skip"],
            ["match", place / "meta.pt", "--keys", place / "hf.safetensors"],
            [*match, "--mismatched", "slice", "--exclude", "extra", "--rename", "no -> x"],
        ],
        "maps": [["maps"], ["maps", "llama-hf"], ["maps", "peft-base"]],
        "maps 2": [["maps", "--transformers", "ViTModel"]],
        "match 2": [
            [*match, "--infer"],
            ["match", place / "meta.pt", "--keys", place / "hf.safetensors", "--infer"],
            [match[0], place / "a.pt", "--keys", place / "mine.pt", "--infer"]],
        "doctor": [["doctor"]],
        "runs": [["runs", place / "run"], ["runs", place / "run", "--keep-last", 1], ["runs", place / "other"]],
    }  # fmt: skip


# Their shapes need more than a call to be seen: a minute, another test's page, a load into a model.
ELSEWHERE = {"tour", "view"}
NEVER_HERE = {"match": {"tied", "allowed", "errors"}}


@pytest.mark.parametrize("chapter", [name for name in chapters() if name.split()[0] not in ELSEWHERE])
def test_it_is_as_documented(call, samples, chapter):
    """Every key that is printed is documented with its type; every documented key is printed."""
    documented, found = chapters()[chapter], {}
    for arguments in calls(samples)[chapter]:
        ended = call(*arguments, "--json")
        assert ended.out.count("\n") == 1, ended.err
        told = json.loads(ended.out, parse_constant=pytest.fail)
        assert next(iter(told)) == "schema"
        required = {key for key, (_, absent) in documented.items() if re.fullmatch(r"\w+", key) and not absent}
        assert required <= set(told)
        paths(told, "", found)
    seen = {key for key in found if not key.startswith("values[")} if chapter == "inspect 2" else set(found)
    assert seen - set(documented) == set()
    missing = {key for key in set(documented) - seen if re.split(r"\W", key)[0] not in NEVER_HERE.get(chapter, ())}
    assert missing == set()
    for key in seen & set(documented):
        types = documented[key][0]
        wrong = {kind for kind in found[key] if kind not in types and not (kind == "integer" and "number" in types)}
        assert not wrong or types == {"any"}, f"{key}: {wrong}"


def test_every_command_has_a_chapter():
    """Each command has --json and a table, and each table a command."""
    names = app.list_commands(None)
    assert set(names) == {name.split()[0] for name in chapters()}
    assert all("--json" in call_options(app.get_command(None, name)) for name in names)


def call_options(command):
    return {option for parameter in command.params for option in parameter.opts}
