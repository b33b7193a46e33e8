"""What a source is: a path, a binary file object, an open Checkpoint, a StateDict, any mapping, a module."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from statedict.errors import NotAStateError, UnknownNameError
from statedict.state import (
    Opaque,
    StateDict,
    arguments,
    every,
    independent,
    library_of,
    nearest,
    raw_values,
)

from . import _arrays

if TYPE_CHECKING:
    from statedict.formats import Limits
    from statedict.tree import Host, Outcome


class Taken(NamedTuple):
    """The state of a source; where `"auto"` chose it among several, its root, and the others that could have been meant."""

    state: StateDict
    root: str = ""
    others: Mapping[str, StateDict] = MappingProxyType({})


@contextmanager
def opened(source: Any, root: str = "auto", limits: Limits | None = None) -> Iterator[StateDict]:
    """The state of a source while the context lasts; a file is read only where a value is asked for.

    Raises RootError where a file or a nested mapping holds no state dict at `root`, UnsafeFileError where a file names
    imports that would run code, NotAStateError (a TypeError) where `source` is none of the above.
    """
    with taken(source, root, limits) as found:
        yield found.state


@contextmanager
def taken(source: Any, root: str = "auto", limits: Limits | None = None) -> Iterator[Taken]:
    """As `opened`, with the root that was taken."""
    from statedict import formats

    arguments.texts(root=root)
    if is_file(source):
        with formats.open(source, limits=limits or formats.LIMITS) as checkpoint:
            checkpoint.require_safe()
            yield _taken(checkpoint.roots, checkpoint.state_dict(root), root)
    elif isinstance(source, formats.Checkpoint):
        source.require_safe()
        yield _taken(source.roots, source.state_dict(root), root)
    elif isinstance(source, StateDict) and root in ("auto", ""):
        yield Taken(source)
    elif root in ("auto", "") and _is_flat(source):
        yield Taken(StateDict(source))
    elif isinstance(source, (Mapping, list, tuple)):
        if not all(isinstance(name, str) for name in source) and _has_tensors(source):
            StateDict(source)  # raises: it says which name is not a string
        roots = formats.find_roots(source)
        if not (roots or root != "auto" or isinstance(source, Mapping)):
            raise _no_source(source)
        yield _taken(roots, formats.choose_root(roots, root, "the mapping given", tree=source), root)
    elif host_of(source) is not None:
        yield Taken(formats.choose_root({"": given(source)}, root, "the module given"))
    else:
        raise _no_source(source)


def _no_source(source: Any) -> NotAStateError:
    return NotAStateError(
        f"Expected state_dict to be dict-like, got {type(source)}. A source is a path, a binary file, a Checkpoint, "
        "a StateDict or other mapping, or a module"
    )


def is_file(source: Any) -> bool:
    """Whether a source is a file: a path, or an object with `read` that is not a module and has no state of its own."""
    if isinstance(source, (str, os.PathLike)):
        return True
    if isinstance(source, type):
        return False
    return hasattr(source, "read") and host_of(source) is None and not callable(getattr(source, "state_dict", None))


def _taken(roots: Mapping[str, StateDict], state: StateDict, root: str) -> Taken:
    if root != "auto":
        return Taken(state)
    path = next(path for path, known in roots.items() if known is state)
    return Taken(state, path, {p: known for p, known in roots.items() if p != path and "param_groups" not in known})


def _has_tensors(source: Any) -> bool:
    return isinstance(source, Mapping) and any(map(library_of, source.values()))


def _is_flat(source: Any) -> bool:
    """Whether a source is a dict of nothing but names and tensors: what a `state_dict()` gives, and nothing to search in."""
    return (
        type(source) in (dict, OrderedDict)
        and bool(source)
        and {str}.issuperset(map(type, source))
        and all(library_of(value) is not None for value in {type(value): value for value in source.values()}.values())
    )


def kept(source: Any, root: str = "auto") -> StateDict:
    """The state of a source for as long as anybody holds it: a file stays open until its last leaf is gone."""
    from statedict import formats

    with opened(formats.open(source) if is_file(source) else source, root) as state:
        return state


@contextmanager
def opened_tree(
    source: Any, root: str, fits: Callable[[Any], bool] | None, limits: Limits | None = None
) -> Iterator[Any]:
    """The nested state of a source (an optimizer's, a scheduler's), its tensors unread where it is a file's.

    `root="auto"` is the source itself if it `fits`, else the part of it that does (`fits` None: a mapping, or the whole
    source where it holds no mapping). Raises RootError where there is no part at `root`, or several that fit.
    """
    from statedict import formats

    arguments.texts(root=root)
    if is_file(source):
        with formats.open(source, limits=limits or formats.LIMITS) as checkpoint:
            checkpoint.require_safe()
            yield _revived(formats.choose_part(checkpoint.object, root, fits, checkpoint.path))
    elif isinstance(source, formats.Checkpoint):
        source.require_safe()
        yield _revived(formats.choose_part(source.object, root, fits, source.path))
    elif isinstance(source, (Mapping, list, tuple)):
        part = formats.choose_part(source, root, fits)
        # A StateDict that was taken from a Checkpoint has its inert values.
        yield _revived(part) if isinstance(source, StateDict) else part
    elif is_stateful(source):
        yield nested(source)
    else:
        raise _no_source(source)


def _revived(tree: Any) -> Any:
    """The tree with its inert values revived, for an object that takes it; leaves stay unread but in those."""
    return _arrays.revived_within(tree, "torch" if sys.modules.get("torch") else "numpy")


def given(module: Any, *, prefix: str = "", keep_vars: bool = False) -> StateDict:
    """A module's state, aliasing its memory, as its own `state_dict` gives it where its class has one of its own."""
    host = required_host(module)
    if _is_read_here(module, host):
        return live(module, prefix=prefix, keep_vars=keep_vars)
    # Only what was asked for is passed on: such a method may take no arguments.
    asked = {name: value for name, value in (("prefix", prefix), ("keep_vars", keep_vars)) if value}
    return StateDict(module.state_dict(**asked), backend=host.library.name)


