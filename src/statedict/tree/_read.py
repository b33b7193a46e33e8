"""Read the state of a module tree exactly as `Module.state_dict` does, hooks and metadata included. Partner of `_write`.

Most trees have neither hooks nor overridden methods, and the walk is most of the cost of reading or loading their state:
`survey` collects their names and values quickly. If a module is special, it returns None without having changed anything,
and the full walk (`_read`, or `_loading` for a load) is used instead.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

from statedict.state import collector_paused

from ._host import Host

EXTRA_STATE = "_extra_state"
# A deeper tree probably contains itself; it is left to the recursive walk, which raises RecursionError.
_DEEPEST = 2000
# From this number on, the parameters of one module are added in one operation.
_LONG = 64


class Side(NamedTuple):
    """What makes a module special when reading, or when loading.

    Attributes:
        overridden: whether a class overrides a method of the base class.
        public, private: names of instance attributes that would hide such a method.
        before, after: registries of hooks.
        names: names that PyTorch treats as unexpected (with dots, or equal to the extra state's) are special, too.
    """

    overridden: Callable[[Any, Any], bool]
    public: str
    private: str
    before: str
    after: str
    names: bool


class Survey(NamedTuple):
    """A tree without special modules, in PyTorch's order.

    Stored column-wise: several hundred thousand objects would slow down the garbage collector.

    Attributes:
        keys, values: every parameter and persistent buffer.
        prefixes, modules: every module, and its path with a trailing dot.
    """

    keys: list[str]
    values: list[Any]
    prefixes: list[str]
    modules: list[Any]

    def places(self) -> list[tuple[Any, str]]:
        """Where each value is registered: (module, name)."""
        return [(module, name) for module in self.modules for name in persistent(module)]


def persistent(module: Any) -> dict[str, Any]:
    """The module's own parameters and persistent buffers, in PyTorch's order, without those that are None."""
    own = {name: value for name, value in module._parameters.items() if value is not None}
    if buffers := module._buffers:
        skipped = module._non_persistent_buffers_set
        own |= {name: value for name, value in buffers.items() if value is not None and name not in skipped}
    return own


def overrides(kind: type[Any], base: type[Any], method: str) -> bool:
    """Whether the class overrides a method of `base`."""
    return getattr(kind, method, None) is not getattr(base, method)


def survey(
    base: type[Any], root: Any, prefix: str, side: Side, admits: Callable[[Any, str], bool] | None = None
) -> Survey | None:
    """Survey the tree below `root`; None if a module is special.

    `admits(module, prefix)` is called for modules whose class overrides a method; if it returns true, they are not special.
    """
    overridden, public, private, before, after, names = side
    keys, values, prefixes, modules = found = Survey([], [], [], [])
    special: dict[type[Any], bool] = {}
    seen: set[str] = set()
    # One iterator per level of the walk. Modules without children need only one iteration of the inner loop.
    levels: list[Iterator[tuple[str, Any]]] = [iter([(prefix, root)])]
    try:
        while levels:
            for prefix, module in levels[-1]:
                if module is None:
                    continue
                state, kind = module.__dict__, type(module)
                odd = special.get(kind)
                if odd is None:
                    odd = special[kind] = overridden(kind, base)
                if state[before] or state[after] or private in state or public in state:
                    return None
                if odd and not (admits and admits(module, prefix)):
                    return None
                parameters, buffers, children = state["_parameters"], state["_buffers"], state["_modules"]
                if names:
                    seen.update(parameters, buffers, children)
                prefixes.append(prefix)
                modules.append(module)
                if len(parameters) >= _LONG and not any(map(is_, parameters.values(), repeat(None))):
                    keys += map(prefix.__add__, parameters)
                    values += parameters.values()
                else:
                    for name, value in parameters.items():
                        if value is not None:
                            keys.append(prefix + name)
                            values.append(value)
                if buffers:
                    skipped = state["_non_persistent_buffers_set"]
                    saved = {k: v for k, v in buffers.items() if v is not None and k not in skipped}
                    keys += map(prefix.__add__, saved)
                    values += saved.values()
                if children:
                    levels.append(zip([f"{prefix}{name}." for name in children], children.values()))
                    break
            else:
                levels.pop()
            if len(levels) > _DEEPEST:
                return None
    except (KeyError, TypeError):
        # `Module.__init__` was not called, or the module was pickled by an old version: the full walk raises or copes. Or
        # its registries are not dicts (TorchScript).
        return None
    return None if "." in "".join(seen) or EXTRA_STATE in seen else found


def _saves(kind: Any, base: Any) -> bool:
    return (
        kind.state_dict is not base.state_dict
        or kind._save_to_state_dict is not base._save_to_state_dict
        or kind.get_extra_state is not base.get_extra_state
    )


def _loads(kind: Any, base: Any) -> bool:
    return (
        kind._load_from_state_dict is not base._load_from_state_dict or kind.set_extra_state is not base.set_extra_state
    )


SAVING = Side(_saves, "state_dict", "_save_to_state_dict", "_state_dict_pre_hooks", "_state_dict_hooks", names=False)
LOADING = Side(
    _loads,
    "_load_from_state_dict",
    "_load_from_state_dict",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    names=True,
)


# From this number of children on, the fast way (`survey`) pays for its fixed cost.
_FEW = 4
_MANY = 1000


def read(host: Host, module: Any, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
    """The state of the tree below `module`, in an OrderedDict with `_metadata`, or added to `destination`.

    Values alias the model's memory. `keep_vars` returns the parameters and buffers themselves instead of detached aliases.
    Hooks, and methods that subclasses override, run as PyTorch runs them.
    """
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()
    return _read(host, module, destination, prefix, keep_vars, [])


def named_arguments(args: tuple[Any, ...], destination: Any, prefix: str, keep_vars: bool) -> tuple[Any, str, bool]:
    """Return the arguments of `Module.state_dict`; those given by position are still accepted, with PyTorch's warning."""
    if not args:
        return destination, prefix, keep_vars
    warnings.warn(
        "Positional args are being deprecated, use kwargs instead. Refer to "
        "https://pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.state_dict for details.",
        FutureWarning,
        stacklevel=3,
    )
    return (
        args[0] if destination is None else destination,
        args[1] if len(args) > 1 and prefix == "" else prefix,
        args[2] if len(args) > 2 and keep_vars is False else keep_vars,
    )


def peek(host: Host, module: Any) -> tuple[dict[str, Any], Any]:
    """The values and metadata that `read` returns, for a caller that copies them at once.

    Without hooks and overridden methods, the values are the parameters and buffers themselves, which saves detaching them.
    """
    plain = survey(host.module, module, "", SAVING)
    if plain is None:
        values = read(host, module)
        return values, getattr(values, "_metadata", None)
    return dict(zip(plain.keys, plain.values)), OrderedDict(_versions(plain))


def read_own(host: Host, module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Add the module's own parameters, persistent buffers and extra state (not its children's) to `destination`."""
    detach = host.detach
    for name, value in module._parameters.items():
        if value is not None:
            destination[prefix + name] = value if keep_vars else value.detach() if detach is None else detach(value)
    buffers = module._buffers
    if buffers:
        skipped = module._non_persistent_buffers_set
        for name, value in buffers.items():
            if value is not None and name not in skipped:
                destination[prefix + name] = value if keep_vars else value.detach() if detach is None else detach(value)
    if type(module).get_extra_state is not host.module.get_extra_state:
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


def _read(host: Host, module: Any, destination: Any, prefix: str, keep_vars: bool, special: list[Any]) -> Any:
    """Read with hooks and overridden methods, in PyTorch's order.

    Below a module with several children it tries the fast way, but only once: `special` is not empty afterwards.
    """
    base, kind, state = host.module, type(module), module.__dict__
    try:
        # Faster than attribute access, because Module defines `__getattr__`.
        before, after, children = state["_state_dict_pre_hooks"], state["_state_dict_hooks"], state["_modules"]
    except KeyError:
        before, after, children = module._state_dict_pre_hooks, module._state_dict_hooks, module._modules
    if len(children) >= _FEW and not special:
        plain = survey(base, module, prefix, SAVING)
        if plain is not None:
            # Pausing the garbage collector pays off only if many objects are created.
            with collector_paused() if len(plain.keys) > _MANY else nullcontext():
                return _fill(host, plain, destination, keep_vars)
        special.append(module)
    metadata = {"version": module._version}
    written = getattr(destination, "_metadata", None)
    if written is not None:
        written[prefix[:-1]] = metadata
    for hook in before.values():
        hook(module, prefix, keep_vars)
    if kind._save_to_state_dict is not base._save_to_state_dict or "_save_to_state_dict" in state:
        module._save_to_state_dict(destination, prefix, keep_vars)
    else:
        read_own(host, module, destination, prefix, keep_vars)
    for name, child in children.items():
        if child is None:
            continue
        below = f"{prefix}{name}."
        if type(child).state_dict is not base.state_dict or "state_dict" in child.__dict__:
            child.state_dict(destination=destination, prefix=below, keep_vars=keep_vars)
        else:
            _read(host, child, destination, below, keep_vars, special)
    for hook in after.values():
        given = hook(module, destination, prefix, metadata)
        if given is None:
            continue
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("state_dict post-hook must return None")
        # Only the root's result is used; PyTorch ignores the children's (pytorch#117437).
        destination = given
    return destination


def _fill(host: Host, plain: Survey, destination: Any, keep_vars: bool) -> Any:
    keys, values, _, _ = plain
    metadata = getattr(destination, "_metadata", None)
    if metadata is not None:
        metadata.update(_versions(plain))
    # Two passes are faster than one that alternates between detaching and inserting.
    if not keep_vars:
        values = [value.detach() for value in values] if host.detach is None else list(map(host.detach, values))
    for key, value in zip(keys, values):
        destination[key] = value
    return destination


def _versions(plain: Survey) -> Iterator[tuple[str, Any]]:
    for path, module in zip(plain.prefixes, plain.modules):
        yield path[:-1], {"version": module._version}
