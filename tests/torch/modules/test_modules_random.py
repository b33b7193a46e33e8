"""Random module trees, loaded by PyTorch and by this engine side by side."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statedict import tree
from statedict.errors import StateDictError
from statedict.torch import HOST, module_load_state_dict, module_state_dict

# Taken before anything could be installed under these names.
their_state_dict = torch.nn.Module.state_dict
their_load_state_dict = torch.nn.Module.load_state_dict

SHAPES = [(), (1,), (2,), (3,), (2, 3)]
LOCAL_NAMES = ["weight", "bias", "a", "_extra_state"]
CHILD_NAMES = ["a", "b", "0", "a.b", ""]
MODULE_TRAITS = ["extra", "loader", "saver", "public", "pre", "post", "save_pre", "save_post", "private_post"]
STRANGERS = ["a.weight", "zz", "b.b.b", ".weight", "a.b.bias", "", ".", "0._extra_state"]
HOOK_ACTS = ["look", "drop", "rename", "forget missing", "complain", "raise"]


@dataclass
class Shape:
    """What a module is to be: the same description is built once for each engine."""

    parameters: dict[str, tuple[int, ...] | None]
    buffers: dict[str, tuple[tuple[int, ...] | None, bool]]
    children: dict[str, Shape | str | None]
    traits: frozenset[str]
    act: str
    version: int | None = None
    log: list[Any] = field(default_factory=list)


class Node(torch.nn.Module):
    """A module that notes all that is done to it."""

    def __init__(self, shape: Shape, log: list[Any]) -> None:
        super().__init__()
        self.note, self.act = log, shape.act

    def forget(self, missing: list[str], local: Any, prefix: str, errors: list[str]) -> None:
        if self.act == "drop" and local:
            local.pop(next(iter(local)))
        elif self.act == "rename" and prefix + "weight" in local:
            local[prefix + "bias"] = local.pop(prefix + "weight")
        elif self.act == "forget missing":
            missing.clear()
        elif self.act == "complain":
            errors.append(f"{prefix} is not content")
        elif self.act == "raise":
            raise ValueError(f"{prefix} refuses")


class Extra(Node):
    def get_extra_state(self) -> Any:
        return {"acts": self.act}

    def set_extra_state(self, state: Any) -> None:
        self.note.append(("extra", repr(state)))
        self.received = state


class Loader(Node):
    _version = 3

    def _load_from_state_dict(self, local, prefix, metadata, strict, missing, unexpected, errors):  # type: ignore[no-untyped-def]
        self.note.append(("loader", prefix, list(local), dict(metadata), list(missing), list(unexpected)))
        self.forget(missing, local, prefix, errors)
        super()._load_from_state_dict(local, prefix, metadata, strict, missing, unexpected, errors)


class Saver(Node):
    def _save_to_state_dict(self, destination, prefix, keep_vars):  # type: ignore[no-untyped-def]
        self.note.append(("saver", prefix, keep_vars, list(destination)))
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "_own"] = "not a tensor"


class Public(Node):
    def state_dict(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.note.append(("public", args, {k: v for k, v in kwargs.items() if k != "destination"}))
        found = super().state_dict(*args, **kwargs)
        found.pop(kwargs.get("prefix", "") + "weight", None)
        return found


CLASSES = {"extra": Extra, "loader": Loader, "saver": Saver, "public": Public}


def build(shape: Shape, log: list[Any], made: list[torch.nn.Module] | None = None) -> torch.nn.Module:
    """A tree as described, with zeros in it; a child described by a string is the first module made."""
    made = [] if made is None else made
    kinds = tuple(CLASSES[trait] for trait in sorted(CLASSES) if trait in shape.traits) or (Node,)
    module = type("_".join(kind.__name__ for kind in kinds), kinds, {})(shape, log)
    made.append(module)
    for name, size in shape.parameters.items():
        value = None if size is None else torch.nn.Parameter(torch.zeros(size), requires_grad=len(size) != 2)
        module.register_parameter(name, value)
    for name, (size, persistent) in shape.buffers.items():
        if name not in shape.parameters:
            module.register_buffer(name, None if size is None else torch.zeros(size), persistent=persistent)
    for name, child in shape.children.items():
        if name in shape.parameters or name in shape.buffers:
            continue
        built = build(child, log, made) if isinstance(child, Shape) else made[-1] if child else None
        if built is module:
            continue
        if "." in name or not name:
            module._modules[name] = built
        else:
            module.add_module(name, built)
    register_hooks(module, shape, log)
    return module


def register_hooks(module: torch.nn.Module, shape: Shape, log: list[Any]) -> None:
    def pre(mod, local, prefix, metadata, strict, missing, unexpected, errors):  # type: ignore[no-untyped-def]
        log.append(("pre", prefix, list(local), dict(metadata), strict, list(missing), list(unexpected), list(errors)))
        log.append(elements(module))
        mod.forget(missing, local, prefix, errors)

    def post(mod, incompatible):  # type: ignore[no-untyped-def]
        log.append(("post", list(incompatible.missing_keys), list(incompatible.unexpected_keys), elements(mod)))
        mod.forget(incompatible.missing_keys, {}, "post", [])

    def save_pre(mod, prefix, keep_vars):  # type: ignore[no-untyped-def]
        log.append(("save_pre", prefix, keep_vars))

    def save_post(mod, state, prefix, metadata):  # type: ignore[no-untyped-def]
        log.append(("save_post", prefix, list(state), dict(metadata)))

    def private_post(mod, state, prefix, metadata):  # type: ignore[no-untyped-def]
        log.append(("private_post", prefix, list(state)))
        return OrderedDict(state, **{prefix + "added": 1})

    if "pre" in shape.traits:
        module.register_load_state_dict_pre_hook(pre)
    if "post" in shape.traits:
        module.register_load_state_dict_post_hook(post)
    if "save_pre" in shape.traits:
        module.register_state_dict_pre_hook(save_pre)
    if "save_post" in shape.traits:
        module.register_state_dict_post_hook(save_post)
    if "private_post" in shape.traits:
        module._register_state_dict_hook(private_post)


def elements(module: torch.nn.Module) -> dict[str, Any]:
    """Everything that a load may change, as plain data."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for kind, registry in (("parameter", part._parameters), ("buffer", part._buffers)):
            for name, value in registry.items():
                facts = None if value is None else (value.tolist(), tuple(value.shape), str(value.dtype))
                grad = value is not None and value.requires_grad
                found[f"{path}/{name}"] = (kind, facts, grad, type(value).__name__)
        found[f"{path}/received"] = repr(getattr(part, "received", None))
    return found


