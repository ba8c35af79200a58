"""skorch: a `fit()` in a cell is saved between two steps, net and all; after a death it is trained on from there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from kernels import REPLY_SECONDS, kernels

from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, signing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

NET = """
import warnings
import torch
warnings.simplefilter("ignore", DeprecationWarning)
from skorch import NeuralNetRegressor
torch.manual_seed(0); torch.set_num_threads(1)
X = torch.randn(64, 4)
y = X.sum(1, keepdim=True)
net = NeuralNetRegressor(
    torch.nn.Linear, module__in_features=4, module__out_features=1, max_epochs=1_000_000, batch_size=16, verbose=0,
    optimizer=torch.optim.Adam, lr=1e-3, train_split=None,
)
"""


def wait_for_snapshots(folder: Path, wanted: int) -> list[Snapshot]:
    deadline = time.monotonic() + REPLY_SECONDS
    while True:
        assert time.monotonic() < deadline
        found = [s for s in Store.open(folder / ".ipyrescue", signing.load_key()).snapshots() if s.cut == "in_hook"]
        if len(found) >= wanted:
            return found
        time.sleep(0.02)


def test_a_fit_that_is_killed_is_trained_on(tmp_path: Path) -> None:
    with kernels(tmp_path) as make:
        first = make(IPYRESCUE_MAX_SHARE="100%")
        first.run("%load_ext ipyrescue")
        first.run(NET)
        first.run("%checkpoint_vars net every=0.3s")
        first.begin("net.fit(X, y)")
        found = wait_for_snapshots(tmp_path, 3)
        first.kill()
        assert {(s.warnings, s.lost, "net" in [v.name for v in s.variables]) for s in found} == {((), (), True)}

        second = make()
        second.run("%load_ext ipyrescue")
        second.run("%restore_vars")
        state = "[int(s['step']) for s in net.optimizer_.state.values()]"
        done, epochs = second.value(state), second.value("len(net.history)")
        assert epochs > 0
        assert min(done) > 4 * (epochs - 1)
        second.run("_ = net.partial_fit(X, y, epochs=2)")
        assert second.value(state) == [steps + 8 for steps in done]
        assert second.value("len(net.history)") == epochs + 2
