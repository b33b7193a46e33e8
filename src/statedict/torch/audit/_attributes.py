"""Unregistered tensors and modules of a model: in plain attributes, and in containers there.

Tensors that are computed from registered ones (views, results of a graph, the `weight` of weight norm) are not reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from statedict.state import raw_values

from ._findings import AuditFinding, finding
from ._walk import Tree, join

# Attributes that every module has: registries, hooks and flags.
_OWN = frozenset(vars(torch.nn.Module()))
# `spectral_norm`, pruning and `weight_norm` store a recomputed weight under a name next to these.
_ORIGINALS = ("_orig", "_g", "_v")
# A class that overrides one of these defines itself what its state is.
_SAVERS = ("_save_to_state_dict", "get_extra_state")
Steps = tuple[str, ...]


def hidden(tree: Tree) -> Iterator[AuditFinding]:
    """Report every unregistered tensor and module, each object once."""
    known = _Known(tree)
    for path, module in tree.modules:
        saves = any(getattr(type(module), name) is not getattr(torch.nn.Module, name) for name in _SAVERS)
        for name, value in vars(module).items():
            if name not in _OWN and not _is_recomputed(module, name):
                found = _inside(known, path, module, name, value)
                yield from (one for one in found if not (saves and one.kind == "plain tensor"))


class _Known:
    """The registered objects, and those already examined."""

    def __init__(self, tree: Tree) -> None:
        self.modules = {id(module) for _, module in tree.modules}
        self.tensors = {id(tensor) for _, tensor in (*tree.parameters, *tree.buffers)}
        self.memory = {_memory(tensor) for _, tensor in (*tree.parameters, *tree.buffers)} - {None}
        # By id. The references prevent an id from being reused.
        self.seen: dict[int, Any] = {}

    def has(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self.tensors or tensor.grad_fn is not None or _memory(tensor) in self.memory


def _memory(tensor: torch.Tensor) -> tuple[str, int] | None:
    """The tensor's device and storage address; None if it has no memory to share."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.is_meta or tensor.numel() == 0:
        return None
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def _is_recomputed(module: torch.nn.Module, name: str) -> bool:
    return any(f"{name}{ending}" in module._parameters for ending in _ORIGINALS)


def _inside(known: _Known, path: str, owner: torch.nn.Module, name: str, value: Any) -> Iterator[AuditFinding]:
    """Report the attribute itself, or what is in its containers."""
    stack: list[tuple[Steps, Any, Any]] = [((name,), value, None)]
    while stack:
        steps, value, container = stack.pop()
        if isinstance(value, (str, bytes, int, float)) or value is None or id(value) in known.seen:
            continue
        known.seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            if not known.has(value):
                yield _tensor(path, steps, value, container)
        elif isinstance(value, torch.nn.Module):
            if id(value) not in known.modules and not _leads_back(value, owner):
                yield finding("hidden module", _where(path, steps), _module_fix(steps, container))
        else:
            stack.extend(reversed([((*steps, step), item, value) for step, item in _items(value)]))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """The elements of a container, each with the code that leads to it from the container."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in raw_values(value).items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{name}", item) for name, item in zip(value._fields, value))
    elif isinstance(value, (list, tuple, deque, set, frozenset)):
        yield from ((f"[{n}]", item) for n, item in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{f.name}", getattr(value, f.name)) for f in fields(value) if hasattr(value, f.name))


def _leads_back(module: torch.nn.Module, owner: torch.nn.Module) -> bool:
    """Whether an unregistered module contains `owner`: references to a parent are kept in lists so as not to register it."""
    return any(child is owner for child in module.modules())


def _where(path: str, steps: Steps) -> str:
    return join(path, "".join(steps))


def _tensor(path: str, steps: Steps, tensor: torch.Tensor, container: Any) -> AuditFinding:
    where, name = _where(path, steps), _name(steps)
    if not isinstance(tensor, torch.nn.Parameter):
        return finding("plain tensor", where, f'self.register_buffer("{name}", {"".join(steps)})')
    whole = _registered_whole(steps, container, "ParameterList", "ParameterDict")
    return finding("hidden parameter", where, whole or f'self.register_parameter("{name}", {"".join(steps)})')


def _module_fix(steps: Steps, container: Any) -> str:
    whole = _registered_whole(steps, container, "ModuleList", "ModuleDict")
    return whole or f'self.add_module("{_name(steps)}", {"".join(steps)})'


def _registered_whole(steps: Steps, container: Any, for_list: str, for_dict: str) -> str | None:
    """Code that registers the whole list or dict that is the attribute, if the object is directly in it."""
    if len(steps) != 2:
        return None
    kinds: list[tuple[Callable[[], bool], str]] = [
        (lambda: isinstance(container, (list, tuple)) and not hasattr(container, "_fields"), for_list),
        (lambda: isinstance(container, Mapping) and all(isinstance(key, str) for key in container), for_dict),
    ]
    for fits, kind in kinds:
        if fits():
            return f"self.{steps[0]} = torch.nn.{kind}({steps[0]})"
    return None


def _name(steps: Steps) -> str:
    """A name for the object at that place: `cache_0_key` for `cache[0]['key']`."""
    words = "".join(mark if mark.isalnum() else "_" for step in steps for mark in f"_{step}")
    return "_".join(filter(None, words.split("_"))) if len(steps) > 1 else steps[0]