sizes = st.sampled_from(SHAPES)
# Drawn in this odd way because most modules are to have something, and few are to be special.
registered = st.sampled_from([(2,), (2, 3), (2,), (2, 3), (), (1,), None])
traits = st.sampled_from([frozenset(), frozenset(), *({trait} for trait in MODULE_TRAITS), {"pre", "loader", "extra"}])


def described_with(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape,
        st.dictionaries(st.sampled_from(LOCAL_NAMES), registered, min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(LOCAL_NAMES), st.tuples(registered, st.booleans()), max_size=1),
        children,
        traits.map(frozenset),
        st.sampled_from(HOOK_ACTS),
    )


leaves = described_with(st.just({}))
twigs = described_with(
    st.dictionaries(st.sampled_from(CHILD_NAMES), leaves | st.none() | st.just("shared"), max_size=2)
)
below = st.dictionaries(st.sampled_from(CHILD_NAMES), twigs | leaves | st.none(), min_size=1, max_size=3)
shapes = described_with(below)


@st.composite
def states(draw: st.DrawFn, shape: Shape) -> OrderedDict[str, Any]:
    """A state that fits the tree more or less."""
    fitting = dict(their_state_dict(build(shape, [])))
    state: OrderedDict[str, Any] = OrderedDict()
    for key, value in fitting.items():
        if isinstance(value, torch.Tensor):
            value = torch.full(value.shape, draw(st.integers(1, 9)), dtype=value.dtype)
        state[key] = value
    edits = st.sampled_from(["drop", "add", "resize", "cast", "spoil", "parameter", "deep"])
    for edit in draw(st.lists(edits, max_size=3)):
        key = draw(st.sampled_from(sorted(state))) if state else "weight"
        _edit(draw, state, edit, key)
    if draw(st.booleans()):
        paths = {key.rpartition(".")[0] for key in state} | {""}
        state._metadata = OrderedDict((path, {"version": draw(st.integers(1, 3))}) for path in sorted(paths))  # type: ignore[attr-defined]
        if draw(st.booleans()):
            state._metadata[draw(st.sampled_from(sorted(paths)))]["assign_to_params_buffers"] = True  # type: ignore[attr-defined]
    return state


def _edit(draw: st.DrawFn, state: OrderedDict[str, Any], edit: str, key: str) -> None:
    value = state.get(key)
    if edit == "drop":
        state.pop(key, None)
    elif edit == "add":
        state[draw(st.sampled_from(["a.weight", "zz", "b.b.b", ".weight", "a.b.bias", "", ".", "0._extra_state"]))] = (
            torch.ones(2)
        )
    elif edit == "resize":
        state[key] = torch.ones(draw(sizes))
    elif edit == "cast" and isinstance(value, torch.Tensor) and not value.is_complex():
        state[key] = value.to(draw(st.sampled_from([torch.float64, torch.int64, torch.complex64, torch.bfloat16])))
    elif edit == "spoil":
        state[key] = draw(st.sampled_from([None, 3, "text"]))
    elif edit == "parameter" and isinstance(value, torch.Tensor) and value.is_floating_point():
        state[key] = torch.nn.Parameter(value, requires_grad=draw(st.booleans()))
    elif edit == "deep":
        state[key + ".more"] = torch.ones(1)


