"""accelerate: a CheckpointManager of everything that an Accelerator prepared or registered for checkpointing.

manager = AcceleratorCheckpoints(accelerator)     # in accelerator.project_dir
manager.resume()
...
manager.save(step, epoch=epoch)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from statedict.training import CheckpointManager, Resumed, last

__all__ = ["AcceleratorCheckpoints"]


class AcceleratorCheckpoints(CheckpointManager):
    """A CheckpointManager that saves and resumes what `accelerator.save_state` and `load_state` do, and further arguments.

    Args:
        accelerator: its models, optimizers, schedulers, gradient scaler and stateful data loaders are objects of each
            checkpoint, and what was given to `register_for_checkpointing`.
        directory: the run's directory, by default `checkpoints` in `accelerator.project_dir`.
        options: those of CheckpointManager. `keep` is by default `last(total_limit)` of the project configuration, if it
        is set.

    The objects are named as accelerate names their files: `models/0`, `optimizers/0`, `schedulers/0`, `scaler`,
    `dataloaders/0`,
    `custom/0`. To resume in mid-epoch, iterate over `loader = ResumableLoader(accelerator.prepare(loader))`, and register
    it.

    >>> import tempfile, torch
    >>> from accelerate import Accelerator
    >>> def training():
    ...     accelerator = Accelerator(cpu=True, project_dir=project)
    ...     model = accelerator.prepare(torch.nn.Linear(2, 1))
    ...     return accelerator, model
    >>> project = tempfile.mkdtemp()
    >>> accelerator, model = training()
    >>> with AcceleratorCheckpoints(accelerator) as manager:
    ...     manager.save(10, epoch=1)
    >>> accelerator, again = training()
    >>> resumed = AcceleratorCheckpoints(accelerator).resume()
    >>> resumed.step, resumed.values["epoch"], torch.equal(again.weight, model.weight)
    (10, 1, True)
    """

    def __init__(
        self, accelerator: Accelerator, directory: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        if directory is None:
            if accelerator.project_dir is None:
                raise ValueError("pass a directory, or Accelerator(project_dir=…)")
            directory = Path(accelerator.project_dir, "checkpoints")
        limit = accelerator.project_configuration.total_limit
        super().__init__(directory, **({} if limit is None else {"keep": last(limit)}) | options)
        self.accelerator = accelerator

    def save(self, /, step: int, metrics: Mapping[str, Any] | None = None, **objects: Any) -> None:
        """Save a checkpoint of the accelerator's objects and all arguments; see CheckpointManager."""
        super().save(step, metrics, **self._registered(), accelerator_step=self.accelerator.step, **objects)

    def resume(self, run: Any = None, /, **options: Any) -> Resumed | None:
        """Load the newest valid checkpoint into the accelerator's objects and all arguments; see CheckpointManager."""
        resumed = super().resume(run, **self._registered(), **options)
        if resumed is not None:
            self.accelerator.step = resumed.values["accelerator_step"]
        return resumed

    def _registered(self) -> dict[str, Any]:
        """The objects that `Accelerator.save_state` saves, by kind. accelerate has no public name for these lists."""
        accelerator: Any = self.accelerator
        stateful = [each for each in accelerator._dataloaders if getattr(each, "use_stateful_dataloader", False)]
        found = {
            "models": [accelerator.unwrap_model(each, keep_torch_compile=False) for each in accelerator._models],
            "optimizers": list(accelerator._optimizers),
            "schedulers": list(accelerator._schedulers),
            "scaler": accelerator.scaler,
            "dataloaders": stateful,
            "custom": list(accelerator._custom_objects),
        }
        return {kind: value for kind, value in found.items() if value}
