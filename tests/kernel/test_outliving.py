"""A process that outlives its kernel writes the last snapshot; the next kernel waits for it."""

from __future__ import annotations

import pytest

DYING = """
import os, time
from IPython.core.getipython import get_ipython
from ipyrescue.kernel.extension import recorder_of
from ipyrescue.manifest import Settings
from ipyrescue.selection import Occasion

recorder = recorder_of(get_ipython())
x = 2
draft = recorder.notebook.capture(Occasion(trigger="every"), Settings())
kernel = os.getpid()
pid = os.fork()
if pid == 0:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and (os.getppid() == kernel or not os.path.exists("go")):
        time.sleep(0.01)
    recorder.notebook.write(draft)
    os._exit(0)
recorder.life.writes(pid)
"""

WAITING = """
import time
sleep = time.sleep
def notice(seconds):
    open("go", "w").close()
    sleep(seconds)
time.sleep = notice
"""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_process_of_a_dead_kernel_still_writes_is_waited_for(make_kernel):
    """The newest snapshot is not there yet when its kernel is gone; it is the one that comes back."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars")
    first.run(DYING)
    first.kill()

    second = make_kernel()
    second.run("%load_ext ipyrescue")
    second.run(WAITING)
    report = second.run("%restore_vars").text

    assert second.value("x") == 2
    assert "for a process of the dead kernel that was still writing." in report
    assert "Waited" not in second.run("%restore_vars").text
