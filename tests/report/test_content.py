"""The values of a page: every tensor once, in columns; what became of each; and nothing that JSON has no word for."""

import json

import numpy as np
import pytest

import statedict
from statedict.report import FileContent, survey
from statedict.report._content import MOMENTS, OTHERS, content
from statedict.report._measures import ODD
from statedict.state import StateDict


def file(name="x.pt", **roots):
    return FileContent(name, "torch", "unknown", 10, {path: survey(state) for path, state in roots.items()})


def compared(before, after):
    a, b = StateDict(before), StateDict(after)
    return content([file("a.pt", model=a), file("b.pt", model=b)], statedict.diff(a, b))


@pytest.fixture
def state():
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    layers = {f"h.{i}.{name}": np.full(2, i, np.float32) for i in range(3) for name in ("a", "b")}
    return StateDict({"w": weight, "tied": weight, **layers, "step": 5})


def test_columns(state):
    """Each tensor has a place in every column; a tie is told, its bytes counted once, its heat map held once."""
    values, cells = content([file(model=state)])
    (column,) = values["columns"]
    assert values["names"] == [name for name in state if name != "step"]
    assert {len(column[key]) for key in ("dtype", "shape", "bytes", "stats", "histogram", "heat")} == {8}
    assert (column["shape"][0], column["dtype"][0], column["bytes"][0], column["remark"]) == (
        "3×4",
        "float32",
        48,
        {1: "= w"},
    )
    assert dict(zip(MOMENTS, column["stats"][0])) == survey(state).measures[0].stats | {"std": 3.45205}
    start, width, *counts = column["histogram"][0]
    assert (start, width, sum(counts)) == (0, 2, 12)
    assert column["heat"][:3] == [[0, 3, 4, 3, 4, 0, 11]] * 2 + [None]
    assert list(cells) == [round(value / 11 * (ODD - 1)) for value in range(12)]
    assert values["files"][0]["other"] == [["model/step", "int", "5"]]
    assert values["files"][0]["dtypes"] == [["float32", 8, 96]]
    assert values["files"][0]["counted"] == [24, "parameter", ""]
    assert column["elements"] == [12, 0, 2, 2, 2, 2, 2, 2]
    json.dumps(values, allow_nan=False)


def test_the_tree_is_folded_and_knows_its_tensors(state):
    """A row of equal layers names all the tensors that it stands for; several roots are rows of their own."""
    values, _ = content([file(model=state)])
    assert values["rows"] == [
        [0, "w", 1, 48, [0]],
        [0, "tied", 1, 0, [1]],
        [0, "h.{0…2}", 3, 48, []],
        [1, "a", 3, 24, [2, 4, 6]],
        [1, "b", 3, 24, [3, 5, 7]],
    ]
    values, _ = content([file(model=state, ema=StateDict({"w": np.ones(2)}))])
    assert (values["roots"], values["root"]) == (["model", "ema"], [0] * 8 + [1])
    assert [row for row in values["rows"] if not row[0]] == [[0, "model", 1, 96, []], [0, "ema", 1, 16, []]]
    assert values["rows"][-1] == [1, "w", 1, 16, [8]]


def test_what_became_of_each():
    """Names only one file has, other shapes, other dtypes, changed and equal tensors are told apart."""
    before = {"same": np.ones(3), "gone": np.ones(2), "s": np.ones(2), "d": np.ones(2), "c": np.ones(4), "opt": 1}
    after = {
        "same": np.ones(3),
        "s": np.ones(3),
        "d": np.ones(2, np.float32),
        "c": np.array([1, 1, 1, 2.0]),
        "new": np.ones(1),
    }
    values, _ = compared(before, after | {"opt": 2, "extra": "x"})
    told = dict(zip(values["names"], values["status"]))
    assert told == {"same": "equal", "s": "shape", "d": "dtype", "c": "changed", "new": "added", "gone": "removed"}
    place = values["names"].index("c")
    assert values["changes"] == {place: [4, 1, 1.0, 1.0, 0.5, 0.944911, 0]}
    assert [column["shape"][values["names"].index("gone")] for column in values["columns"]] == ["2", None]
    assert [column["shape"][values["names"].index("new")] for column in values["columns"]] == [None, "1"]
    assert values["loose"] == {"added": ["extra"], "removed": [], "values": ["opt"]}
    assert values["layers"] == [["", 0.333333, 1, 3]]
    json.dumps(values, allow_nan=False)


