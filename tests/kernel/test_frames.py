"""Locals of running functions: in a snapshot taken inside a function, and back in another kernel."""

from __future__ import annotations

TRAIN = """
import ipyrescue
class Trainer:
    def fit(self, steps):
        secret_key = "sk-proj-abcdefghijklmnopqrstuvwxyz012345"
        it = (n for n in range(3))
        for step in range(steps):
            self.losses.append(step)
        ipyrescue.checkpoint(label="inside")
def train():
    model, optimizer = [1.0], {}
    optimizer["params"] = model
    globals()["shared"] = model
    trainer = Trainer()
    trainer.losses = []
    trainer.fit(3)
"""


def test_locals_come_back_beside_the_variables(make_kernel):
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("x = 1")
    first.run(TRAIN)
    first.run("train()\n%checkpoint_vars --dry-run")
    first.kill()

    second = make_kernel()
    second.run("%load_ext ipyrescue")
    report = second.run("%restore_vars from=inside").text

    assert "Running then: train() (line 15 of cell [3]), Trainer.fit() (line 8 of cell [3])." in report
    assert "ipyrescue.frames()" in report
    assert "Trainer.fit().it (generator" in report
    assert "Trainer.fit().secret_key (looks like a secret; save it with --allow secret_key" in report
    assert second.value("sorted(n for n in globals() if '.' in n or n in ('model', 'step', 'trainer'))") == []

    shown = second.run("ipyrescue.frames()").text
    assert "[1] Trainer.fit(), line 8 of cell [3]" in shown
    assert second.value("ipyrescue.frames()[0].locals['model'] is shared")
    assert second.value("ipyrescue.frames()[0].locals['optimizer']['params'] is shared")
    assert second.value("[sorted(frame.locals) for frame in ipyrescue.frames()]") == [
        ["model", "optimizer", "trainer"],
        ["self", "step", "steps"],
    ]

    # Restored code is code of cells as well, and a part that shares objects with locals is no torn group.
    second.run("%checkpoint_vars --off")
    second.run("%restore_vars shared from=inside")
    assert second.value("ipyrescue.frames()[0].locals['model'] is shared") is False
    second.run("train()")
    again = second.run("%snapshots show latest").text
    assert "Ran then: train(), line 15 of cell [3]" in again
    assert "train().trainer" in again
