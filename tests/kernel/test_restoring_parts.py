"""Restores as people need them, in a real kernel: some names, beside the live ones, taken back, looked at before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

MODEL = """
import torch
model = torch.nn.Linear(3, 3)
opt = torch.optim.AdamW(model.parameters())
def step():
    opt.zero_grad(); model(torch.ones(1, 3)).sum().backward(); opt.step()
step()
"""


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> Kernel:
    started = make_kernel()
    started.run("%load_ext ipyrescue")
    return started


def as_json(kernel: Kernel, line: str) -> Any:
    (data,) = kernel.run(line).data
    return json.loads(data["text/plain"])


def test_an_old_model_stands_beside_the_live_one(kernel: Kernel) -> None:
    """`as=old_` with a glob: the old optimizer drives the old model, and yours goes on untouched."""
    kernel.run(MODEL)
    kernel.run("%checkpoint_vars label=good every=1h")
    kernel.run("%checkpoint_vars --off")
    kernel.run("mine, weight = model, model.weight; step(); now = weight.detach().clone()")

    told = as_json(kernel, "%restore_vars model opt st* from=good as=old_ --json")

    assert told["names"] == ["old_model", "old_opt", "old_step"]
    assert told["armed"] is None
    kernel.run("old_step()")
    assert kernel.value("model is mine and model.weight is weight and bool(torch.equal(weight, now))")
    assert kernel.value("old_opt.param_groups[0]['params'][0] is old_model.weight")
    assert kernel.value("bool(torch.equal(old_model.weight, now))"), "the old session took the same step"


def test_python_restores_into_a_dict(kernel: Kernel) -> None:
    kernel.run("x = [1]\ny = x")
    kernel.run("%checkpoint_vars")
    kernel.run("x = 'mine'\nimport ipyrescue\nfound = {}\nrestored = ipyrescue.restore(into=found)")

    assert kernel.value("x") == "mine"
    assert kernel.value("found['x'] is found['y'] and restored.names == ('x', 'y') and not restored.full")
