"""The bridge to Hugging Face's Trainer: `trainer.add_callback(RescueCallback(trainer))`.

Makes what the Trainer writes into a checkpoint folder a part of each snapshot, in memory; after a restore it writes
such a folder, once, and has the Trainer resume from it the way it documents. So what skips the data that was used, and
what is loaded when, is the Trainer's own. Beside what is documented it reads and sets the losses that are not logged
yet (`_tr_loss`, `_total_loss_scalar`, `_globalstep_last_logged`), so that the history of losses is the same.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import sys
import tempfile
import warnings
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.utils import WEIGHTS_NAME

from ipyrescue.training import progress

_UNLOGGED = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")


class RescueCallback(TrainerCallback):  # type: ignore[misc]  # mypy does not follow it
    """Goes on in the middle of an epoch, when the cell with `trainer.train()` is run again after a restore.

        trainer = Trainer(model, args, train_dataset=data)
        trainer.add_callback(RescueCallback(trainer))
        trainer.train()

    Weights, optimizer, scheduler, scaler, the Trainer's state with its log, the states of other callbacks, the order of
    the data and the random streams are as in an uninterrupted run. Snapshots are cut between optimizer steps, when what
    belongs to the one before is logged, evaluated and saved. A folder given by `resume_from_checkpoint` comes first.

    Not exact: a dataset or collator that draws random numbers (the batch that was already fetched at the cut draws
    others), `ignore_data_skip=True`. Several processes, DeepSpeed, FSDP and PEFT models are left to the Trainer's own
    checkpoints, which a warning says. After a restore the weights are written to a temporary folder once. *name* tells
    two trainers apart that run in one notebook.
    """

    def __init__(self, trainer: Trainer, *, name: str = "transformers") -> None:
        self._trainer = trainer
        self._name = name
        self._training: _Training | None = None
        self._unlogged: dict[str, Any] | None = None
        self._at_first_step = True
        trainer.train = self._going_on(trainer.train)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put back the losses that were not logged yet."""
        if self._unlogged is not None:
            for name, value in self._unlogged.items():
                setattr(self._trainer, name, value)
            self._unlogged = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A place for a snapshot, if the last epoch is complete: what is resumed begins within one."""
        self._at_first_step = True
        if state.global_step and float(state.epoch or 0).is_integer():
            self._boundary()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A place for a snapshot: the step before is logged by now. That of an epoch's first step was its beginning."""
        if not self._at_first_step:
            self._boundary()
        self._at_first_step = False

    def _boundary(self) -> None:
        if self._training is not None:
            progress.boundary(self._training)

    def _going_on(self, train: Any) -> Any:
        """`trainer.train`, which resumes from what a restore has left, and is in progress while it runs."""

        @wraps(train)
        def going_on(resume_from_checkpoint: Any = None, *arguments: Any, **options: Any) -> Any:
            if not _is_supported(self._trainer):
                return train(resume_from_checkpoint, *arguments, **options)
            self._training = _Training(self._trainer, self._name)
            state = None if resume_from_checkpoint else progress.begin(self._training, sys._getframe(1))
            try:
                with tempfile.TemporaryDirectory(prefix="ipyrescue-") as folder:
                    if state is not None:
                        _write_checkpoint(Path(folder), state)
                        resume_from_checkpoint, self._unlogged = folder, state["unlogged"]
                    progress.run(self._training)
                    return train(resume_from_checkpoint, *arguments, **options)
            finally:
                progress.finish(self._training)
                self._training = None

        return going_on


class _Training(progress.Pass):
    """One call of `trainer.train`."""

    kind = progress.TRAINER

    def __init__(self, trainer: Trainer, name: str) -> None:
        super().__init__(name)
        self.between = False
        self._trainer = trainer

    def state(self, *, complete: bool) -> dict[str, Any]:
        """What the Trainer writes into a checkpoint folder, in memory."""
        trainer = self._trainer
        scaler = getattr(trainer.accelerator, "scaler", None)
        return {
            "steps": trainer.state.global_step,
            "length": trainer.state.max_steps,
            "weights": trainer.accelerator.unwrap_model(trainer.model).state_dict(),
            "optimizer": trainer.optimizer.state_dict() if trainer.optimizer is not None else None,
            "scheduler": trainer.lr_scheduler.state_dict() if trainer.lr_scheduler is not None else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "state": _state_of(trainer),
            "streams": _streams(),
            "unlogged": {name: copy.deepcopy(getattr(trainer, name)) for name in _UNLOGGED if hasattr(trainer, name)},
        }


def _state_of(trainer: Trainer) -> str:
    """The Trainer's state as the JSON of its checkpoints, with that of its callbacks."""
    state = dataclasses.asdict(trainer.state)
    callbacks = [
        one for one in [*trainer.callback_handler.callbacks, trainer.control] if isinstance(one, ExportableState)
    ]
    exported: dict[str, list[Any]] = {}
    for callback in callbacks:
        exported.setdefault(type(callback).__name__, []).append(callback.state())
    state["stateful_callbacks"] = {name: found[0] if len(found) == 1 else found for name, found in exported.items()}
    return json.dumps(state)


def _streams() -> dict[str, Any]:
    """The random streams, as the Trainer keeps them."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the folder that `Trainer.train(resume_from_checkpoint=...)` reads."""
    torch.save(state["weights"], folder / WEIGHTS_NAME)
    for name, part in ((OPTIMIZER_NAME, "optimizer"), (SCHEDULER_NAME, "scheduler"), (SCALER_NAME, "scaler")):
        if state[part] is not None:
            torch.save(state[part], folder / name)
    torch.save(state["streams"], folder / "rng_state.pth")
    (folder / TRAINER_STATE_NAME).write_text(state["state"], encoding="utf-8")


def _is_supported(trainer: Trainer) -> bool:
    """Whether a checkpoint folder is all that this training has; say so if it is not."""
    elsewhere = trainer.args.world_size > 1 or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if elsewhere or hasattr(trainer.model, "peft_config"):
        warnings.warn(
            "RescueCallback does nothing where several processes train, nor for DeepSpeed, FSDP and PEFT: their "
            "checkpoints are the Trainer's own. Type: TrainingArguments(save_strategy='steps', ...)",
            stacklevel=3,
        )
        return False
    return True