def _is_read_here(module: Any, host: Host) -> bool:
    """Whether a module's state is what the engine reads of it: its class has no `state_dict` of its own."""
    return type(module).state_dict is host.module.state_dict and "state_dict" not in vars(module)


def has_own_loader(module: Any, host: Host) -> bool:
    """Whether a module's class overrides `load_state_dict`.

    Those of PyTorch's own classes do what the engine does.
    """
    kind = type(module)
    if kind.load_state_dict is host.module.load_state_dict:
        return False
    owner = next(base for base in kind.__mro__ if "load_state_dict" in vars(base))
    return not owner.__module__.startswith("torch.")


def live(module: Any, *, prefix: str = "", keep_vars: bool = False) -> StateDict:
    """What the engine reads of a module, and what it would write to: aliases of its memory."""
    from statedict import tree

    host = required_host(module)
    values = tree.read(host, module, prefix=prefix, keep_vars=keep_vars)
    return StateDict.adopt(values, getattr(values, "_metadata", None), host.library.name)


def require_target(obj: Any, source: Any) -> None:
    """Raise NotAStateError where `obj` cannot take a state, saying what was probably meant."""
    if isinstance(obj, type):
        raise NotAStateError(f"{obj.__name__} is a class: give an instance of it, {obj.__name__}(…)")
    if host_of(obj) is None and not is_stateful(obj):
        swapped = host_of(source) is not None or is_stateful(source)
        hint = (
            ": the model comes first, then the source" if swapped else ": it is no module, and has no load_state_dict"
        )
        raise NotAStateError(f"a {type(obj).__name__} takes no state{hint}")


def required_host(value: Any) -> Host:
    """The module system that a module is of; raises NotAStateError where it is none."""
    host = host_of(value)
    if host is None:
        raise NotAStateError(f"a {type(value).__name__} is no module: it has no parameters and buffers")
    return host


def host_of(value: Any) -> Host | None:
    """The module system that a value is a module of, or None; imports a host only for its own modules."""
    for base in type(value).__mro__:
        where = HOSTS.get((base.__module__, base.__qualname__))
        if where is not None:
            return _host_at(where)
    return None


@cache
def _host_at(where: str) -> Host:
    return cast("Host", getattr(import_module(where), "HOST"))  # noqa: B009  # mypy knows no such attribute


