"""Module tree to state: names, order, values, metadata and hooks as PyTorch's `Module.state_dict`. Partner of `_write`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ._host import Host
from ._survey import EXTRA_STATE, SAVING, survey


def read(host: Host, module: Any, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
    """The state of the tree below `module`, as an OrderedDict with `_metadata`, or put into `destination`.

    Values alias the model's memory. `keep_vars` gives the parameters and buffers themselves instead of detached aliases.
    Hooks, and methods that subclasses override, run as PyTorch runs them.
    """
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()
    # A survey costs 0.6 µs before it saves any: not worth it for one layer.
    plain = survey(host.module, module, prefix, SAVING) if module.__dict__.get("_modules") else None
    if plain is None:
        return _read_all(host, module, destination, prefix, keep_vars)
    keys, values, prefixes, modules, _ = plain
    metadata = getattr(destination, "_metadata", None)
    if metadata is not None:
        for path, below in zip(prefixes, modules):
            metadata[path[:-1]] = {"version": below._version}
    for key, value in zip(keys, values if keep_vars else host.detached(values)):
        destination[key] = value
    return destination


def read_own(host: Host, module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Put the module's own parameters, persistent buffers and extra state into `destination`, not its children's."""
    keys, values = [], []
    for name, value in module._parameters.items():
        if value is not None:
            keys.append(prefix + name)
            values.append(value)
    buffers = module._buffers
    if buffers:
        passing = module._non_persistent_buffers_set
        for name, value in buffers.items():
            if value is not None and name not in passing:
                keys.append(prefix + name)
                values.append(value)
    for key, value in zip(keys, values if keep_vars else host.detached(values)):
        destination[key] = value
    if type(module).get_extra_state is not host.module.get_extra_state:
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


def _read_all(host: Host, module: Any, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """The walk that runs hooks and overridden methods, in PyTorch's order."""
    base = host.module
    metadata = {"version": module._version}
    written = getattr(destination, "_metadata", None)
    if written is not None:
        written[prefix[:-1]] = metadata
    for hook in module._state_dict_pre_hooks.values():
        hook(module, prefix, keep_vars)
    if type(module)._save_to_state_dict is not base._save_to_state_dict or "_save_to_state_dict" in module.__dict__:
        module._save_to_state_dict(destination, prefix, keep_vars)
    else:
        read_own(host, module, destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is None:
            continue
        below = f"{prefix}{name}."
        if type(child).state_dict is not base.state_dict or "state_dict" in child.__dict__:
            child.state_dict(destination=destination, prefix=below, keep_vars=keep_vars)
        else:
            _read_all(host, child, destination, below, keep_vars)
    for hook in module._state_dict_hooks.values():
        given = hook(module, destination, prefix, metadata)
        if given is None:
            continue
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("state_dict post-hook must return None")
        # Only the root's caller sees it: children's results are not looked at (pytorch#117437).
        destination = given
    return destination
