"""Read the state of a source: a path, a binary file object, an open Checkpoint, a StateDict, any mapping, a module."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from statedict.errors import NotAStateError, UnknownNameError
from statedict.state import (
    StateDict,
    arguments,
    library_of,
    nearest,
    raw_values,
)

if TYPE_CHECKING:
    from statedict.formats import Checkpoint, Limits
    from statedict.tree import Host


class ResolvedSource(NamedTuple):
    """The state of a source. If `root="auto"` chose it among several: its root, and the other states by root."""

    state: StateDict
    root: str = ""
    others: Mapping[str, StateDict] = MappingProxyType({})


@contextmanager
def resolved(source: Any, root: str = "auto", limits: Limits | None = None) -> Iterator[ResolvedSource]:
    """Give the state of a source inside a `with` block; values of a file are read when they are used.

    Raises RootError if a file or a nested mapping has no state dict at `root`, UnsafeFileError if a file names imports
    that would run code, NotAStateError (a TypeError) if `source` is not a source.
    """
    arguments.texts(root=root)
    with checkpoint_of(source, limits) as checkpoint:
        if checkpoint is None:
            yield _in_memory(source, root)
        else:
            yield _resolved(checkpoint.roots, checkpoint.state_dict(root), root)


@contextmanager
def checkpoint_of(source: Any, limits: Limits | None) -> Iterator[Checkpoint | None]:
    """Give the Checkpoint in a file, or the one that the source is, if it is safe; None for any other source."""
    from statedict import formats

    opening = formats.open(source, limits=limits or formats.LIMITS) if is_file(source) else nullcontext(source)
    with opening as checkpoint:
        if isinstance(checkpoint, formats.Checkpoint):
            checkpoint.require_safe()
            yield checkpoint
        else:
            yield None


def _in_memory(source: Any, root: str) -> ResolvedSource:
    from statedict import formats

    if isinstance(source, StateDict) and root in ("auto", ""):
        return ResolvedSource(source)
    if root in ("auto", "") and _is_flat(source):
        return ResolvedSource(StateDict(source))
    if isinstance(source, (Mapping, list, tuple)):
        if not all(isinstance(name, str) for name in source) and _has_tensors(source):
            StateDict(source)  # raises an error that says which name is not a string
        roots = formats.find_roots(source)
        if not (roots or root != "auto" or isinstance(source, Mapping)):
            raise not_a_source(source)
        return _resolved(roots, formats.choose_root(roots, root, "the mapping given", tree=source), root)
    if host_of(source) is not None:
        return ResolvedSource(formats.choose_root({"": given(source)}, root, "the module given"))
    raise not_a_source(source)


def not_a_source(source: Any) -> NotAStateError:
    """Return the error for a value that is not a source."""
    return NotAStateError(
        f"Expected state_dict to be dict-like, got {type(source)}. A source is a path, a binary file, a Checkpoint, "
        "a StateDict or other mapping, or a module"
    )


def is_file(source: Any) -> bool:
    """Whether a source is a file: a path, or an object with `read`, that is not a module and has no state of its own."""
    if isinstance(source, str):
        return True
    if isinstance(source, type) or host_of(source) is not None or callable(getattr(source, "state_dict", None)):
        return False
    return isinstance(source, os.PathLike) or hasattr(source, "read")


def _resolved(roots: Mapping[str, StateDict], state: StateDict, root: str) -> ResolvedSource:
    if root != "auto":
        return ResolvedSource(state)
    from statedict import formats

    path = next(path for path, known in roots.items() if known is state)
    others = formats.candidates(roots).items()
    return ResolvedSource(state, path, {p: known for p, known in others if p != path and "param_groups" not in known})


def _has_tensors(source: Any) -> bool:
    return isinstance(source, Mapping) and any(map(library_of, source.values()))


def _is_flat(source: Any) -> bool:
    """Whether a source is a dict from names to tensors only, as from `state_dict()`: then it is not searched for roots."""
    return (
        type(source) in (dict, OrderedDict)
        and bool(source)
        and {str}.issuperset(map(type, source))
        and all(library_of(value) is not None for value in {type(value): value for value in source.values()}.values())
    )


def kept(source: Any, root: str = "auto") -> StateDict:
    """Return the state of a source; a file stays open until the last leaf of it is deleted."""
    from statedict import formats

    with resolved(formats.open(source) if is_file(source) else source, root) as found:
        return found.state


def given(module: Any, *, prefix: str = "", keep_vars: bool = False) -> StateDict:
    """Return a module's state, sharing its memory; uses the `state_dict` method of the module's class if it has its own."""
    host = required_host(module)
    if _is_read_here(module, host):
        from statedict import tree

        values = tree.read(host, module, prefix=prefix, keep_vars=keep_vars)
        return StateDict.adopt(values, getattr(values, "_metadata", None), host.library.name)
    # The module's own method may not accept these arguments, so only those that were given are passed on.
    asked = {name: value for name, value in (("prefix", prefix), ("keep_vars", keep_vars)) if value}
    return StateDict(module.state_dict(**asked), backend=host.library.name)


def _is_read_here(module: Any, host: Host) -> bool:
    """Whether the engine reads a module's state: its class does not override `state_dict`."""
    return type(module).state_dict is host.module.state_dict and "state_dict" not in vars(module)


