"""The proof: killed at twenty random instants and run again each time, a training ends with the very same bits."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

DYING = Path(__file__).parent / "dying.py"
KILLS = 20


@pytest.mark.slow
def test_a_training_that_was_killed_twenty_times_ends_with_the_same_bits(tmp_path):
    """Shuffling, dropout, noise, AdamW, OneCycleLR, gradient accumulation, a moving average, and GradScaler."""
    result = subprocess.run([sys.executable, DYING, tmp_path, str(KILLS)], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{KILLS}\n", "")

    whole, killed = (end_of(tmp_path / name) for name in ("whole", "killed"))
    assert killed["losses"] == whole["losses"]
    assert len(whole["losses"]) == 240
    for name in ("model", "average", "optimizer", "schedule", "scaler"):
        assert_same_bits(killed[name].state_dict(), whole[name].state_dict())


def end_of(file):
    """The variables of the last snapshot; classes and functions of the program are those of its module."""
    sys.path.insert(0, str(DYING.parent))
    try:
        import dying

        sys.modules["__main__"].moving_average = dying.moving_average
        return pickle.loads(file.read_bytes())[1]
    finally:
        sys.path.remove(str(DYING.parent))
        del sys.modules["__main__"].moving_average


def assert_same_bits(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one.view(-1), other.view(-1))
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
