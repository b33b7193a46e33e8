"""The engine on a module system of thirty lines, without torch: the walk, the Host protocol and the rollback."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from statedict import tree
from statedict.errors import LoadError
from statedict.state import leaf_of, library, read_array

Incompatible = namedtuple("Incompatible", ["missing_keys", "unexpected_keys"])
Array = np.ndarray[Any, Any]


class Module:
    """A module with PyTorch's private names, whose arrays are NumPy's."""

    _version = 1

    def __init__(self, **values: Array | Module | None) -> None:
        self._parameters: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}
        self._modules: dict[str, Any] = {}
        self._non_persistent_buffers_set: set[str] = set()
        self._state_dict_pre_hooks: dict[int, Any] = {}
        self._state_dict_hooks: dict[int, Any] = {}
        self._load_state_dict_pre_hooks: dict[int, Any] = {}
        self._load_state_dict_post_hooks: dict[int, Any] = {}
        for name, value in values.items():
            (self._modules if isinstance(value, Module) else self._parameters)[name] = value

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        return tree.read(HOST, self, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        tree.read_own(HOST, self, destination, prefix, keep_vars)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        tree.write_own(HOST, self, *arguments)

    def get_extra_state(self) -> Any:
        raise NotImplementedError

    def set_extra_state(self, state: Any) -> None:
        raise NotImplementedError


class NumpyHost:
    """The Host of such modules, which notes what it was asked."""

    module = Module
    library = library("numpy")
    incompatible = Incompatible

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def detach(self, value: Any) -> Any:
        return value.view()

    def fit(self, slots: tree.Slots, rules: tree.Rules) -> tree.Fit:
        self.batches.append(list(slots.keys))
        pairs: list[tuple[Array, Array]] = []

        def act() -> Sequence[str]:
            for current, value in pairs:
                np.copyto(current, value)
            return ()

        found = tree.Fit(act)
        for index, (key, current, value) in enumerate(zip(slots.keys, slots.current, slots.values)):
            leaf = leaf_of(value)
            if leaf is None or leaf.spec.shape != current.shape:
                found.errors.append(f"size mismatch for {key}")
                found.failed.add(index)
            else:
                pairs.append((current, read_array(leaf)))
        return found

    def keep(self, arrays: Iterable[Any]) -> Callable[[], None]:
        saved = [(array, array.copy()) for array in arrays]

        def restore() -> None:
            for array, copy in saved:
                np.copyto(array, copy)

        return restore

    def reach(self, code: Any) -> tree.Reach:
        return "module" if "confined" in getattr(code, "__qualname__", "") else "tree"

    def adds_nothing(self, module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
        return type(module).__name__ == "Harmless"


HOST = NumpyHost()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    HOST.batches.clear()


def array(value: float = 0) -> Array:
    return np.full(2, value)


def model() -> Module:
    return Module(a=Module(w=array(), b=None), w=array(), c=Module(w=array(), d=Module(w=array())))


def state(value: float = 1) -> dict[str, Any]:
    return {name: array(value) for name in ("w", "a.w", "c.w", "c.d.w")}


def elements(module: Module) -> dict[str, Any]:
    return {name: value.tolist() for name, value in module.state_dict().items()}


def write(module: Module, values: Any, **options: Any) -> tree.Outcome:
    return tree.write(HOST, module, values, **options)


def test_a_state_is_read_in_order_and_written_back() -> None:
    """Own values first, children in the order of registration, None left out; values alias the model's."""
    made = model()
    found = made.state_dict()
    assert list(found) == ["w", "a.w", "c.w", "c.d.w"]
    assert found._metadata == {path: {"version": 1} for path in ("", "a", "c", "c.d")}
    assert np.shares_memory(found["c.d.w"], made._modules["c"]._modules["d"]._parameters["w"])
    outcome = write(made, state())
    assert outcome.loaded == list(found)
    assert elements(made) == {name: [1, 1] for name in found}
    assert HOST.batches == [list(found)]


def test_a_load_that_pytorch_would_refuse_raises_with_its_text() -> None:
    """Missing first, then unexpected, then the rest; nothing was changed."""
    made = model()
    values = state() | {"c.d.w": np.zeros(3), "c.x": array(), "zz.y": array()}
    del values["a.w"]
    with pytest.raises(LoadError) as caught:
        write(made, values)
    assert str(caught.value) == (
        'Error(s) in loading state_dict for Module:\n\tMissing key(s) in state_dict: "a.w". '
        '\n\tUnexpected key(s) in state_dict: "zz.y", "c.x". \n\tsize mismatch for c.d.w'
    )
    assert caught.value.report.missing == ["a.w"]  # type: ignore[attr-defined]
    assert elements(made) == {name: [0, 0] for name in ("w", "a.w", "c.w", "c.d.w")}


@pytest.mark.parametrize("rules", [tree.EXACT, tree.SOUND], ids=["exact", "sound"])
def test_what_came_before_is_written_before_foreign_code_runs(rules: tree.Rules) -> None:
    """One batch up to each hook, and one for the rest."""
    made = model()
    made._modules["c"]._load_state_dict_pre_hooks[0] = lambda *args: seen.append(elements(made)["a.w"])
    made._modules["c"]._load_state_dict_post_hooks[0] = lambda *args: seen.append(elements(made)["c.d.w"])
    seen: list[Any] = []
    write(made, state(), rules=rules)
    assert seen == [[1, 1], [1, 1]]
    assert HOST.batches[:2] == [["w", "a.w"], ["c.w", "c.d.w"]]


