"""Scripts under `ipyrescue.guard`: killed, terminated, broken off and started again; real processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from scripts import Scripts, scripts

from ipyrescue.incarnations.deaths import deaths
from ipyrescue.incarnations.offer import diagnosed
from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.store import lives

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="forks")]

TRAIN = dedent("""
    import glob, hashlib, os, signal, sys, threading, time
    import torch
    import ipyrescue

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 3))

        def forward(self, x):
            return self.layers(x)

    model = Net()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.99**step)
    losses = []
    print("resumed" if ipyrescue.resume() else "begun")

    def train():
        for epoch in ipyrescue.loop(range(40), name="train"):
            x = torch.randn(16, 8)
            loss = torch.nn.functional.cross_entropy(model(x), x.argmax(1) % 3)
            opt.zero_grad()
            loss.backward()
            opt.step()
            time.sleep(float(os.environ.get("NAP", "0")))
            sched.step()
            losses.append(loss.item())
            if "RAISE" in os.environ and glob.glob(os.environ["IPYRESCUE_STORE"] + "/snapshots/*.json"):
                raise ValueError("no more data")

    with ipyrescue.guard("model", "opt", every=os.environ.get("EVERY", "1h")):
        train()

    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print(len(losses), hashlib.sha256(weights + repr((losses, sched.last_epoch)).encode()).hexdigest())
    handlers = [s for s in signal.valid_signals() if callable(signal.getsignal(s)) and s != signal.SIGINT]
    print(threading.active_count(), handlers, sys.gettrace(), "IPython" in sys.modules, isinstance(model, Net))
""")
SLOW = {"NAP": "0.4", "EVERY": "0.1s"}  # there is time to be killed, however busy the machine
NOTHING_LEFT = "1 [] None False True"


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """A process that has torch, in a folder with `train.py`."""
    folder = tmp_path_factory.mktemp("scripts")
    with pytest.MonkeyPatch.context() as patch, scripts(folder) as made:
        (folder / "train.py").write_text(TRAIN, encoding="utf-8")
        patch.setenv("IPYRESCUE_MAX_SHARE", "100%")
        yield made


def store_of(training: Scripts, name: str) -> tuple[Path, dict[str, str]]:
    root = training.folder / name
    return root, {"IPYRESCUE_STORE": str(root), "IPYRESCUE_MAX_SHARE": "100%"}


def manifests(root: Path) -> int:
    return len(list((root / "snapshots").glob("*.json")))


def interrupted(root: Path) -> bool:
    return any(b'"cut":"interrupted"' in path.read_bytes() for path in (root / "snapshots").glob("*.json"))


@pytest.fixture(scope="module")
def undisturbed(training: Scripts) -> str:
    """What the training comes to when nothing happens to it."""
    _, environ = store_of(training, "undisturbed")
    begun, result, left = training.run("train.py", **environ).output.splitlines()
    assert (begun, left) == ("begun", NOTHING_LEFT)
    return result


def gone_on(training: Scripts, environ: dict[str, str]) -> list[str]:
    """What another run prints, but for what it and its loop go on from."""
    lines = training.run("train.py", **environ).output.splitlines()
    return [line for line in lines if not line.startswith(("ipyrescue: train.py", "ipyrescue: loop 'train' goes on"))]


@pytest.mark.parametrize("writer", ["process", "thread"])
def test_a_killed_script_goes_on_bit_for_bit(training: Scripts, undisturbed: str, writer: str) -> None:
    """Killed in its middle and started again, it ends with the very weights and losses; then it begins anew."""
    root, environ = store_of(training, writer)
    environ["IPYRESCUE_WRITER"] = writer
    killed = training.start("train.py", **environ, **SLOW)
    assert killed.kill_when(lambda: manifests(root) > 1, signal.SIGKILL) == -signal.SIGKILL

    told, resumed, taken_up, result, left = training.run("train.py", **environ).output.splitlines()
    assert taken_up.startswith("ipyrescue: loop 'train' goes on after ")
    assert told.startswith("ipyrescue: train.py goes on from snapshot ")
    assert "loop 'train' goes on after " in told
    assert (resumed, result, left) == ("resumed", undisturbed, NOTHING_LEFT)

    assert training.run("train.py", **environ).output.splitlines()[:2] == ["begun", undisturbed]
    first, *others = lives.read_all(root)
    assert (first.kind, first.notebook) == ("script", "train.py")
    assert [life.ended for life in (first, *others)] == [None, "exit", "exit"]


def test_sigterm_leaves_a_last_snapshot_and_ends_the_script(training: Scripts, undisturbed: str) -> None:
    root, environ = store_of(training, "terminated")
    run = training.start("train.py", **environ, **{**SLOW, "EVERY": "2s"})
    assert run.kill_when(lambda: manifests(root), signal.SIGTERM) == -signal.SIGTERM

    (death,) = deaths(root, {"train.py"})
    assert diagnosed(root, death.life).kind == "terminated"
    wait_for_writers(root, "train.py", "")
    assert interrupted(root)
    assert gone_on(training, environ) == ["resumed", undisturbed, NOTHING_LEFT]


def test_what_an_exception_broke_off_goes_on(training: Scripts, undisturbed: str) -> None:
    """It leaves an interrupted snapshot; the consistent one before is what the next run takes."""
    root, environ = store_of(training, "raised")
    run = training.start("train.py", **environ, **SLOW, RAISE="1")
    assert run.status == 1
    assert run.output.splitlines()[-1] == "ValueError: no more data"

    (death,) = deaths(root, {"train.py"})
    cause = diagnosed(root, death.life)
    assert (cause.kind, cause.text) == ("raised", "ValueError: no more data")
    assert gone_on(training, environ) == ["resumed", undisturbed, NOTHING_LEFT]
