"""Lightning: a callback that saves and resumes through a CheckpointManager, and a CheckpointIO plugin.

    trainer = Trainer(callbacks=[StateDictCheckpoint("runs/a", when=every(100))])
    trainer.fit(model, loader)                      # continues if the run has a checkpoint

The callback resumes in `on_fit_start`: the optimizers exist then, but not yet the loaders, whose iterators draw from
the random generators. It saves when the state is complete: after the batch, or after the validation or the end of the
epoch that follows this batch. The training loaders are wrapped when they are created (`Strategy.process_dataloader`),
so that their position is known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import statedict
from statedict.training import CheckpointManager, read_random

from ._each_rank import of_all, own
from ._loader import Pass, Position, begin

# The package has two names, whose classes differ; the caller's trainer is of the one that has been imported.
if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    import lightning.pytorch as framework
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.plugins.io import CheckpointIO
    from lightning.pytorch.utilities import CombinedLoader
else:
    import pytorch_lightning as framework
    from pytorch_lightning.callbacks import Checkpoint
    from pytorch_lightning.plugins.io import CheckpointIO
    from pytorch_lightning.utilities import CombinedLoader

__all__ = ["StateDictCheckpoint", "StateDictCheckpointIO"]


class StateDictCheckpoint(Checkpoint):
    """Save the whole training to a CheckpointManager, and resume from its newest checkpoint when `fit` starts.

    Args:
        directory: the run's directory.
        when: at which `trainer.global_step` to save (`every`, `on_preemption`, `any_of`); by default at the end of each
            epoch.
        options: the other arguments of CheckpointManager: `keep`, `asynchronous`, `after_save` …

    A checkpoint contains the module, optimizers, schedulers, the precision plugin, the states of the other callbacks and of
    the data module, what `on_save_checkpoint` hooks add, the loops, the random generators, and the position in the training
    data. The `trainer.callback_metrics` are the metrics of the checkpoint: `keep=any_of(last(2), best("val_loss"))`.

    The resumed training equals the uninterrupted one bit for bit, also in the middle of an epoch, if the data depend on the
    random generators only. `fit(ckpt_path=…)` resumes from that checkpoint instead. It replaces ModelCheckpoint.

    Raises ImportError for Lightning before 2.5, whose loops do not resume exactly.

    Attributes:
        manager: the CheckpointManager.
        resumed: what `resume` returned when `fit` started: None for a new run.
    """

    def __init__(self, directory: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        if tuple(map(int, framework.__version__.split(".")[:2])) < (2, 5):
            raise ImportError(
                f"StateDictCheckpoint needs Lightning 2.5 or later, and this is {framework.__version__}, whose loops cannot "
                "resume in the middle of an epoch. Update it, or use StateDictCheckpointIO"
            )
        self.manager = CheckpointManager(directory, **options)
        self.resumed: Any = None
        self._by_epoch = options.get("when") is None
        self._asked_at = self._saved_at = -1
        self._due = False
        self._positions: list[Any] = []
        self._restore: Callable[[], None] | None = None

    # resuming

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Resume, and arrange for the training loaders to be wrapped."""
        self._wrap_loaders(trainer)
        self._due, self._positions = False, []
        if trainer.ckpt_path is None:
            rest = _Rest(trainer, pl_module)
            self.resumed = self.manager.resume(**_objects(trainer, pl_module), rest=rest)
        if self.resumed is not None and trainer.ckpt_path is None:
            self._positions = own(self.resumed.values["positions"])
            self._now = read_random()
            _step_plateau(trainer, self.resumed.values["plateau"])
            _continue_epoch(trainer.fit_loop)
        self._asked_at = self._saved_at = trainer.global_step

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wait for the running save, and restore the strategy."""
        if self._restore is not None:
            self._restore()
            self._restore = None
        self.manager.close()

    def _wrap_loaders(self, trainer: Any) -> None:
        strategy = trainer.strategy
        process = strategy.process_dataloader

        def processed(loader: Any) -> Any:
            made = process(loader)
            # Loaders with a state of their own are saved by Lightning's loops.
            if not trainer.training or hasattr(made, "load_state_dict"):
                return made
            wrapped = Pass(made)
            if self._positions:
                position, ahead = self._positions.pop(0)
                wrapped.go_to(position, ahead=ahead, now=self._now)
            return wrapped

        strategy.process_dataloader = processed
        self._restore = partial(delattr, strategy, "process_dataloader")

    # saving

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """End the restart: otherwise the loop would skip ReduceLROnPlateau at the end of the resumed epoch."""
        trainer.fit_loop._restarting = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ask at each optimizer step whether to save; save unless the validation or the end of the epoch comes first."""
        loop = trainer.fit_loop.epoch_loop
        if trainer.global_step != self._asked_at:
            self._asked_at = trainer.global_step
            if not self._by_epoch:
                self._due = self.manager.should_save(trainer.global_step) or self._due
        if (
            self._due
            and not loop.batch_progress.is_last_batch
            and not loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        ):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save after a validation in the middle of an epoch."""
        if self._due and not trainer.sanity_checking and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save at the end of an epoch, or where `max_steps` ends the training in the middle of one."""
        if self._due or self._by_epoch:
            self._save(trainer, pl_module, epoch_ended=trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def _save(self, trainer: Any, module: Any, *, epoch_ended: bool = False) -> None:
        self._due = False
        if trainer.global_step == self._saved_at:
            return
        values = {
            "positions": of_all(_positions(trainer, epoch_ended)),
            "plateau": _plateau(trainer) if epoch_ended else {},
        }
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.manager.save(
            trainer.global_step, metrics, **_objects(trainer, module), rest=_Rest(trainer, module), **values
        )
        self._saved_at = trainer.global_step


def _objects(trainer: Any, module: Any) -> dict[str, Any]:
    """The objects with a state of their own file."""
    schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
    found = {
        "model": module,
        "optimizers": list(trainer.optimizers),
        "schedulers": schedulers,
        "loop": trainer.fit_loop,
    }
    return {name: value for name, value in found.items() if value != []}


class _Rest:
    """The state of everything else that Lightning puts into a checkpoint."""

    def __init__(self, trainer: Any, module: Any) -> None:
        self._trainer, self._module = trainer, module

    @property
    def _named(self) -> dict[str, Any]:
        trainer = self._trainer
        found = {each.state_key: each for each in trainer.callbacks if not isinstance(each, StateDictCheckpoint)}
        found["precision"] = trainer.precision_plugin
        if trainer.datamodule is not None:
            found["datamodule"] = trainer.datamodule
        return found

    def _hooks(self, name: str, checkpoint: dict[str, Any]) -> None:
        for each in (self._trainer.precision_plugin, self._module):
            getattr(each, name)(checkpoint)
        for callback in self._trainer.callbacks:
            getattr(callback, name)(self._trainer, self._module, checkpoint)

    @property
    def _offered(self) -> dict[str, Any]:
        """The part of a Lightning checkpoint that the hooks use: `WeightAveraging` reads and replaces the `state_dict`."""
        return {
            "epoch": self._trainer.current_epoch,
            "global_step": self._trainer.global_step,
            "pytorch-lightning_version": framework.__version__,
            "state_dict": self._module.state_dict(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the states of callbacks, plugin and data module, and what the `on_save_checkpoint` hooks add or replace."""
        offered = self._offered
        checkpoint = dict(offered)
        self._hooks("on_save_checkpoint", checkpoint)
        added = {key: value for key, value in checkpoint.items() if value is not offered.get(key)}
        states = {name: each.state_dict() for name, each in self._named.items()}
        return {"states": {name: state for name, state in states.items() if state}, "added": added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load each state into its object, if this training has it, and call the `on_load_checkpoint` hooks."""
        for name, each in self._named.items():
            if name in state["states"]:
                each.load_state_dict(state["states"][name])
        self._hooks("on_load_checkpoint", self._offered | state["added"])


def _positions(trainer: Any, epoch_ended: bool) -> list[tuple[Position, int]]:
    """The position of each training loader, and by how many batches its fetcher is ahead of the training."""
    passes = [each for each in CombinedLoader(trainer.train_dataloader).flattened if isinstance(each, Pass)]
    if epoch_ended:  # the last batch may have been taken without the loader knowing that it is the last
        return [(begin(each.loader), 0) for each in passes]
    trained = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    positions = [each.position for each in passes]
    ahead = max((each["taken"] for each in positions), default=0) - trained
    return [(each | {"taken": each["taken"] - ahead}, ahead) for each in positions]


def _plateau(trainer: Any) -> dict[str, float]:
    """The metrics that schedulers of the kind ReduceLROnPlateau get at the end of this epoch: after the last hook."""
    found = {}
    for index, each in enumerate(trainer.lr_scheduler_configs):
        due = each.interval == "epoch" and (trainer.current_epoch + 1) % each.frequency == 0
        if each.reduce_on_plateau and due and each.monitor in trainer.callback_metrics:
            found[str(index)] = float(trainer.callback_metrics[each.monitor])
    return found


def _step_plateau(trainer: Any, metrics: Mapping[str, float]) -> None:
    for index, metric in metrics.items():
        trainer.lr_scheduler_configs[int(index)].scheduler.step(metric)


def _continue_epoch(loop: Any) -> None:
    """Correct what a FitLoop does after loading a state that was saved in `on_train_epoch_end`.

    After a complete epoch the next one begins; with `max_steps` the loop would end the saved one again, and count it twice.
    After an epoch that `max_steps` cut short, the loop would not count the rest as this epoch.
    """
    epoch = loop.epoch_progress
    if epoch.current.processed != epoch.current.ready:
        return
    if loop.epoch_loop.batch_progress.is_last_batch:
        loop._restarting = loop.epoch_loop.restarting = False
    else:
        epoch.current.processed -= 1
        epoch.total.processed -= 1
        loop.restarting = True


class StateDictCheckpointIO(CheckpointIO):
    """Write and read Lightning's own checkpoints with `statedict.save` and `statedict.load`: `Trainer(plugins=[…])`.

    ModelCheckpoint decides what to save and to keep, and `fit(ckpt_path=…)` resumes. A file is complete or does not
    exist, its checksums are verified when it is loaded, and no code from it is run: a value of an unknown class is an inert
    Opaque.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/runs/epoch=0.ckpt"
    >>> plugin = StateDictCheckpointIO()
    >>> plugin.save_checkpoint({"epoch": 0}, path)
    >>> plugin.load_checkpoint(path)
    {'epoch': 0}
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint. Raises TypeError for `storage_options`, which do not apply to local files."""
        if storage_options is not None:
            raise TypeError("StateDictCheckpointIO writes local files, and has no storage_options")
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        statedict.save(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Load a checkpoint, always without running code from it. Raises ChecksumError if it is damaged."""
        # Lightning's default is a function that returns each storage as it is: on the CPU.
        return statedict.load(path, map_location=None if callable(map_location) else map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint, if it exists."""
        if os.path.exists(path):
            os.remove(path)
