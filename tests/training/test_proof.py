"""The proof: killed at twenty random instants and run again each time, a training ends with the very same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from namespaces import Life, open_store

KILLS = 20


@pytest.mark.slow
def test_a_training_that_was_killed_twenty_times_ends_with_the_same_bits(tmp_path):
    """Shuffling, dropout, noise, AdamW, OneCycleLR, gradient accumulation, a moving average, and GradScaler."""
    here = Path(__file__).parent
    command = [sys.executable, here / "dying.py", tmp_path, str(KILLS)]
    paths = os.pathsep.join([str(here.parent), str(here.parent.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{KILLS}\n", "")

    whole, killed = (end_of(tmp_path / name) for name in ("whole", "killed"))
    assert killed["losses"] == whole["losses"]
    assert len(whole["losses"]) == 120
    for name in ("model", "average", "optimizer", "schedule", "scaler"):
        assert_same_bits(killed[name].state_dict(), whole[name].state_dict())


def end_of(root):
    life = Life(open_store(root))
    life.restore()
    return life.names


def assert_same_bits(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same_bits(first, second)
    elif not callable(one):
        assert one == other
