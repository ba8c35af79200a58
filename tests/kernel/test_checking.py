"""`%checkpoint_vars --check` in a real kernel: the snapshot is made, and proved or found wanting."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

NAMESPACE = """
import threading, torch
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.tied = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.tied.weight = self.body.weight
        self.norm = torch.nn.BatchNorm1d(3)
        self.norm.register_forward_hook(lambda module, args, out: None)
    def forward(self, x):
        return self.norm(self.tied(self.body(x)))
model = Net()
opt = torch.optim.AdamW(model.parameters())
sched = torch.optim.lr_scheduler.StepLR(opt, 2)
def step(history=[]):
    opt.zero_grad(); loss = model(torch.randn(4, 3)).square().sum(); loss.backward(); opt.step(); sched.step()
    history.append(loss.item())
step()
view, seen, lock = model.body.weight.data[1:], {"c", "b", "a"}, threading.Lock()
lines = (line for line in "ab")
"""
BAD = """
class Cached:
    def __init__(self): self.rows, self.cache = [1], {"secret": "very secret value"}
    def __getstate__(self): return {"rows": self.rows}
class Late:
    def __init__(self): self.a = 1
    def __setstate__(self, state): raise ValueError("not today")
class Killer:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        print("noise"); import os; os.abort()
cached, late, killer = Cached(), [Late()], Killer()
"""
WAITS = """
class Waits:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import os, pathlib, time
        pathlib.Path("pid").write_text(str(os.getpid())); time.sleep(600)
waits = Waits()
"""


def check(kernel: Kernel, line: str = "") -> Any:
    (data,) = kernel.run(f"%checkpoint_vars --check --json {line}").data
    return json.loads(data["text/plain"])


def outcomes(told: Any) -> dict[str, str]:
    return {verdict["name"]: verdict["outcome"] for verdict in told["verdicts"]}


@pytest.mark.slow
def test_a_session_is_checked(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Training state is the same, what is lossy is told by its place, what kills costs itself; a kernel lives on."""
    kernel = make_kernel()
    kernel.run(f"%load_ext ipyrescue\n{NAMESPACE}")

    good = check(kernel)

    assert set(outcomes(good).values()) == {"same"}, good["verdicts"]
    assert {"model", "opt", "sched", "step", "view", "seen", "lock", "Net", "torch"} <= outcomes(good).keys()
    assert [skipped["name"] for skipped in good["saved"]["skipped"]] == ["lines"]
    assert good["saved"]["snapshot"]["trigger"] == "command"

    kernel.run(BAD)
    lives = sorted((tmp_path / ".ipyrescue" / "lives").glob("*"))
    output = kernel.run("%checkpoint_vars --check every=1h label=checked")

    assert "noise" not in output.text
    assert sorted((tmp_path / ".ipyrescue" / "lives").glob("*")) == lives
    _panel, data = output.data
    text, page = data["text/plain"], data["text/html"]
    assert "Saved 14 variables" in text
    assert "Left out 1: lines (generator" in text
    assert "Armed: a snapshot after cells and inside them, at most every 1 h" in text
    assert "Checked 16 variables in 2 fresh processes in " in text
    assert ": 13 came back the same, 1 differs, 2 failed to load." in text
    rows = text.splitlines()[-4:]
    assert rows[0].split() == ["name", "type", "where", "why"]
    assert [row.split()[0] for row in rows[1:]] == ["killer", "late", "cached"]
    assert "the fresh process died of SIGABRT while it was loaded" in rows[1]
    assert "ValueError: not today" in rows[2]
    assert "differs" in rows[3]
    assert "cached.cache" in rows[3]
    assert "very secret" not in text + page
    assert "<table" in page
    assert kernel.value("lock.acquire(blocking=False) and opt.param_groups[0]['params'][0] is model.body.weight")


@pytest.mark.slow
def test_ctrl_c_ends_a_check_and_the_kernel_goes_on(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """What hangs is given up after the setting's time, Ctrl-C is quicker, and the process dies with its kernel."""
    kernel = make_kernel(IPYRESCUE_CHECK_TIMEOUT="2s")
    kernel.run(f"%load_ext ipyrescue\nkept = [1]\n{WAITS}")

    told = check(kernel, "waits")

    assert outcomes(told) == {"Waits": "same", "kept": "same", "waits": "failed to load"}
    assert "did not end in 2 s" in next(v["why"] for v in told["verdicts"] if v["name"] == "waits")
    assert is_gone(tmp_path / "pid")

    (tmp_path / "pid").unlink()
    kernel.run("get_ipython().run_line_magic('config', 'IPyRescue.check_timeout = \"1h\"')")
    kernel.run("import os; del os.environ['IPYRESCUE_CHECK_TIMEOUT']")
    kernel.begin("print(get_ipython().run_line_magic('checkpoint_vars', '--check'))")
    wait_for(tmp_path / "pid")
    os.kill(kernel.pid, signal.SIGINT)
    kernel.wait_for_output("1 not checked")

    assert is_gone(tmp_path / "pid")
    assert kernel.value("kept") == [1]

    (tmp_path / "pid").unlink()
    kernel.begin("%checkpoint_vars --check")
    wait_for(tmp_path / "pid")
    kernel.kill()
    deadline = time.monotonic() + 60
    while not is_gone(tmp_path / "pid"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def is_gone(pid: Path) -> bool:
    """Whether the process is dead; a container without an init may leave its entry behind."""
    status = Path("/proc", pid.read_text(), "status")
    return not status.exists() or "State:\tZ" in status.read_text()
