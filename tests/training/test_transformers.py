"""Hugging Face's Trainer: the same cell, run again after a restore, trains on in the middle of the epoch."""

import pickle

import pytest
import torch
import transformers
from torch import nn

from ipyrescue.capture import safepoint
from ipyrescue.training import progress
from ipyrescue.training.transformers import RescueCallback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*pin_memory"),
]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 1))

    def forward(self, x, labels):
        return {"loss": (self.net(x + 0.1 * torch.randn_like(x)) - labels).square().mean()}


class Died(BaseException):
    pass


class Points:
    """Stands for the safe points: takes a snapshot at the *wanted* of the ends of iterations, and dies of it."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.passed = 0
        self.snapshot = None

    def iteration_ends(self):
        self.passed += 1
        if self.passed == self.wanted:
            self.snapshot = pickle.dumps(progress.states(None, None))
            raise Died


def train(tmp_path, **options):
    """The cell: makes everything, the model too, and trains. Returns the model and the log."""
    torch.manual_seed(5)
    model = Model()
    data = [{"x": torch.randn(6), "labels": torch.randn(1)} for _ in range(50)]
    arguments = transformers.TrainingArguments(
        tmp_path, use_cpu=True, per_device_train_batch_size=8, num_train_epochs=3, logging_steps=2, report_to=[],
        save_strategy="no", disable_tqdm=True, learning_rate=1e-2, warmup_steps=3, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=data)
    trainer.add_callback(RescueCallback(trainer))
    trainer.train()
    return model, [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("wanted", "options"), [(1, {}), (7, {}), (10, {}), (4, {"gradient_accumulation_steps": 2})])
def test_training_goes_on_in_the_middle_of_an_epoch(wanted, options, tmp_path, monkeypatch):
    monkeypatch.setattr(safepoint, "_installed", None)
    whole, log = train(tmp_path, **options)
    points = Points(wanted)
    monkeypatch.setattr(safepoint, "_installed", points)
    with pytest.raises(Died):
        train(tmp_path, **options)
    monkeypatch.setattr(safepoint, "_installed", None)

    progress.resume(pickle.loads(points.snapshot))
    again, log_again = train(tmp_path, **options)

    assert log_again == log
    assert len(log) > 4
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert progress.states(None, None) == {}
