"""Registered modules and tensors of a model, each once, with the path under which it was first found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

Named = list[tuple[str, torch.Tensor]]


@dataclass(slots=True)
class Tree:
    """A module tree, each object once, in PyTorch's order.

    Attributes:
        modules: (path, module).
        parameters, buffers: (path, tensor).
        non_persistent: paths of non-persistent buffers.
        tied: paths of each tensor that is registered several times.
        shared: paths of each module that is registered several times.
        endless: paths at which a module contains itself.
        odd_names: (path, name) of children whose name is empty or contains a dot.
    """

    modules: list[tuple[str, torch.nn.Module]] = field(default_factory=list)
    parameters: Named = field(default_factory=list)
    buffers: Named = field(default_factory=list)
    non_persistent: set[str] = field(default_factory=set)
    tied: list[list[str]] = field(default_factory=list)
    shared: list[list[str]] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)
    odd_names: list[tuple[str, str]] = field(default_factory=list)


def survey(model: torch.nn.Module) -> Tree:
    """Walk the tree iteratively; enter shared modules once, and stop at cycles."""
    tree = Tree()
    places: dict[int, list[str]] = {}
    tensors: dict[int, list[str]] = {}
    above: set[int] = set()
    # A module is on the stack twice: to enter it, and to leave it after its children.
    stack: list[tuple[str, torch.nn.Module, bool]] = [("", model, False)]
    while stack:
        path, module, done = stack.pop()
        if done:
            above.discard(id(module))
        elif id(module) in above:
            tree.endless.append(path)
        elif id(module) in places:
            places[id(module)].append(path)
        else:
            places[id(module)] = [path]
            above.add(id(module))
            tree.modules.append((path, module))
            _note_tensors(tree, path, module, tensors)
            stack.append((path, module, True))
            stack.extend((below, child, False) for below, child in reversed(list(_children(tree, path, module))))
    tree.tied = [paths for paths in tensors.values() if len(paths) > 1]
    tree.shared = [paths for paths in places.values() if len(paths) > 1]
    return tree


def _children(tree: Tree, path: str, module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in module._modules.items():
        if child is not None:
            below = join(path, name)
            if not name or "." in name:
                tree.odd_names.append((below, name))
            yield below, child


def _note_tensors(tree: Tree, path: str, module: torch.nn.Module, tensors: dict[int, list[str]]) -> None:
    non_persistent: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    for found, registered in ((tree.parameters, module._parameters), (tree.buffers, module._buffers)):
        for name, tensor in registered.items():
            if tensor is None:
                continue
            below = join(path, name)
            if id(tensor) not in tensors:
                found.append((below, tensor))
                if name in non_persistent:
                    tree.non_persistent.add(below)
            tensors.setdefault(id(tensor), []).append(below)


def join(path: str, name: str) -> str:
    """Return the path of `name` in the module at `path`."""
    return f"{path}.{name}" if path else name


def code(path: str) -> str:
    """Return a Python expression for the object at `path` in `model`.

    >>> code("layers.0.weight"), code("a-b.weight")
    ('model.layers[0].weight', 'model.get_submodule("a-b").weight')
    """
    parent, _, name = path.rpartition(".")
    above = "model" if not parent else code(parent)
    if name.isidentifier():
        return f"{above}.{name}"
    return f"{above}[{name}]" if name.isdecimal() else f'{above}.get_submodule("{name}")'