def has_own_loader(module: Any, host: Host) -> bool:
    """Whether a module's class overrides `load_state_dict`.

    Overrides in PyTorch's own classes do not count: the engine does the same as they do.
    """
    kind = type(module)
    if kind.load_state_dict is host.module.load_state_dict:
        return False
    owner = next(base for base in kind.__mro__ if "load_state_dict" in vars(base))
    return not owner.__module__.startswith("torch.")


def require_target(obj: Any, source: Any) -> None:
    """Raise NotAStateError if a state cannot be loaded into `obj`, with a hint at the likely mistake."""
    if isinstance(obj, type):
        raise NotAStateError(f"{obj.__name__} is a class: pass an instance, {obj.__name__}(…)")
    if host_of(obj) is None and not is_stateful(obj):
        swapped = host_of(source) is not None or is_stateful(source)
        hint = (
            "pass the model first, then the source"
            if swapped
            else "it is not a module and has no load_state_dict method"
        )
        raise NotAStateError(f"cannot load a state into {arguments.a(obj)}: {hint}")


def required_host(value: Any) -> Host:
    """Return the module system of a module; raises NotAStateError if the value is not a module."""
    host = host_of(value)
    if host is None:
        raise NotAStateError(f"{arguments.a(value)} is not a module: it has no parameters and buffers")
    return host


def host_of(value: Any) -> Host | None:
    """Return the module system of a value, None if it is not a module; imports a module system only for its own modules."""
    for base in type(value).__mro__:
        where = HOSTS.get((base.__module__, base.__qualname__))
        if where is not None:
            return _host_at(where)
    return None


@cache
def _host_at(where: str) -> Host:
    return cast("Host", getattr(import_module(where), "HOST"))  # noqa: B009  # mypy does not know this attribute


def saved(value: Any) -> Any:
    """Return what to save for a value: the state of a module or other object, any other value itself.

    A mapping from names to NumPy arrays only is a state, whose arrays are saved as tensors in every format; in any other
    tree NumPy arrays stay NumPy arrays, as with `torch.save`.
    """
    if host_of(value) is not None:
        return given(value)
    if isinstance(value, Mapping):
        # Checks one value of each type: there may be tens of thousands of values.
        parts = {type(part): part for part in raw_values(value).values()}
        kinds = {getattr(library_of(part), "name", None) for part in parts.values()}
        return StateDict(value) if kinds == {"numpy"} else value
    return nested(value) if is_stateful(value) else value


class States:
    """The states of the objects inside a tree that is saved; `state_dict` is called once for each object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """Return the state of an object with a `state_dict` method, and any other value itself."""
        if isinstance(value, type) or not callable(getattr(value, "state_dict", None)):
            return value
        if id(value) not in self._known:
            is_read = host_of(value) is not None or is_torch_optimizer(value)
            self._known[id(value)] = value, saved(value) if is_read else value.state_dict()
        return self._known[id(value)][1]


def unloadable(tree: Any) -> str | None:
    """Return why a tree could not be loaded again after `save` has written it as a torch file; None if it could."""
    from statedict import formats

    return formats.unloadable(saved(tree), States().of)


def to_copy(value: Any, model: Any = None) -> Any:
    """Return the state as `saved` does, for a caller that copies it at once.

    A module's parameters need not be detached, and an optimizer's dicts may be its own.
    """
    host = host_of(value)
    if host is not None and _is_read_here(value, host):
        from statedict import tree

        return StateDict.adopt(*tree.peek(host, value), host.library.name)
    if is_torch_optimizer(value):
        from statedict.torch import read_optimizer

        return read_optimizer(value, model, aliased=True)
    return saved(value)


def nested(value: Any, model: Any = None) -> Any:
    """Return the state of an optimizer, a scheduler or another object; `model` gives the names of an optimizer's
    parameters."""
    if isinstance(value, type):
        raise NotAStateError(f"{value.__name__} is a class: pass an instance, {value.__name__}(…)")
    require_named(model)
    if not is_stateful(value):
        raise NotAStateError(f"{arguments.a(value)} has no state: it is not a module and has no state_dict method")
    if is_torch_optimizer(value):
        from statedict.torch import read_optimizer

        return read_optimizer(value, model)
    return value.state_dict()


def is_stateful(value: Any) -> bool:
    """Whether a value has both `state_dict` and `load_state_dict` methods."""
    methods = (getattr(value, name, None) for name in ("state_dict", "load_state_dict"))
    return not isinstance(value, type) and all(map(callable, methods))


def require_named(model: Any) -> None:
    """Raise NotAStateError unless `model` is None or has `named_parameters`."""
    if model is not None and (isinstance(model, type) or not callable(getattr(model, "named_parameters", None))):
        raise NotAStateError(
            f"model= must be the module whose parameters the optimizer trains, not {arguments.described(model)}"
        )


def submodule(module: Any, path: str | None) -> Any:
    """Return the submodule at a dotted path; raises UnknownNameError if it does not exist."""
    arguments.maybe(arguments.texts, into=path)
    if not path:
        return module
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        known = [name for name, _ in module.named_modules() if name]
        raise UnknownNameError(path, among="the model's modules", near=nearest(path, known, 3)) from error


def is_torch_optimizer(value: Any) -> bool:
    return any((base.__module__, base.__qualname__) == OPTIMIZER for base in type(value).__mro__)


HOSTS = {
    ("torch.nn.modules.module", "Module"): "statedict.torch",
    ("statedict.nn._module", "Module"): "statedict.nn",
}
OPTIMIZER = ("torch.optim.optimizer", "Optimizer")
