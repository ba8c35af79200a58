"""What a cell did is saved after it, also where that could not be at its end; in a real kernel, and in a script."""

import os
import subprocess
import sys
import time

import pytest
from kernels import REPLY_SECONDS

from ipyrescue.store import Store, signing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process beside the kernel writes on Linux only")

SECONDS = 60.0

GATED = """
import time
from pathlib import Path
from ipyrescue.kernel import session
from ipyrescue.kernel.notebook import Notebook
complete = Notebook.complete
def gated(*args, **kwargs):
    Path("writing").touch()
    while not Path("open").exists(): time.sleep(0.01)
    return complete(*args, **kwargs)
Notebook.complete = gated
armed = session.recorder().armed
"""
DROPPED = """
armed._want("every")
while not armed._saver.busy: time.sleep(0.01)
final = "trained"
raise ValueError("at the end")
"""
FULL = """
from pathlib import Path
from ipyrescue.errors import StoreError
from ipyrescue.kernel import session
from ipyrescue.kernel.notebook import Notebook
complete = Notebook.complete
def filling(*args, **kwargs):
    if Path("full").exists(): raise StoreError("no space left")
    return complete(*args, **kwargs)
Notebook.complete = filling
armed = session.recorder().armed
"""
RAISES = """
Path("full").touch()
half = "of a step"
raise ValueError("in the middle")
"""
SCRIPT = f"""
import threading
import ipyrescue
step = 0
with ipyrescue.guard(every="1s"):
    {GATED.strip().replace(chr(10), chr(10) + "    ")}
    while not armed._saver.busy: step += 1; time.sleep(0.01)
    while time.monotonic() - armed.last < 1: time.sleep(0.01)
    def lets_it_write():
        while armed._missed is None: time.sleep(0.01)
        Path("open").touch()
    threading.Thread(target=lets_it_write, daemon=True).start()
    final = "trained"
"""
AT_REST = "(armed._unsaved_since, armed._missed, armed._trigger, armed._wanted(), armed._saver.busy)"


def _holding(folder, name):
    """The newest snapshot, once it holds *name*."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = max(Store.open(folder / ".ipyrescue", signing.load_key()).snapshots(), key=lambda s: s.sequence)
        if name in found.names:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.slow
def test_the_end_of_a_cell_is_saved_when_the_kernel_is_idle(make_kernel, tmp_path):
    """A cell that was too short for a snapshot, and one that ended with an exception while another was written."""
    kernel = make_kernel(IPYRESCUE_MAX_SHARE="100%")
    kernel.run("%load_ext ipyrescue\n%checkpoint_vars every=1s")
    kernel.run("answer = 42")
    idle = _holding(tmp_path, "answer")
    assert (idle.trigger, idle.cut) == ("every", "cell_end")

    kernel.run(f"%checkpoint_vars every=1h\n{GATED}")
    assert kernel.try_run(DROPPED).error == "ValueError: at the end"
    (tmp_path / "open").touch()
    late = _holding(tmp_path, "final")
    assert (late.trigger, late.cut) == ("exception", "interrupted")
    assert "at the end" in late.traceback
    at_rest = kernel.value(AT_REST)
    while at_rest[-1]:
        at_rest = kernel.value(AT_REST)
    assert at_rest == (None, None, None, None, False), "nothing ran since, so nothing is wanted any more"

    (tmp_path / "open").unlink()
    kernel.try_run(DROPPED)
    kernel.run("Path('open').touch()\n%checkpoint_vars")
    assert kernel.value(AT_REST)[1:] == (None, None, None, False), "a command has saved it"


@pytest.mark.slow
def test_what_an_exception_left_is_not_called_consistent_by_the_idle_kernel(make_kernel, tmp_path):
    """The snapshot at the exception found no room; what is saved once there is some is the same half of a step."""
    kernel = make_kernel(IPYRESCUE_MAX_SHARE="100%")
    kernel.run(f"%load_ext ipyrescue\n%checkpoint_vars every=1s\n{FULL}")
    assert kernel.try_run(RAISES).error == "ValueError: in the middle"
    deadline = time.monotonic() + REPLY_SECONDS
    while not kernel.value("armed.failures"):
        assert time.monotonic() < deadline
    (tmp_path / "full").unlink()

    late = _holding(tmp_path, "half")

    assert (late.trigger, late.cut, late.reason) == ("every", "interrupted", "ValueError: in the middle")


@pytest.mark.slow
def test_the_end_of_a_script_is_saved_when_the_snapshot_before_it_is_written(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    environ = {**os.environ, "IPYRESCUE_MAX_SHARE": "100%"}
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environ, check=True, timeout=REPLY_SECONDS)

    assert _holding(tmp_path, "final").trigger == "every"
