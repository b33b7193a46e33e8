"""What is told of values that are no tensors: all of it, in bounded work, whatever the file holds."""

import json
from functools import partial

import numpy as np
import pytest
from tests.cost import calls

import statedict
from statedict.report import contents, own_bytes, plain, tensors, totals, values
from statedict.state import Leaf, Opaque, StateDict


def told(value, **options):
    return {fact["path"]: (fact["type"], fact["value"]) for fact in contents(value, **options)}


def test_paths_types_and_values():
    """Nested values have the paths that roots have; lists of plain values are one fact; roots are left out."""
    value = {
        "epoch": 3,
        "lr": [0.1, 0.2],
        "hyper": {"name": "net", "drop": None},
        "model": {"w": 1},
        "log": [{"loss": 1.5}],
    }
    assert told(value, skip=["model"]) == {
        "epoch": ("int", 3),
        "lr": ("list", "[0.1, 0.2]"),
        "hyper/name": ("str", "net"),
        "hyper/drop": ("NoneType", None),
        "log/0/loss": ("float", 1.5),
    }


def test_unknown_classes_by_name():
    """An object of an unknown class is shown by its class, and what it holds below it."""
    options = Opaque("argparse", "Namespace", ())
    options.state = {"lr": 0.1}
    assert told({"args": options, "fn": Opaque("my.code", "activation")}) == {
        "args": ("argparse.Namespace", None),
        "args/lr": ("float", 0.1),
        "fn": ("my.code.activation", "<opaque my.code.activation>"),
    }


def test_tensors_outside_of_state_dicts_by_their_spec():
    """A lone tensor is named with dtype and shape, and not read."""
    leaf = StateDict({"w": np.zeros((2, 3), np.float32)}).leaf("w")
    assert told({"rng": leaf}) == {"rng": ("tensor float32 2×3", None)}


def test_shared_and_cyclic_values_are_told_once():
    """A value met again is named by its first path: a cycle ends, and a bomb of shared lists stays small."""
    loop = {"a": 1}
    loop["self"] = loop
    assert told(loop) == {"a": ("int", 1), "self": ("dict", "the same as the file")}
    bomb = [{"x": 1}]
    for _ in range(60):
        bomb = [bomb] * 10
    assert len(contents(bomb)) < 200


def test_values_are_shortened():
    """Long text, huge numbers and what JSON has no word for become short text."""
    shown = [plain(v) for v in ("x" * 10_000, 1 << 100_000, float("nan"), b"\0" * 999, list(range(999)), True, 2.5)]
    assert all(len(str(v)) < 250 for v in shown)
    assert shown[1] == "an integer of 100,001 bits"
    assert shown[2] == "NaN"
    assert shown[-2:] == [True, 2.5]
    json.dumps(shown, allow_nan=False)


def test_ties_and_views():
    """A tensor tied to another names it and adds no bytes; another view of its storage says so and does."""
    whole = np.zeros(6, np.float32)
    facts = tensors(StateDict({"a": whole, "b": whole, "c": whole[2:], "d": np.ones(2, np.int64)}))
    assert [(f.get("tied_to"), f.get("shares_with")) for f in facts] == [
        (None, None),
        ("a", None),
        (None, "a"),
        (None,) * 2,
    ]
    assert [own_bytes(fact) for fact in facts] == [24, 0, 16, 16]
    assert totals(facts, [fact["dtype"] for fact in facts]) == {
        "float32": {"tensors": 3, "elements": 10, "bytes": 40},
        "int64": {"tensors": 1, "elements": 2, "bytes": 16},
    }


@pytest.mark.parametrize("shards", [1, 2])
def test_rows_of_files(tmp_path, shards):
    """Tensors that are rows of the tables of files have the same facts as single leaves, and cost a few calls each."""

    def of_rows(count):
        found = {}
        for shard in range(shards):
            state = {f"t{n}": np.zeros((n % 3 + 1, 2), np.float32) for n in range(shard, count, shards)}
            statedict.save(state, tmp_path / "a.safetensors", durable=False)
            with statedict.open(tmp_path / "a.safetensors") as checkpoint:
                found |= dict(checkpoint.state_dict().leaves())
        return StateDict({name: found[name] for name in sorted(found)})

    state = of_rows(40)
    found, single = tensors(state), {name: Leaf(leaf.spec, leaf.storage) for name, leaf in state.leaves()}
    assert found == tensors(StateDict(single))
    assert calls(partial(tensors, of_rows(400))) - calls(partial(tensors, of_rows(100))) < 6 * 300


def test_entries_that_are_no_tensors():
    """A state's other entries are told, without a tensor of it being read."""
    state = StateDict({"w": np.zeros(1), "_extra_state": {"scale": 2.0}, "step": 5})
    assert values(state, lambda name: True) == [
        {"path": "_extra_state/scale", "type": "float", "value": 2.0},
        {"path": "step", "type": "int", "value": 5},
    ]
    assert values(state, lambda name: name == "w") == []
