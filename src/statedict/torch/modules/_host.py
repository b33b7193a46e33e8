"""HOST: PyTorch's module system as a Host of the tree engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import _IncompatibleKeys, _WrappedHook

from statedict.state import ArrayLibrary
from statedict.tree import Fit, JointLoad, Reach, Rules, Slots

from ..tensors._library import TORCH
from ..together._joint import joint_load
from ._backup import keep
from ._load_exact import fit_exact
from ._load_sound import fit_sound

# PyTorch's own loaders and hooks change only their module.
_CONFINED = ("torch.nn.", "torch.ao.", "torch.distributed.fsdp.")
# Those of FSDP2 change no values; they free gathered parameters, and take note of the parameters that are registered.
_HARMLESS = "torch.distributed.fsdp._fully_shard."


class TorchHost:
    """The Host of `torch.nn`."""

    module: type[Any] = torch.nn.Module
    library: ArrayLibrary = TORCH
    incompatible: Callable[[list[str], list[str]], Any] = _IncompatibleKeys

    detach: Callable[[Any], Any] | None = None

    def fit(self, slots: Slots, rules: Rules) -> Fit:
        return fit_sound(slots, rules) if rules.sound else fit_exact(slots)

    def keep(self, arrays: Iterable[Any]) -> Callable[[], None]:
        return keep(arrays)

    def reach(self, code: Any) -> Reach:
        while True:
            if isinstance(code, _WrappedHook):
                code = code.hook
            elif isinstance(code, partial):
                code = code.func
            else:
                break
        owner = code if hasattr(code, "__qualname__") else type(code)
        defined = str(owner.__module__)
        return "nothing" if defined.startswith(_HARMLESS) else "module" if defined.startswith(_CONFINED) else "tree"

    def adds_nothing(self, module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
        adds_nothing = _KNOWN.get(type(module)._load_from_state_dict)
        return adds_nothing is not None and adds_nothing(module, state, prefix, metadata)

    def together(self, module: Any) -> JointLoad | None:
        return joint_load(chain(module.parameters(), module.buffers()))


def _batch_norm(module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
    """Since version 2 there is `num_batches_tracked`; the loader adds it to states of earlier versions that lack it."""
    version = metadata.get("version")
    recent = isinstance(version, int) and version >= 2
    return recent or not module.track_running_stats or prefix + "num_batches_tracked" in state


def _instance_norm(module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
    """A state without a version may contain running statistics that the module does not track; the loader refuses them."""
    known = metadata.get("version") is not None or module.track_running_stats
    return known and _batch_norm(module, state, prefix, metadata)


_KNOWN: dict[Any, Callable[[Any, Mapping[str, Any], str, Mapping[str, Any]], bool]] = {
    _NormBase._load_from_state_dict: _batch_norm,
    _InstanceNorm._load_from_state_dict: _instance_norm,
}

HOST = TorchHost()
