"""The bridge to Lightning: `Trainer(callbacks=[RescueCallback()])`.

Turns Lightning's own checkpoint (what `Trainer.save_checkpoint` writes) into a part of each snapshot, and hands it to
the Trainer again after a restore, together with the position and the order of the training data, which Lightning itself
does not keep. Uses two things of Lightning that are not documented: the checkpoint connector, which makes and loads the
checkpoint, and the strategy's `process_dataloader`, through which every loader goes.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ipyrescue.training import progress
from ipyrescue.training.loading import source_of_batches
from ipyrescue.training.loop import LoopPass, SizedLoop


class RescueCallback(Callback):  # type: ignore[misc]  # mypy does not follow it
    """Goes on in the middle of an epoch, when the cell with `trainer.fit(...)` is run again after a restore.

        trainer = Trainer(max_epochs=10, callbacks=[RescueCallback()])
        trainer.fit(model, loader)

    Weights, optimizers, schedulers, the precision plugin, the loops' counters, the states of the other callbacks, the
    order of the data and the random streams are as in an uninterrupted run. Snapshots are cut after a training batch;
    not after the last one of an epoch, nor where a validation follows. Put it last among the callbacks: what others, or
    the module, do in `on_train_batch_end` after it is not done again for that batch.

    Not exact: means over an epoch of what `self.log` logs (they begin anew), random transforms in workers unless
    *seed_samples*, gradients that are being accumulated over several batches (no snapshot is cut between them). Several
    processes (DDP), several training loaders and loaders without a length are left to Lightning, which a warning says.
    *name* tells two trainers apart that run in one notebook. What `trainer.fit` raises leaves nothing to go on from but
    the snapshots before.
    """

    def __init__(self, *, name: str = "lightning", seed_samples: bool = False) -> None:
        self._name = name
        self._seed_samples = seed_samples
        self._fitting: _Fitting | None = None
        self._goes_on = False
        self._data: _Loader | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stand in front of the training data."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            warnings.warn("RescueCallback does nothing where several processes train.", stacklevel=2)
            return
        self._fitting, self._data = _Fitting(trainer, self._name), None
        strategy, process = trainer.strategy, trainer.strategy.process_dataloader

        def with_position(loader: object) -> object:
            processed = process(loader)
            return self._positioned(trainer, processed) if _is_for_training(trainer) else processed

        strategy.process_dataloader = with_position

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand Lightning the checkpoint that a restore has left; it loads loops and optimizers after this hook."""
        if self._fitting is None:
            return
        state = progress.begin(self._fitting, sys._getframe(1))
        self._goes_on = state is not None
        if state is not None:
            connector = trainer._checkpoint_connector
            connector._loaded_checkpoint = state["checkpoint"]
            connector.restore_datamodule()
            connector.restore_model()
            connector.restore_callbacks()
        progress.run(self._fitting)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw from where the snapshot was, whatever was drawn until the training began again."""
        if self._goes_on:
            self._goes_on = False
            progress.rewind_streams()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A place for a snapshot, unless an end of the epoch, a validation or more gradients follow."""
        loop = trainer.fit_loop.epoch_loop
        if self._fitting is None or self._data is None or self._data.running is None:
            return
        if loop._should_accumulate() or loop._num_ready_batches_reached():
            return
        if not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            progress.boundary(self._fitting, self._data.running)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The fit is over, or was left by an exception."""
        if self._fitting is not None and stage == "fit":
            del trainer.strategy.process_dataloader
            if self._data is not None:
                self._data.stop()
            progress.finish(self._fitting)
            self._fitting = self._data = None

    def _positioned(self, trainer: Trainer, loader: Any) -> object:
        if self._data is not None or not hasattr(loader, "__len__"):
            warnings.warn(
                "RescueCallback keeps the position of one training loader that has a length; this one starts from its "
                "beginning when the training goes on.",
                stacklevel=2,
            )
            return loader
        self._data = _Loader(loader, f"{self._name}: training data", seed_samples=self._seed_samples)
        return self._data


class _Fitting(progress.Pass):
    """One call of `trainer.fit`."""

    kind = progress.TRAINER

    def __init__(self, trainer: Trainer, name: str) -> None:
        super().__init__(name)
        self.between = False
        self._trainer = trainer

    def state(self, *, complete: bool) -> dict[str, Any]:
        """Lightning's own checkpoint, in memory."""
        connector = self._trainer._checkpoint_connector
        return {"checkpoint": connector.dump_checkpoint(weights_only=False), "steps": self._trainer.global_step}


class _Loader(SizedLoop[Any]):
    """The training data: a new pass for each epoch. Lightning asks whether it has a state, and is told that it has."""

    def __init__(self, loader: Any, name: str, *, seed_samples: bool) -> None:
        super().__init__(loader, "batches", name, source_of_batches(loader, seed_samples=seed_samples))
        self.running: LoopPass | None = None

    def __iter__(self) -> LoopPass:
        self.stop()
        self.running = super().__iter__()
        return self.running

    def stop(self) -> None:
        """The epoch is over: Lightning knows the length, and does not ask for an end."""
        if self.running is not None:
            progress.finish(self.running)
            self.running = None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: `progress` has it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: `progress` has it."""


def _is_for_training(trainer: Trainer) -> bool:
    return not trainer.sanity_checking and trainer.training and trainer.fit_loop._combined_loader is None
