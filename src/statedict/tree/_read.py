"""Module tree to state: names, order, values, metadata and hooks as PyTorch's `Module.state_dict`. Partner of `_write`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ._host import Host
from ._survey import SAVING, Survey, overrides, survey

EXTRA_STATE = "_extra_state"


def read(host: Host, module: Any, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
    """The state of the tree below `module`, as an OrderedDict with `_metadata`, or put into `destination`.

    Values alias the model's memory. `keep_vars` gives the parameters and buffers themselves instead of detached aliases.
    Hooks, and methods that subclasses override, run as PyTorch runs them.
    """
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()
    plain = survey(host.module, module, prefix, SAVING)
    if plain is None:
        return _Reading(host, keep_vars).read(module, destination, prefix)
    _fill(host, plain, destination, keep_vars)
    return destination


def read_own(host: Host, module: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Put the module's own parameters, persistent buffers and extra state into `destination`, not its children's."""
    passing = module._non_persistent_buffers_set
    keys, values = [], []
    for name, value in module._parameters.items():
        if value is not None:
            keys.append(prefix + name)
            values.append(value)
    for name, value in module._buffers.items():
        if value is not None and name not in passing:
            keys.append(prefix + name)
            values.append(value)
    for key, value in zip(keys, values if keep_vars else host.detached(values)):
        destination[key] = value
    if overrides(type(module), host.module, ("get_extra_state",)):
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


def _fill(host: Host, plain: Survey, destination: Any, keep_vars: bool) -> None:
    values = plain.values if keep_vars else host.detached(plain.values)
    if (metadata := getattr(destination, "_metadata", None)) is not None:
        metadata.update([(prefix[:-1], {"version": module._version}) for prefix, module, _ in plain.modules])
    if type(destination) in (dict, OrderedDict):
        destination.update(zip(plain.keys, values))
        return
    for key, value in zip(plain.keys, values):
        destination[key] = value


class _Reading:
    """The walk that runs hooks and overridden methods, in PyTorch's order."""

    def __init__(self, host: Host, keep_vars: bool) -> None:
        self.host = host
        self.keep_vars = keep_vars
        # A model has few classes: what each overrides is looked up once.
        self.overrides: dict[tuple[type[Any], str], bool] = {}

    def read(self, module: Any, destination: Any, prefix: str) -> Any:
        metadata = {"version": module._version}
        if getattr(destination, "_metadata", None) is not None:
            destination._metadata[prefix[:-1]] = metadata
        for hook in module._state_dict_pre_hooks.values():
            hook(module, prefix, self.keep_vars)
        if self._has_its_own(module, "_save_to_state_dict"):
            module._save_to_state_dict(destination, prefix, self.keep_vars)
        else:
            read_own(self.host, module, destination, prefix, self.keep_vars)
        for name, child in module._modules.items():
            if child is None:
                continue
            below = f"{prefix}{name}."
            if self._has_its_own(child, "state_dict"):
                child.state_dict(destination=destination, prefix=below, keep_vars=self.keep_vars)
            else:
                self.read(child, destination, below)
        for hook in module._state_dict_hooks.values():
            given = hook(module, destination, prefix, metadata)
            if given is None:
                continue
            if getattr(hook, "_from_public_api", False):
                raise RuntimeError("state_dict post-hook must return None")
            # Only the root's caller sees it: children's results are not looked at (pytorch#117437).
            destination = given
        return destination

    def _has_its_own(self, module: Any, method: str) -> bool:
        key = (type(module), method)
        found = self.overrides.get(key)
        if found is None:
            found = self.overrides[key] = overrides(type(module), self.host.module, (method,))
        return found or method in module.__dict__
