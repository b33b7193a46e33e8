"""Anything with a state is saved as its state, wherever it stands among the arguments, and resumed into the same."""

from collections import OrderedDict, deque
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tests.training.objects import Counter

import statedict
from statedict import CheckpointManager
from statedict.errors import LoadError, UnknownNameError


class Gives:
    """An object that can only give its state."""

    def state_dict(self):
        return {"lr": 0.5, "table": np.arange(3)}


class Pair(NamedTuple):
    one: object
    other: object


def gan(seed):
    torch.manual_seed(seed)
    models = {"g": torch.nn.Linear(2, 2), "d": torch.nn.Linear(2, 2)}
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.1) for model in models.values()]
    sum(model(torch.randn(3, 2)).square().sum() for model in models.values()).backward()
    for optimizer in optimizers:
        optimizer.step()
    return {"models": models, "optimizers": optimizers}


def test_an_optimizer_has_the_names_of_the_model_with_most_of_its_parameters(tmp_path):
    """An optimizer gets the names of the model with most of its parameters, not of the first that shares a module."""
    shared = torch.nn.Linear(2, 2)
    second = torch.nn.ModuleDict({"own": torch.nn.Linear(2, 2), "shared": shared})
    optimizer = torch.optim.SGD(second.parameters(), lr=0.1)
    with CheckpointManager(tmp_path) as manager:
        manager.save(0, first=torch.nn.Sequential(shared), second=second, optimizer=optimizer)
        manager.resume(second=second, optimizer=optimizer)
    (group,) = statedict.load(manager.latest.path / "optimizer.pt")["param_groups"]
    assert group["param_names"] == ["own.weight", "own.bias", "shared.weight", "shared.bias"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_dicts_of_models_and_lists_of_optimizers(tmp_path, asynchronous):
    """Each object has a file and a report of its own; an optimizer's state finds its parameters by their model's names."""
    saved, again = gan(0), gan(1)
    with CheckpointManager(tmp_path, asynchronous=asynchronous) as manager:
        manager.save(1, **saved)
        resumed = manager.resume(**again)
    assert list(resumed.reports) == ["models/g", "models/d", "optimizers/0", "optimizers/1"]
    assert resumed.values == {}
    for name in ("g", "d"):
        assert torch.equal(saved["models"][name].weight, again["models"][name].weight)
    for one, other in zip(saved["optimizers"], again["optimizers"]):
        assert repr(one.state_dict()) == repr(other.state_dict())
    files = {path.name for path in (tmp_path / "step-0000000001").iterdir()}
    assert {"models.g.pt", "models.d.pt", "optimizers.0.pt", "optimizers.1.pt"} <= files
    for file in files - {"manifest.json", "random.pt"}:
        torch.load(tmp_path / "step-0000000001" / file, weights_only=True)


@pytest.mark.parametrize(
    "shape",
    [
        lambda c: [c(), c()],
        lambda c: (c(), [c(), {"x": c()}]),
        lambda c: {"a": {"b": {"c": c()}}, 3: c()},
        lambda c: OrderedDict(a=c(), b=deque([c()])),
        lambda c: Pair(c(), [c()]),
        lambda c: [[[[c()]]]],
        lambda c: [None, c(), None],
    ],
    ids=["list", "tuple", "dict", "ordered", "named tuple", "deep", "with None"],
)
def test_a_structure_of_any_kind(tmp_path, shape):
    """Lists, tuples, mappings and deques in each other: what went in comes back, each into its place."""
    counts = iter(range(1, 100))
    saved, again = [], []

    def new(made, count):
        made.append(Counter(count))
        return made[-1]

    given = shape(lambda: new(saved, next(counts)))
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, things=given)
        resumed = manager.resume(things=shape(lambda: new(again, 0)))
    assert [each.count for each in saved] == [each.count for each in again]
    assert len(resumed.reports) == len(saved)
    assert resumed.values == {}


def test_values_beside_objects_come_back_as_values(tmp_path):
    """None stands in the objects' places; the same structure can be given to resume."""
    train = {"counter": Counter(3), "epoch": 7, "more": (1, [Counter(4), "x"])}
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, train=train, empty=[])
        again = {"counter": Counter(), "epoch": 0, "more": (0, [Counter(), ""])}
        resumed = manager.resume(train=again, empty=[])
    assert resumed.values == {"train": {"counter": None, "epoch": 7, "more": (1, [None, "x"])}, "empty": []}
    assert (again["counter"].count, again["more"][1][0].count, again["epoch"]) == (3, 4, 0)


def test_a_part_of_a_structure_is_resumed(tmp_path):
    """What is given is loaded, all of it or nothing, with options by object name; a name that is not there is named."""
    saved = gan(0)
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, **saved)
        model = torch.nn.Linear(2, 2)
        resumed = manager.resume(models={"d": model}, options={"models/d": {"exclude": "bias"}})
        assert resumed.reports["models/d"].loaded == ["weight"]
        torch.nn.init.zeros_(model.weight)
        with pytest.raises(LoadError, match="size mismatch"):
            manager.resume(models={"d": model, "g": torch.nn.Linear(2, 3)})
        assert not model.weight.any()
        with pytest.raises(UnknownNameError, match="'models/dd' is not in the checkpoint; did you mean 'models/d'"):
            manager.resume(models={"dd": model})
        with pytest.raises(UnknownNameError, match="'models/g' is not in the arguments"):
            manager.resume(models={"d": model}, options={"models/g": {}})