def saved(value: Any) -> Any:
    """What is saved of a value: a module's or other object's state, anything else as it is.

    A mapping of names to nothing but NumPy arrays is a state, whose arrays are tensors in every format; in any other tree
    NumPy arrays stay NumPy arrays, as with `torch.save`.
    """
    if host_of(value) is not None:
        return given(value)
    if isinstance(value, Mapping):
        # One value of each type tells: there may be 32,000 of one.
        parts = {type(part): part for part in raw_values(value).values()}
        kinds = {getattr(library_of(part), "name", None) for part in parts.values()}
        return StateDict(value) if kinds == {"numpy"} else value
    return nested(value) if is_stateful(value) else value


class States:
    """The states of the objects inside a tree that is saved: each is asked once, however often it is met."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """The state of a module, an optimizer, or anything else with a `state_dict` method; any other value itself."""
        if isinstance(value, type) or not callable(getattr(value, "state_dict", None)):
            return value
        if id(value) not in self._known:
            is_read = host_of(value) is not None or is_torch_optimizer(value)
            self._known[id(value)] = value, saved(value) if is_read else value.state_dict()
        return self._known[id(value)][1]


def unloadable(tree: Any) -> str | None:
    """Why a tree could not be loaded again once `save` has written it as a torch file; None where it could."""
    from statedict import formats

    return formats.unloadable(saved(tree), States().of)


def to_copy(value: Any, model: Any = None) -> Any:
    """What `saved` gives, for somebody who copies it at once: a module's parameters may come as they are, not detached, and
    an optimizer's dicts may be its own."""
    host = host_of(value)
    if host is not None and _is_read_here(value, host):
        from statedict import tree

        return StateDict.adopt(*tree.peek(host, value), host.library.name)
    if is_torch_optimizer(value):
        from statedict.torch import read_optimizer

        return read_optimizer(value, model, aliased=True)
    return saved(value)


def nested(value: Any, model: Any = None) -> Any:
    """The state that an optimizer, a scheduler or any other object gives of itself; `model` names an optimizer's
    parameters."""
    if isinstance(value, type):
        raise NotAStateError(f"{value.__name__} is a class: give an instance of it, {value.__name__}(…)")
    if not is_stateful(value):
        raise NotAStateError(f"a {type(value).__name__} has no state: it is no module, and has no state_dict method")
    if is_torch_optimizer(value):
        from statedict.torch import read_optimizer

        return read_optimizer(value, model)
    return value.state_dict()


def write_nested(
    obj: Any,
    state: Any,
    *,
    model: Any,
    strict: bool,
    dtype: Any,
    verify: bool,
    judge: Callable[[Outcome], None],
) -> None:
    """Put a nested state into the object that `nested` read it from, or another like it; all or nothing."""
    if not is_stateful(obj):
        raise NotAStateError(
            f"a {type(obj).__name__} takes no state: it is no module, and has no load_state_dict method"
        )
    if is_torch_optimizer(obj):
        from statedict.torch import write_optimizer

        write_optimizer(obj, state, model=model, strict=strict, dtype=dtype, verify=verify, judge=judge)
    elif sys.modules.get("torch"):
        from statedict.torch import write_stateful

        write_stateful(obj, state, strict=strict, verify=verify, judge=judge)
    else:
        from statedict.tree import Outcome

        given = _arrays.materialized(state, verify=verify)
        inert = dict.fromkeys(value.path for value in every(given) if isinstance(value, Opaque))
        errors = [f"it holds data of the unknown class {path}, which is not loaded" for path in inert]
        before = independent(obj.state_dict())
        try:
            if not errors:
                obj.load_state_dict(given)
            judge(Outcome(strict, errors=errors))
        except BaseException:
            obj.load_state_dict(before)
            raise


def is_stateful(value: Any) -> bool:
    """Whether a value can say its state and take it back."""
    methods = (getattr(value, name, None) for name in ("state_dict", "load_state_dict"))
    return not isinstance(value, type) and all(map(callable, methods))


def require_named(model: Any) -> None:
    """Raise NotAStateError where `model` cannot name the parameters of an optimizer."""
    if model is not None and (isinstance(model, type) or not callable(getattr(model, "named_parameters", None))):
        raise NotAStateError(
            f"model= is the module whose parameters the optimizer trains, not {arguments.described(model)}"
        )


def is_optimizer_state(tree: Any) -> bool:
    """Whether a tree is what an optimizer's `state_dict` gives."""
    return isinstance(tree, Mapping) and "state" in tree and "param_groups" in tree


def submodule(module: Any, path: str | None) -> Any:
    """The module at a dotted path below; raises UnknownNameError where there is none."""
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
