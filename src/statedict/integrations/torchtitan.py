"""torchtitan: a checkpoint manager with the interface of `torchtitan.components.checkpointer.BaseCheckpointManager`.

In a torchtitan configuration, `checkpoint=TitanCheckpoints.Config(enable=True, interval=500)` replaces torchtitan's
own; its trainer calls `build`, `load`, `save`, `maybe_wait_for_staging` and `close`. This file imports nothing of
torchtitan.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from statedict.training import CheckpointManager, all_steps, last

__all__ = ["TitanCheckpoints"]


class TitanCheckpoints:
    """The checkpoints of a torchtitan training, in a CheckpointManager.

    Args:
        config: the settings of the configuration file.
        dataloader: has a state of its own on each rank, or is None.
        model_parts, optimizers, lr_schedulers: the parts of the model, and torchtitan's containers. Each optimizer in a
            container is saved with the parameter names of its part, so a checkpoint can be resumed on another number of
            ranks. torchtitan's data loader refuses that: put it into `exclude_from_loading` then.
        states: further objects with a state by name; torchtitan passes its trainer as `train_state`.
        base_folder: the directory that `config.folder` is in.

    `initial_load_path` and exports in Hugging Face's format are not supported: use `statedict.load_state_dict(model,
    path)` and `statedict convert`, which read any checkpoint.

    >>> import tempfile, torch
    >>> model = torch.nn.Linear(2, 1)
    >>> parts = {"model_parts": [model], "optimizers": [torch.optim.SGD(model.parameters())], "lr_schedulers": []}
    >>> config = TitanCheckpoints.Config(enable=True, interval=2, folder=tempfile.mkdtemp())
    >>> checkpointer = config.build(**parts, dataloader=None, states={})
    >>> checkpointer.load(), checkpointer.save(1), checkpointer.save(2), checkpointer.load()
    (False, False, True, True)
    """

    save_future = None

    @dataclass(kw_only=True)
    class Config:
        """The settings, with torchtitan's names and defaults.

        Attributes:
            enable: whether to save and load at all.
            folder: the run's directory.
            interval: save every `interval` steps, and after the last one.
            keep_latest_k: how many to keep; 0 keeps all.
            load_step: the step to load, -1 for the newest.
            exclude_from_loading: what `load` leaves as it is: `optimizer`, `lr_scheduler`, `dataloader` or `train_state`.
            enable_first_step_checkpoint: save after the first step, too.
            load_only: do not save.
            create_seed_checkpoint: read by torchtitan; save the initial model as step 0, and end.
            asynchronous: write in a thread, if there is only one process.
        """

        enable: bool = False
        folder: str = "checkpoint"
        interval: int = 500
        keep_latest_k: int = 10
        load_step: int = -1
        exclude_from_loading: list[str] = field(default_factory=list)
        enable_first_step_checkpoint: bool = False
        load_only: bool = False
        create_seed_checkpoint: bool = False
        asynchronous: bool = False

        def build(self, **runtime: Any) -> TitanCheckpoints:
            """Return the manager; torchtitan passes what it has built."""
            return TitanCheckpoints(self, **runtime)

    def __init__(
        self,
        config: Config,
        *,
        dataloader: Any,
        model_parts: Iterable[Any],
        optimizers: Iterable[Any],
        lr_schedulers: Any,
        states: Mapping[str, Any],
        sd_adapter: Any = None,
        base_folder: str = "",
    ) -> None:
        self.config, self.enable = config, config.enable
        if not self.enable:
            return
        found = {
            "model": list(model_parts),
            "optimizer": list(optimizers),
            # The container makes one state of its schedulers, which fits other numbers of them.
            "lr_scheduler": lr_schedulers,
            "dataloader": None if dataloader is None else _EachRank(dataloader),
            **states,
        }
        self._objects = {name: value for name, value in found.items() if value is not None and value != []}
        excluded = config.exclude_from_loading
        if unknown := set(excluded) - (self._objects.keys() - {"model"}):
            raise ValueError(f"exclude_from_loading names {sorted(unknown)}, and can name {[*self._objects][1:]}")
        self._loaded = {name: value for name, value in self._objects.items() if name not in excluded}
        keep = last(config.keep_latest_k) if config.keep_latest_k else all_steps()
        folder = os.path.join(base_folder, config.folder)
        self.manager = CheckpointManager(folder, keep=keep, asynchronous=config.asynchronous)

    def load(self, step: int = -1) -> bool:
        """Load a step (-1: the newest valid one) into everything that is not excluded; return whether there was one."""
        return self.enable and self.manager.resume(at=None if step == -1 else step, **self._loaded) is not None

    def save(self, curr_step: int, last_step: bool = False) -> bool:
        """Save if the configuration says so at this step; return whether it did."""
        config, first = self.config, curr_step == 1
        due = last_step or curr_step % config.interval == 0 or (first and config.enable_first_step_checkpoint)
        if not self.enable or config.load_only or not due:
            return False
        self.manager.save(curr_step, **self._objects)
        return True

    def maybe_wait_for_staging(self) -> None:
        """Do nothing: `save` returns when the state has been copied."""

    def maybe_wait_for_saving(self) -> None:
        """Wait for an asynchronous save; raise its error."""
        if self.enable:
            self.manager.wait()

    def close(self) -> None:
        """Wait for the running save, and unlock the directory."""
        if self.enable:
            self.manager.close()


class _EachRank:
    """A data loader whose state has other names on each rank, as torchtitan's: a checkpoint holds all of them."""

    differs_by_rank = True

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def state_dict(self) -> dict[str, Any]:
        return dict(self._loader.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(dict(state))
