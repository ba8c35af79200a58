"""Lightning: the same cell, run again after a restore, trains on in the middle of the epoch, to the same bits."""

import pickle

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ipyrescue.capture import safepoint
from ipyrescue.training import progress
from ipyrescue.training.lightning import RescueCallback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:The '\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 1))
        self.losses = []

    def training_step(self, batch, index):
        loss = self.net(batch[0] + 0.1 * torch.randn_like(batch[0])).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        self.log("val", self.net(batch[0]).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Died(BaseException):
    pass


class Points:
    """Stands for the safe points: takes a snapshot at the *wanted* of the ends of iterations, and dies of it."""

    def __init__(self, model, wanted):
        self.model, self.wanted = model, wanted
        self.passed = 0
        self.snapshot = None

    def iteration_ends(self):
        self.passed += 1
        if self.passed == self.wanted:
            self.snapshot = pickle.dumps((progress.states(None, None), self.model))
            raise Died


def fit(model, tmp_path, **options):
    torch.manual_seed(3)
    data = TensorDataset(torch.randn(50, 6))
    loaders = DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=25)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    callbacks = [RescueCallback()]
    trainer = pl.Trainer(
        max_epochs=3, callbacks=callbacks, enable_model_summary=False, default_root_dir=tmp_path, **quiet, **options
    )
    trainer.fit(model, *loaders)


def new_model():
    torch.manual_seed(5)
    return Model()


@pytest.mark.parametrize(
    ("wanted", "options"),
    [(1, {}), (6, {}), (9, {}), (5, {"accumulate_grad_batches": 2}), (8, {"val_check_interval": 3})],
)
def test_training_goes_on_in_the_middle_of_an_epoch(wanted, options, tmp_path, monkeypatch):
    monkeypatch.setattr(safepoint, "_installed", None)
    whole = new_model()
    fit(whole, tmp_path, **options)
    points = Points(new_model(), wanted)
    monkeypatch.setattr(safepoint, "_installed", points)
    with pytest.raises(Died):
        fit(points.model, tmp_path, **options)
    monkeypatch.setattr(safepoint, "_installed", None)

    states, again = pickle.loads(points.snapshot)
    progress.resume(states)
    fit(again, tmp_path, **options)

    assert again.losses == whole.losses
    assert len(whole.losses) == 21
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_nothing_is_left_in_progress_after_a_fit(tmp_path):
    fit(new_model(), tmp_path)

    assert progress.states(None, None) == {}
