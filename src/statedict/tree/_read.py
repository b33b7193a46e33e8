"""Read the state of a module tree exactly as `Module.state_dict` does, hooks and metadata included. Partner of `_write`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from statedict.state import collector_paused

from ._host import Host
from ._survey import EXTRA_STATE, SAVING, Survey, survey

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
        passing = module._non_persistent_buffers_set
        for name, value in buffers.items():
            if value is not None and name not in passing:
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
