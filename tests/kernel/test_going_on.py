"""Loops that are run again in another kernel: on what came back, or not at all."""

from __future__ import annotations

import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="forks")]

MAKE = "model = torch.nn.Linear(4, 1); opt = torch.optim.SGD(model.parameters(), lr=0.01); done = []"
LOOP = """
for i in ipyrescue.loop(range(8), name="train"):
    opt.zero_grad(); model(torch.ones(1, 4)).sum().backward(); opt.step()
    done.append(i)
    if i == 4 and "there" not in globals(): ipyrescue.checkpoint()
"""
FUNCTION = f"def train():\n    {MAKE}" + LOOP.replace("\n", "\n    ") + "\n    print('trained', done)\n"


def test_a_cell_and_a_function_that_make_their_model_anew(make_kernel):
    """Both used to train the last three of eight iterations on a fresh model, without a word."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nimport torch, ipyrescue")
    first.run(f"if True:\n    {MAKE}\n{LOOP}")
    first.run(f"{FUNCTION}\ntrain()")
    first.kill()

    second = make_kernel()
    second.run("%load_ext ipyrescue\nimport ipyrescue")
    second.run("there, of_function = [one.id for one in ipyrescue.snapshots()][::-1]")
    second.run("ipyrescue.restore(there)\nthere = True")
    refused = second.try_run(f"{MAKE}\n{LOOP}").error
    assert "The loop 'train' goes on after 5 of 8, from snapshot " in refused
    assert "made anew before it" in refused
    assert second.value("len(done)") == 0
    kept = f"steps = ipyrescue.loop(range(8), name='train')\nif not steps.goes_on:\n    {MAKE}\n"
    second.run("ids = [one.id for one in ipyrescue.snapshots()][::-1]\nipyrescue.restore(ids[0])\nthere = True")
    told = second.run(kept + LOOP.replace('ipyrescue.loop(range(8), name="train")', "steps")).text
    assert "ipyrescue: loop 'train' goes on after 5 of 8, from snapshot " in told
    assert second.value("done") == list(range(8))

    second.run("ipyrescue.restore(ids[1])\nthere = True")
    assert "made anew before it" in second.try_run("train()").error
    second.run("globals().update(ipyrescue.frames()[0].locals)")
    second.run(LOOP)
    assert second.value("done") == list(range(8))
