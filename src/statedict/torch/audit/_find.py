"""Audit a model: find everything that would silently not be saved, moved or trained.

AuditFindings come in the order of the module tree. Nothing is changed, each module, tensor and container is examined once
(so cycles end), and PyTorch's own modules cause no findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch.nn.parameter import is_lazy

from statedict.errors import NotAStateError
from statedict.state import arguments
from statedict.tree import read

from ..modules._host import HOST
from ..snapshots._shared_memory import extent
from ._attributes import hidden
from ._findings import AuditFinding, finding
from ._walk import Tree, code, survey

Optimizers = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


def audit(model: torch.nn.Module, optimizer: Optimizers = None) -> list[AuditFinding]:
    """List everything in `model` that would silently not be saved, moved or trained.

    Examines attributes (also in lists, dicts, tuples, sets and dataclasses), registered tensors and modules, and, if one or
    more optimizers are given, whether they hold the parameters to be trained.

    >>> class Mean(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.mean = torch.zeros(3)
    >>> [found] = audit(Mean())
    >>> found.path, found.fix
    ('mean', 'self.register_buffer("mean", mean)')
    """
    if not isinstance(model, torch.nn.Module):
        raise NotAStateError(f"audit() expects a torch.nn.Module, not {arguments.described(model)}")
    tree = survey(model)
    return [
        *hidden(tree),
        *_own_states(tree),
        *_names(tree),
        *_buffers(tree),
        *_shared(tree),
        *_without_elements(tree),
        *_untrained(tree, _listed(optimizer)),
    ]


def _listed(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizer is None:
        return []
    several = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    if not isinstance(several, (list, tuple)) or not all(isinstance(one, torch.optim.Optimizer) for one in several):
        raise TypeError(f"optimizer= must be a torch optimizer or a list of them, not {arguments.described(optimizer)}")
    return list(several)


def _own_states(tree: Tree) -> Iterator[AuditFinding]:
    """Modules that override `state_dict` and omit names that PyTorch's would include."""
    for path, module in () if tree.endless else tree.modules:
        if type(module).state_dict is torch.nn.Module.state_dict or type(module).__module__.startswith("torch."):
            continue
        kept = set(module.state_dict())
        left = [name for name in read(HOST, module) if name not in kept]
        if left:
            names = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
            has_pair = type(module).load_state_dict is not torch.nn.Module.load_state_dict
            unless = (
                "" if path or not has_pair else " (unless its own load_state_dict is called, as for the root module)"
            )
            fix = "override _save_to_state_dict and _load_from_state_dict instead"
            yield finding("own state", path, fix, names=names, unless=unless)


def _names(tree: Tree) -> Iterator[AuditFinding]:
    for path, name in tree.odd_names:
        fitting = name.replace(".", "_") or "child"
        yield finding("name", path, f'self.add_module("{fitting}", ...)')


def _buffers(tree: Tree) -> Iterator[AuditFinding]:
    for path, buffer in tree.buffers:
        name = path.rpartition(".")[2]
        if path in tree.non_persistent:
            yield finding("non-persistent buffer", path, f'self.register_buffer("{name}", {name})')
        if buffer.requires_grad:
            yield finding("buffer with gradient", path, f"self.{name} = torch.nn.Parameter({name})")


def _shared(tree: Tree) -> Iterator[AuditFinding]:
    for paths in tree.shared:
        fix = f"{code(paths[-1])} = copy.deepcopy({code(paths[0])})  # unless it is meant"
        yield finding("shared module", paths[0], fix, names=", ".join(paths))
    for path in tree.endless:
        yield finding("endless", path, f"del {code(path)}")
    for paths in tree.tied:
        fix = f"{code(paths[-1])} = {code(paths[0])}  # again, whenever one of them is replaced"
        yield finding("tied", paths[0], fix, names=", ".join(paths))
    for path, other in _overlapping(tree):
        yield finding("overlapping", path, f"{code(path)} = {code(other)}  # to tie them", other=other)


def _overlapping(tree: Tree) -> Iterator[tuple[str, str]]:
    """Registered tensors that overlap another one that starts before them: (path, path of the other)."""
    runs: list[tuple[str, int, int, int, str]] = []
    order = 0
    for path, tensor in (*tree.parameters, *tree.buffers):
        if _has_elements(tensor):
            start, stop = extent(tensor)
            base = tensor.untyped_storage().data_ptr()
            runs.append((str(tensor.device), base + start, base + stop, order, path))
            order += 1
    runs.sort()
    furthest = runs[:1]
    for run in runs[1:]:
        (device, _, stop, first, one), (here, start, end, second, other) = furthest[0], run
        if device == here and start < stop:
            yield (other, one) if second > first else (one, other)
        if device != here or end > stop:
            furthest = [run]


def _has_elements(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return plain and not tensor.is_meta and not tensor.is_quantized and tensor.numel() > 0


def _without_elements(tree: Tree) -> Iterator[AuditFinding]:
    for path, tensor in (*tree.parameters, *tree.buffers):
        if is_lazy(tensor):
            yield finding("uninitialized", path, "model(example_inputs)")
        elif tensor.is_meta:
            yield finding("meta", path, 'model.to_empty(device="cpu")  # then load its state')


def _untrained(tree: Tree, optimizers: list[torch.optim.Optimizer]) -> Iterator[AuditFinding]:
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for path, parameter in tree.parameters if optimizers else []:
        if parameter.requires_grad and id(parameter) not in held:
            yield finding("not trained", path, f'optimizer.add_param_group({{"params": [{code(path)}]}})')
        if not parameter.requires_grad and id(parameter) in held:
            yield finding("frozen", path, f"{code(path)}.requires_grad_()  # or leave it out of the optimizer")
    known = {id(parameter) for _, parameter in tree.parameters}
    for which, optimizer in enumerate(optimizers):
        name = "optimizer" if len(optimizers) == 1 else f"optimizers[{which}]"
        for g, group in enumerate(optimizer.param_groups):
            for n, parameter in enumerate(group["params"]):
                if id(parameter) not in known:
                    path = f"{name}.param_groups[{g}]['params'][{n}]"
                    kind = type(optimizer).__name__
                    yield finding(
                        "not saved", path, f"{name} = {kind}(model.parameters(), ...)  # made after the model"
                    )
