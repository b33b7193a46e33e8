"""transformers: a Trainer whose checkpoints are those of a CheckpointManager.

    trainer = StateDictTrainer(model, args, train_dataset=data)
    trainer.train(resume_from_checkpoint=True)      # from the beginning if the run has no checkpoint yet

TrainingArguments decide when to save (`save_strategy`, `save_steps`) and how many checkpoints to keep
(`save_total_limit`), as usual. A TrainerCallback cannot resume: the Trainer computes its position before it calls callbacks,
and does not give them access to the data order. Therefore this is a mix-in for the Trainer and its subclasses:
`class MyTrainer(StateDictTrainerMixin, SFTTrainer)`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

import statedict
from statedict.training import CheckpointManager, Saved, all_steps, last, read_random, write_random

from ._each_rank import of_all, own
from ._loader import Batches, Position, begin, replay, write_own

_Base: Any = Trainer if TYPE_CHECKING else object

__all__ = ["StateDictTrainer", "StateDictTrainerMixin"]


class StateDictTrainerMixin(_Base):
    """Save and resume through a CheckpointManager; put it before a class derived from transformers' Trainer.

    Args:
        manager: the CheckpointManager; by default one in `args.output_dir` that keeps `args.save_total_limit` checkpoints,
            with `metric_for_best_model` the best one among them.

    A checkpoint contains the model, optimizer, scheduler, gradient scaler, the TrainerState, and the random generators, as
    they are and as they were at the start of the epoch. `train(resume_from_checkpoint=True)` continues after the newest
    valid checkpoint, or starts from the beginning if the run has no checkpoint; a step instead of True selects its
    checkpoint. The resumed training equals the uninterrupted one bit for bit: the batches of the epoch that were trained on
    are drawn again and dropped, so the next ones are the same as without the interruption, even with a collator that draws
    random numbers. The results of an evaluation at the same step are the checkpoint's metrics: `keep=any_of(last(2),
    best("eval_loss"))`.

    Raises ValueError for DeepSpeed, and for `ignore_data_skip`.
    """

    def __init__(self, *args: Any, manager: CheckpointManager | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        limit = self.args.save_total_limit
        keep: Any = all_steps() if limit is None else last(limit)
        if limit is not None and self.args.metric_for_best_model is not None:
            keep = self._last_and_best
        self.manager = CheckpointManager(self.args.output_dir, keep=keep) if manager is None else manager
        self._resumed: _ResumedTraining | None = None
        self._epoch = _Epoch(self)
        self.add_callback(self._epoch)

    # saving

    def _save_checkpoint(self, model: Any, trial: Any, *rest: Any, **options: Any) -> None:
        if self.is_deepspeed_enabled:
            raise ValueError("DeepSpeed manages the optimizer's state itself: use the Trainer's own checkpoints")
        step = self.state.global_step
        self.store_flos()
        values = {"trainer_state": self._state_as_json(), "positions": of_all(self._epoch.position())}
        self.manager.save(step, self._metrics(), **self._objects(), **values)
        best = getattr(self.state, "best_global_step", None)
        if best is not None and best in list(self.manager):
            self.state.best_model_checkpoint = str(self.manager[best].path)

    def _objects(self) -> dict[str, Any]:
        found = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.lr_scheduler}
        scaler = getattr(self.accelerator, "scaler", None)
        return found if scaler is None else {**found, "scaler": scaler}

    def _metrics(self) -> dict[str, float]:
        """The numbers of the evaluation at this step."""
        at_this_step = [entry for entry in self.state.log_history if entry["step"] == self.state.global_step]
        return {name: value for entry in at_this_step for name, value in entry.items() if name.startswith("eval_")}

    def _state_as_json(self) -> str:
        for callback in (*self.callback_handler.callbacks, self.control):
            if type(callback).__name__ in self.state.stateful_callbacks and hasattr(callback, "state"):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        return json.dumps(dataclasses.asdict(self.state))

    def _last_and_best(self, saved: Sequence[Saved]) -> set[int]:
        """As the Trainer: the newest and the best one, and others up to `save_total_limit`."""
        best = {each.step for each in saved} & {getattr(self.state, "best_global_step", None)}
        limit = self.args.save_total_limit or 1
        kept = last(limit)(saved)
        return kept if best <= kept else best | last(max(limit - 1, 1))(saved)

    def _load_best_model(self) -> None:
        if not Path(str(self.state.best_model_checkpoint)).exists():
            warnings.warn(
                "the model keeps its last weights: the best checkpoint is not kept by the policy of the manager= that was "
                "given, which must keep it too: keep=any_of(last(2), best('eval_loss'))",
                stacklevel=2,
            )
            return
        statedict.load_state_dict(self.model, self.state.best_model_checkpoint, root="model")

    # resuming

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **options: Any) -> Any:
        """Train; `resume_from_checkpoint`: True for the newest checkpoint, a step for that one, or a folder of the
        Trainer's own."""
        if not isinstance(resume_from_checkpoint, int) or resume_from_checkpoint is False:
            return super().train(resume_from_checkpoint, *args, **options)
        if self.args.ignore_data_skip:
            raise ValueError("a run cannot resume exactly with ignore_data_skip=True: set it to False")
        found = self.manager.resume(at=None if resume_from_checkpoint is True else resume_from_checkpoint)
        if found is None:
            return super().train(None, *args, **options)
        self._resumed = _ResumedTraining(found.step, found.values)
        with tempfile.TemporaryDirectory() as folder:
            # The only file that the Trainer itself reads: it computes the epoch and the position from the step.
            Path(folder, "trainer_state.json").write_text(found.values["trainer_state"], encoding="utf-8")
            try:
                return super().train(folder, *args, **options)
            finally:
                self._resumed = None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **options: Any) -> None:
        if self._resumed is None:
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **options)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:  # every object is there now: all are loaded, or none
            self.manager.resume(at=self._resumed.step, **self._objects())
            self._resumed.random = read_random()

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            super()._load_rng_state(checkpoint)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **options: Any) -> Any:
        """Draw batches; in the resumed epoch those that follow the checkpoint."""
        return super().get_batch_samples(self._epoch.batches_of(epoch_iterator), *args, **options)


@dataclasses.dataclass
class _ResumedTraining:
    """The checkpoint that `train` continues after.

    Attributes:
        step: its step.
        values: its plain values.
        random: the random generators after it was loaded.
    """

    step: int
    values: Mapping[str, Any]
    random: dict[str, Any] = dataclasses.field(default_factory=dict)


class _Epoch(TrainerCallback):
    """Where the training is in its epoch."""

    def __init__(self, trainer: StateDictTrainerMixin) -> None:
        self._trainer = trainer
        self._begin: Position = {}
        self._batches: Batches | None = None

    @property
    def _loader(self) -> Any:
        return self._trainer.callback_handler.train_dataloader

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Record the position; in the first epoch of a resumed training, return to that of the checkpoint."""
        resumed, self._batches = self._trainer._resumed, None
        if resumed is not None and state.global_step == resumed.step:
            self._begin = own(resumed.values["positions"])
            if self._begin["taken"]:
                return
            write_own(self._loader, self._begin["own"])
            self._set_epoch()  # transformers 4 has done so before this call, transformers 5 does it after it
            write_random(resumed.random)
        self._begin = begin(self._loader)

    def position(self) -> Position:
        """The position to save; at the end of an epoch that of the next one."""
        ended = self._batches is None or float(self._trainer.state.epoch or 0).is_integer()
        return begin(self._loader) if ended or self._batches is None else self._batches.position

    def batches_of(self, given: Iterator[Any]) -> Batches:
        """The batches of the epoch, from the Trainer's own iterator, or from the one that continues after the
        checkpoint."""
        if self._batches is None:
            resumed = self._trainer._resumed
            if resumed is None or not self._begin["taken"]:
                # The Trainer sets the loader's epoch after `on_epoch_begin`.
                self._begin["own"]["passes"] = getattr(self._loader, "iteration", None)
                self._batches = Batches(given, self._begin)
            else:
                self._set_epoch()
                self._batches = replay(self._loader, self._begin, now=resumed.random)
        return self._batches

    def _set_epoch(self) -> None:
        if hasattr(self._loader, "set_epoch"):
            self._loader.set_epoch(int(self._trainer.state.epoch or 0))


class StateDictTrainer(StateDictTrainerMixin, Trainer):
    """transformers' Trainer with the checkpoints of a CheckpointManager; see StateDictTrainerMixin."""
