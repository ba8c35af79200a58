"""Locals of running functions: in a snapshot taken inside a function, and back in another kernel."""

from __future__ import annotations

import sys

TRAIN = """
import ipyrescue
class Trainer:
    def fit(self, steps):
        secret_key = "sk-proj-abcdefghijklmnopqrstuvwxyz012345"
        it = (n for n in range(3))
        for step in ipyrescue.loop(range(steps), name="fit"):
            self.losses.append(step)
            if step == steps - 1:
                ipyrescue.checkpoint(label="inside")
def train():
    model, optimizer = [1.0], {}
    optimizer["params"] = model
    globals()["shared"] = model
    trainer = Trainer()
    trainer.losses = []
    trainer.fit(3)
"""


FIT = "Trainer.fit" if sys.version_info >= (3, 11) else "fit"
PROGRESS = "__import__('ipyrescue.training.progress').training.progress"
FAILING = """
import textwrap
def train():
    model, step = shared, 7
    textwrap.fill(step)
train()
"""


def test_what_an_exception_came_through_is_saved(make_kernel):
    """The state at that moment is in the functions that failed; the library's own are nobody's."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nshared = [1]\n%checkpoint_vars every=1h")
    assert "AttributeError" in first.try_run(FAILING).error
    first.run("%checkpoint_vars --dry-run")  # which waits for the writer
    first.kill()

    second = make_kernel()
    second.run("import ipyrescue\n%load_ext ipyrescue\nfailed = ipyrescue.snapshots()[0].id\nipyrescue.restore(failed)")

    told = "[(f.function, f.cell, f.line, sorted(f.locals), f.locals['model'] is shared) for f in ipyrescue.frames()]"
    assert second.value(told) == [("train", 2, 4, ["model", "step"], True)]


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

    assert f"Running then: train() (line 16 of cell [3]), {FIT}() (line 9 of cell [3])." in report
    assert "ipyrescue.frames()" in report
    assert f"{FIT}().it (generator" in report
    assert f"{FIT}().secret_key (looks like a secret; save it with --allow secret_key" in report
    assert second.value("sorted(n for n in globals() if '.' in n or n in ('model', 'step', 'trainer'))") == []

    assert second.value(f"list({PROGRESS}.states(None, None)['passes'][0][:2])") == ["loop", "fit"]
    assert "where loops go on" in report

    shown = second.run("ipyrescue.frames()").text
    assert f"[1] {FIT}(), line 9 of cell [3]" in shown
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
    assert "Ran then: train(), line 16 of cell [3]" in again
    assert "train().trainer" in again
