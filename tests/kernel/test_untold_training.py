"""What trains and is in no variable is not called protected, in a real kernel; what any variable holds is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import REPLY_SECONDS, Kernel

from ipyrescue.incarnations.protection import Protection, protection
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, lives, signing
from ipyrescue.store.lives import Life

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

MODULE = """
import time
from pathlib import Path
import torch

def new():
    model = torch.nn.Linear(4, 4)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)

def loop(model, opt):
    while not Path("stop").exists():
        opt.zero_grad(); model(torch.randn(2, 4)).square().mean().backward(); opt.step(); time.sleep(0.02)
    return model

def train(model=None):
    if model is None:
        model, opt = new()
    else:
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
    return loop(model, opt)

class Trainer:
    def __init__(self):
        self.parts = {"model": [new()[0]]}
    def fit(self):
        train(self.parts["model"][0])
"""
SCRIPT = "import modtrain\nm, o = modtrain.new()\nmodtrain.loop(m, o)\n"
IN_A_FUNCTION = """
def mine():
    local, opt = modtrain.new()
    modtrain.loop(local, opt)
mine()
"""
HELD = ["trainer.fit()", "modtrain.train(trainer.parts['model'][0])", IN_A_FUNCTION, "%run -i train_s.py"]


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + REPLY_SECONDS
    while not true():
        assert time.monotonic() < deadline, true
        time.sleep(0.02)


class Watched:
    """A kernel, seen from outside: its life record, and its snapshots."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel, self.folder = kernel, folder
        self.root = folder / ".ipyrescue"

    @property
    def life(self) -> Life:
        return lives.read_all(self.root)[-1]

    @property
    def judged(self) -> Protection:
        return protection(self.life, time.time())

    def snapshots(self, after: int = 0) -> list[Snapshot]:
        found = Store.open(self.root, signing.load_key()).snapshots()
        return sorted((s for s in found if s.sequence > after), key=lambda s: s.sequence)

    def inside(self, cell: str, true: Callable[[list[Snapshot]], Any]) -> list[Snapshot]:
        """The snapshots within *cell*, which trains until that is *true* of them."""
        (self.folder / "stop").unlink(missing_ok=True)
        before = self.snapshots()[-1].sequence
        self.kernel.begin(cell)
        wait_until(lambda: true([s for s in self.snapshots(before) if s.cut in ("in_hook", "boundary")]))
        return [s for s in self.snapshots(before) if s.cut in ("in_hook", "boundary")]

    def end(self) -> None:
        (self.folder / "stop").touch()
        self.kernel.run("pass")


@pytest.fixture
def watched(make_kernel: Callable[..., Kernel], tmp_path: Path) -> Watched:
    (tmp_path / "modtrain.py").write_text(MODULE)
    (tmp_path / "train_s.py").write_text(SCRIPT)
    kernel = make_kernel(IPYRESCUE_MAX_SHARE="100%")
    kernel.run("%load_ext ipyrescue\nimport modtrain\ntrainer = modtrain.Trainer()")
    kernel.run("%checkpoint_vars every=0.3s keep=1000")
    return Watched(kernel, tmp_path)


def test_training_that_no_variable_holds_is_not_called_protected(watched: Watched) -> None:
    """A script beside the notebook, and a function that makes its own model: red while they train, saved afterwards."""
    for cell, place, names in (
        ("%run train_s.py", "stepping in train_s.py) is in no variable that is saved", {"m", "o"}),
        ("mm = modtrain.train()", "stepping in train() of modtrain.py) is in no variable that is saved", {"mm"}),
    ):
        watched.inside(cell, lambda found: any(s.warnings for s in found))
        wait_until(lambda: watched.life.lacking is not None)
        assert watched.judged.state == "stale"
        assert "NOT saved. To have it saved, " in watched.judged.text
        assert f"What trains here (SGD, 2 tensors, {place}" in watched.judged.text
        watched.end()
        wait_until(lambda: watched.life.lacking is None)
        assert names <= {variable.name for variable in watched.snapshots()[-1].variables}


def test_what_a_variable_holds_in_whatever_way_raises_no_alarm(watched: Watched) -> None:
    """Within an object, in a local of a cell's function, and where the script has the variables of the notebook."""
    for cell in HELD:
        found = watched.inside(cell, lambda found: len(found) >= 2)
        assert [s.warnings for s in found] == [()] * len(found), cell
        assert watched.life.lacking is None
        watched.end()