def test_renamed_tensors_are_beside_each_other():
    """A tensor whose name lost a wrapper's prefix is one line, and says what it was called."""
    values, _ = compared({"module.w": np.zeros(2), "module.b": np.ones(2)}, {"w": np.ones(2), "b": np.ones(2)})
    assert values["renamed"] == {"w": "module.w", "b": "module.b"}
    assert (values["names"], values["status"]) == (["w", "b"], ["changed", "equal"])
    assert values["changes"][0][4] == "Infinity"
    assert [column["shape"] for column in values["columns"]] == [["2", "2"]] * 2


def test_layers_that_changed_in_kind_are_not_folded():
    """A layer of another shape than before stands apart from those that kept theirs."""
    before = {f"h.{i}.w": np.ones(2) for i in range(4)}
    values, _ = compared(before, before | {"h.2.w": np.ones(3)})
    assert [(row[1], row[4]) for row in values["rows"]] == [("h", []), ("{0,1,3}.w", [0, 1, 3]), ("2.w", [2])]


def test_of_very_many_values_the_first_are_told():
    """Values that are not tensors are counted, and the first of them listed."""
    many = [{"path": f"log/{i}", "type": "int", "value": i} for i in range(OTHERS + 5)]
    values, _ = content([FileContent("x.pt", "torch", "unknown", 1, {}, other=many)])
    assert (len(values["files"][0]["other"]), values["files"][0]["others"]) == (OTHERS, OTHERS + 5)


def test_names_are_printable():
    """Unprintable characters in names, file names and notes are escaped; numbers that are not finite are null or named."""
    name = "a\x1b\u202e\ud800<b>"
    values, _ = content(
        [
            FileContent(
                "x\n.pt", "torch", "p\0", 1, {"\t": survey(StateDict({name: np.array([np.nan, np.inf])}))}, notes=["\r"]
            )
        ]
    )
    text = json.dumps(values, allow_nan=False, ensure_ascii=False)
    assert text.isprintable()
    assert values["names"] == ["a\\x1b\\u202e\\ud800<b>"]
    assert values["columns"][0]["stats"] == [[None] * 4 + [0, 1, 1]]


def test_the_default_root_is_first_and_optimizers_are_last():
    """However the file orders its roots, the page begins with the default one; the parameters that it counts are its own."""
    groups = {"param_groups": [{"params": [0], "param_names": ["w"]}]}
    roots = {
        "optimizer": StateDict({"state.0.m": np.ones(4)} | groups),
        "ema": StateDict({"w": np.ones(3)}),
        "model": StateDict({"w": np.ones(2)}),
    }
    values, _ = content([file(**roots)._replace(primary="model")])
    assert values["roots"] == ["model", "ema", "optimizer"]
    assert values["nouns"] == ["parameter", "parameter", "element"]
    assert values["files"][0]["counted"] == [2, "parameter", "model"]
    assert (values["names"], values["stored"]) == (["w", "w", "state.w.m"], {2: "state.0.m"})
    values, _ = content([file(**roots)])
    assert values["roots"] == ["ema", "model", "optimizer"]
    assert values["files"][0]["counted"] == [5, "parameter", ""]


def test_names_of_parameters_in_a_pair():
    """Optimizer states of two files are compared by their own names, and shown with those of the parameters."""
    groups = {"param_groups": [{"params": [0], "param_names": ["w"]}]}
    before, after = ({"state.0.m": np.full(4, n)} | groups for n in (1.0, 2.0))
    values, _ = compared(before, after)
    assert (values["names"], values["stored"], values["status"]) == (["state.w.m"], {0: "state.0.m"}, ["changed"])
    values, _ = compared({"state.w.m": np.ones(1)}, after)  # a name that only the first file has stays unique
    assert values["names"] == ["state.0.m", "state.w.m"]