def attempt(act: Any) -> tuple[str, Any]:
    """What came of it: the result, or the error's class and text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "returned", act()
        except (RuntimeError, ValueError, AttributeError, AssertionError, KeyError, IndexError) as error:
            return type(error).__name__, str(error)


def copied(state: OrderedDict[str, Any]) -> OrderedDict[str, Any]:
    new = OrderedDict((key, _again(value)) for key, value in state.items())
    if hasattr(state, "_metadata"):
        new._metadata = OrderedDict((path, dict(entry)) for path, entry in state._metadata.items())  # type: ignore[attr-defined]
    return new


def _again(value: Any) -> Any:
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().clone(), value.requires_grad)
    return value.clone() if isinstance(value, torch.Tensor) else value


def described(state: Any) -> Any:
    values = {
        key: (value.tolist(), value.requires_grad, type(value).__name__) if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }
    return list(values.items()), getattr(state, "_metadata", None)


def renamed(outcome: tuple[str, Any]) -> tuple[str, Any]:
    kind, value = outcome
    return kind, (list(value.missing_keys), list(value.unexpected_keys), repr(value)) if kind == "returned" else value


@given(shape=shapes, prefix=st.sampled_from(["", "x.", "x"]), keep_vars=st.booleans())
def test_captured_states_are_pytorchs(shape: Shape, prefix: str, keep_vars: bool) -> None:
    """Names, order, values, metadata and every call to a hook or an overridden method are those of stock PyTorch."""
    logs: list[list[Any]] = [[], []]
    theirs = attempt(lambda: their_state_dict(build(shape, logs[0]), prefix=prefix, keep_vars=keep_vars))
    ours = attempt(lambda: module_state_dict(build(shape, logs[1]), prefix=prefix, keep_vars=keep_vars))
    assert theirs[0] == ours[0]
    assert (described(theirs[1]) if theirs[0] == "returned" else theirs[1]) == (
        described(ours[1]) if ours[0] == "returned" else ours[1]
    )
    assert logs[0] == logs[1]


@given(data=st.data(), shape=shapes, strict=st.booleans(), assign=st.booleans())
def test_exact_loads_are_pytorchs(data: st.DataObject, shape: Shape, strict: bool, assign: bool) -> None:
    """Result, error text, model, the caller's state and every call to a hook or loader are those of stock PyTorch."""
    state = data.draw(states(shape))
    logs: list[list[Any]] = [[], []]
    models = [build(shape, log) for log in logs]
    given_states = [copied(state), copied(state)]
    theirs = attempt(lambda: their_load_state_dict(models[0], given_states[0], strict=strict, assign=assign))
    ours = attempt(lambda: module_load_state_dict(models[1], given_states[1], strict=strict, assign=assign))
    assert renamed(theirs) == renamed(ours)
    assert elements(models[0]) == elements(models[1])
    assert described(given_states[0]) == described(given_states[1])
    assert logs[0] == logs[1]


@given(data=st.data(), shape=shapes, strict=st.booleans(), assign=st.booleans())
def test_a_refused_sound_load_leaves_no_trace(data: st.DataObject, shape: Shape, strict: bool, assign: bool) -> None:
    """Where a sound load raises, the model, its objects and the caller's state are as they were, bit for bit."""
    state = data.draw(states(shape))
    model = build(shape, [])
    before, objects, source = elements(model), identities(model), described(state)
    kind, _ = attempt(lambda: tree.write(HOST, model, state, strict=strict, assign=assign))
    assert described(state) == source
    if kind != "returned":
        assert elements(model) == before
        assert identities(model) == objects


@given(data=st.data(), shape=shapes)
def test_a_judge_that_refuses_leaves_no_trace(data: st.DataObject, shape: Shape) -> None:
    """A judge sees the whole outcome, and where it raises nothing has happened."""
    state = data.draw(states(shape))
    model = build(shape, [])
    before, objects, source = elements(model), identities(model), described(state)

    def judge(outcome: tree.Outcome) -> None:
        raise StateDictError("no")

    with pytest.raises((StateDictError, RuntimeError, ValueError, AttributeError, AssertionError)):
        tree.write(HOST, model, state, judge=judge)
    assert (elements(model), identities(model), described(state)) == (before, objects, source)


def identities(module: torch.nn.Module) -> list[int]:
    return [
        id(value)
        for part in module.modules()
        for registry in (part._parameters, part._buffers, part._modules)
        for value in (registry, *registry.values())
    ]