def test_code_that_keeps_to_its_module_does_not_split_the_batch() -> None:
    """If the host knows that code changes only its own module, only that is recorded, and all slots stay in
    one batch."""
    made = model()

    def confined(*args: Any) -> None:
        made._modules["c"]._parameters["w"] += 5

    made._modules["c"]._load_state_dict_pre_hooks[0] = confined
    with pytest.raises(LoadError, match="size mismatch"):
        write(made, state() | {"w": np.zeros(3)})
    assert len(HOST.batches) == 1
    assert elements(made)["c.w"] == [0, 0]


def test_a_loader_that_adds_nothing_is_not_run() -> None:
    """A loader that the host declares to add nothing is not run."""

    class Harmless(Module):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            raise AssertionError

    made = Module(a=Harmless(w=array()))
    write(made, {"a.w": array(1)})
    assert elements(made) == {"a.w": [1, 1]}


class Loader(Module):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.notes: list[Any] = [["nested"]]

    def _load_from_state_dict(self, values: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        self.notes[0].append(list(values))
        self.notes.append(dict(metadata))
        values[prefix + "w"] = values.pop(prefix + "old")
        super()._load_from_state_dict(values, prefix, metadata, *rest)


def test_a_loader_renames_and_calls_super() -> None:
    """A loader gets the names below it and its metadata; `super()` is the engine's copier of one module."""
    made = Module(a=Loader(w=array()), w=array())
    values = OrderedDict({"a.old": array(3), "w": array(1)})
    values._metadata = {"a": {"version": 7}}  # type: ignore[attr-defined]
    write(made, values)
    assert elements(made) == {"w": [1, 1], "a.w": [3, 3]}
    assert made._modules["a"].notes == [["nested", ["a.old"]], {"version": 7}]
    assert list(values) == ["a.old", "w"]


def test_what_a_loader_did_is_put_back() -> None:
    """Elements, attributes, and the contents of nested lists are restored."""
    made = Module(a=Loader(w=array()), w=array())
    with pytest.raises(LoadError, match="size mismatch for w"):
        write(made, {"a.old": array(3), "w": np.zeros(3)})
    assert made._modules["a"].notes == [["nested"]]
    assert elements(made) == {"w": [0, 0], "a.w": [0, 0]}


def test_a_class_that_a_hook_exchanged_is_put_back() -> None:
    """A hook may give a module another class, as lazy modules do; a refused load gives it the old one again."""

    class Grown(Module):
        pass

    made = Module(a=Module(w=array()))

    def hook(*args: Any) -> None:
        made._modules["a"].__class__ = Grown
        raise ValueError("midway")

    made._load_state_dict_pre_hooks[0] = hook
    with pytest.raises(ValueError, match="midway"):
        write(made, {"a.w": array(1)})
    assert type(made._modules["a"]) is Module


def test_attributes_that_restoring_an_extra_state_changes_are_put_back() -> None:
    """Extra states are restored before attributes, because `set_extra_state` may change any attribute."""

    class Counts(Module):
        calls = 0

        def get_extra_state(self) -> Any:
            return 1

        def set_extra_state(self, given: Any) -> None:
            self.calls += 1

    made = Module(a=Counts(), w=array())
    made._modules["a"].calls = 5
    with pytest.raises(LoadError, match="size mismatch for w"):
        write(made, {"a._extra_state": 1, "w": np.zeros(3)})
    assert made._modules["a"].calls == 5


def test_a_post_hook_must_not_return_a_value() -> None:
    """A post-hook that returns a value raises PyTorch's error."""
    made = model()
    made._load_state_dict_post_hooks[0] = lambda *args: 1
    with pytest.raises(AssertionError, match="Hooks registered with ``register_load_state_dict_post_hook`` are not"):
        write(made, state())
    assert elements(made)["w"] == [0, 0]
    made._state_dict_hooks[0] = hook = lambda *args: 1
    hook._from_public_api = True  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="state_dict post-hook must return None"):
        made.state_dict()


@pytest.mark.parametrize("strict", [False, True])
def test_one_module_is_loaded_by_itself(strict: bool) -> None:
    """`write_own` adds to the lists that it is given, and names only if strict."""
    lists: tuple[list[str], list[str], list[str]] = ([], [], [])
    made = Module(w=array(), b=array())
    tree.write_own(HOST, made, {"x.w": array(2), "x.zz": 1}, "x.", {}, strict, *lists)
    assert lists == ((["x.b"], ["x.zz"], []) if strict else ([], [], []))
    assert elements(made) == {"w": [2, 2], "b": [0, 0]}


def test_interrupting_puts_everything_back() -> None:
    """Everything is restored whatever ends the load, not only errors."""
    made = model()

    def hook(*args: Any) -> None:
        made._parameters["w"] += 1
        raise KeyboardInterrupt

    made._modules["a"]._load_state_dict_pre_hooks[0] = hook
    with pytest.raises(KeyboardInterrupt):
        write(made, state())
    assert elements(made)["w"] == [0, 0]