def test_an_object_that_does_not_fit_is_named_with_its_options(tmp_path):
    """The error of a resume has the object's name, and says where the suggested arguments go; with them it resumes."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, heads=[torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
        heads = [torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2))]
        with pytest.raises(LoadError, match=r"for Sequential \('heads/1'\):") as raised:
            manager.resume(heads=heads)
        assert "into='0'" in str(raised.value)
        assert str(raised.value).endswith("Pass such arguments to resume() as options={'heads/1': {…}}")
        assert manager.resume(heads=heads, options={"heads/1": {"into": "0"}}).step == 1


@pytest.mark.parametrize("value", [3, "x", {"a": 1}, [1, 2], np.arange(2)], ids=str)
def test_an_argument_without_a_state_takes_none(tmp_path, value):
    """Plain values are not resumed into, but given back."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, value=value)
        with pytest.raises(TypeError, match=r"'value' is a .*, which has no load_state_dict"):
            manager.resume(value=value)


def test_an_object_that_only_gives_its_state_is_a_value(tmp_path):
    """The state of an object without `load_state_dict` comes back in `values`."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, schedule=Gives(), parts=[Gives(), 1])
        values = manager.resume().values
    for found in (values["schedule"], values["parts"][0]):
        assert (found["lr"], found["table"].tolist()) == (0.5, [0, 1, 2])
    assert values["parts"][1] == 1


def endless():
    value = [Counter()]
    value.append(value)
    return value


def deep():
    value = Counter()
    for _ in range(30):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("things", "error"),
    [
        ({Counter()}, "is in a set, so it has no name"),
        ({(1, 2): Counter()}, "is under the key"),
        ({True: Counter()}, "is under the key True"),
        ({"a/b": Counter()}, "'/' separates the parts of a name"),
        ({"..": Counter()}, "must not begin with a dot"),
        ({0: Counter(), "0": Counter()}, "two objects have the same name 'things/0'"),
        (deep(), "nested more than 20 levels deep"),
        (endless(), "or a container contains itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_object_that_has_no_name_is_refused(tmp_path, things, error):
    """An object without a name is refused before anything is written; the error says where it is and what to do."""
    with CheckpointManager(tmp_path, random=False) as manager:
        with pytest.raises(ValueError, match=error):
            manager.save(1, things=things)
        assert manager.checkpoints == []


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "../x", "x\0", "\ud800", "con", "x" * 300, "options", "limits", "values"]
)
def test_an_objects_name_is_good_for_a_file(tmp_path, name):
    """Whatever cannot be a file's name on every system is refused before anything is written."""
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        with pytest.raises(ValueError, match=r"name"):
            manager.save(1, **{name: Counter()})
        assert manager.resume() is None
    assert {path.name for path in tmp_path.rglob("*")} <= {"run", ".lock"}


def test_objects_whose_names_differ_in_case_have_files_that_do_not(tmp_path):
    """A copy on a file system that ignores case is whole."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, g=Counter(1), G=Counter(2), Values=Counter(3), v=(1,), **{"model-00001-of-00002": Counter(4)})
        again = {"g": Counter(), "G": Counter(), "Values": Counter(), "model-00001-of-00002": Counter()}
        assert manager.resume(**again).values == {"v": (1,)}
    assert [each.count for each in again.values()] == [1, 2, 3, 4]
    names = [path.name.casefold() for path in (tmp_path / "step-0000000001").iterdir()]
    assert len(names) == len(set(names))


def test_a_class_is_no_object_with_a_state(tmp_path):
    """A class with `state_dict` and `load_state_dict` is a value, not an object with a state."""
    with CheckpointManager(tmp_path, random=False) as manager, pytest.raises(TypeError, match="has no load_state_dict"):
        manager.resume(model=torch.nn.Linear)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "state",
    [
        {"order": np.arange(3)},
        {"order": np.arange(3), "epoch": 1},
        {"order": torch.arange(3)},
        {"order": torch.arange(3), "seen": np.arange(2)},
        {"both": [np.ones(1), torch.ones(1)]},
    ],
    ids=["array", "array and int", "tensor", "tensor and array", "inside"],
)
def test_arrays_stay_arrays_and_tensors_tensors(tmp_path, state, asynchronous):
    """Arrays come back as arrays and tensors as tensors: in an object's state, in a value, and as values."""

    class Sampler(Counter):
        def state_dict(self):
            return self.count

        def load_state_dict(self, state):
            self.count = state

    def kinds(tree):
        return {name: [*map(type, value)] if isinstance(value, list) else type(value) for name, value in tree.items()}

    again = Sampler()
    with CheckpointManager(tmp_path, random=False, asynchronous=asynchronous) as manager:
        manager.save(1, sampler=Sampler(state), value=state, **state)
        values = manager.resume(sampler=again).values
    assert kinds(again.count) == kinds(values["value"]) == kinds(state)
    assert {name: kind for name, kind in kinds(values).items() if name != "value"} == kinds(state)
