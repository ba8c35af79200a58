"""Objects that end or hang the process which pickles them, in a real kernel: they cost themselves, and it lives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from kernels import REPLY_SECONDS, Kernel

MakeKernel = Callable[..., Kernel]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fence is made of Linux's fork")

BUSY = """
import threading, torch
stop = threading.Event()
def work():
    numbers = torch.randn(300_000)
    while not stop.is_set(): torch.sin(numbers)
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
"""
HOSTILE = """
import os, time
class Ends:
    def __reduce__(self): os._exit(0)
class Robs:
    def __init__(self): self.line = "open"
    def __getstate__(self):
        state = self.__dict__
        del state["line"]
        return state
ends, robs, kept = Ends(), Robs(), [1, 2]
"""
SLEEPS = """
from pathlib import Path
class Sleeps:
    def __reduce__(self):
        Path("asleep").touch()
        time.sleep(1e6)
sleeps = Sleeps()
"""


@pytest.mark.slow
def test_snapshots_after_cells_go_on_beside_objects_that_end_their_process(make_kernel: MakeKernel) -> None:
    """With threads that compute and hold locks meanwhile; the live objects are not touched, nothing is printed."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.run(BUSY)
    kernel.run(HOSTILE)
    said = kernel.run("%checkpoint_vars kept every=1s").text
    assert "ends (Ends, whose pickling ends the process (exit status 0), made in cell [3])" in said

    kernel.run("import ipyrescue\nkept.append(3)")
    deadline = time.monotonic() + REPLY_SECONDS
    while kernel.value("len(ipyrescue.snapshots())") < 2:
        assert time.monotonic() < deadline
        assert kernel.run("stop;").text == ""
    assert kernel.run("stop.set()").text == ""
    assert kernel.value("robs.line") == "open"
    kernel.kill()
    after = make_kernel()
    after.run("%load_ext ipyrescue")
    after.run("%restore_vars")

    assert after.value("kept") == [1, 2, 3]
    assert after.value("vars(robs)") == {}


def test_ctrl_c_ends_the_wait_for_an_object_that_hangs(make_kernel: MakeKernel, tmp_path: Path) -> None:
    kernel = make_kernel(IPYRESCUE_PICKLE_DEADLINE="1h")
    kernel.run("%load_ext ipyrescue")
    kernel.run(HOSTILE + SLEEPS)
    kernel.begin("%checkpoint_vars")
    deadline = time.monotonic() + REPLY_SECONDS
    while not (tmp_path / "asleep").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    kernel.manager.interrupt_kernel()

    reply = kernel.client.get_shell_msg(timeout=REPLY_SECONDS)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    while "alive" not in kernel.try_run("print('alive')", store_history=False).stdout:
        assert time.monotonic() < deadline  # what arrives right behind an interrupt is aborted by ipykernel
    assert kernel.value("kept") == [1, 2]
    assert psutil.Process(kernel.pid).children() == []
    assert "There is no snapshot of this notebook yet" in kernel.run("%checkpoint_vars --status").text


def test_where_nothing_forks_the_status_says_so(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    weakness = "an object that crashes or hangs the process that pickles it does so to the kernel"
    assert weakness not in kernel.run("%checkpoint_vars --status").text
    kernel.run("from ipyrescue.capture.fence import Fence\nFence.available = False")
    kernel.run("class Own:\n    def __reduce__(self): return list, ([1],)\nown = Own()\n%checkpoint_vars")

    assert weakness in kernel.run("%checkpoint_vars --status").text
