"""What a cell did is saved after it, also where that could not be at its end; in a real kernel."""

import sys
import time

import pytest
from kernels import REPLY_SECONDS

from ipyrescue.store import Store, signing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process beside the kernel writes on Linux only")

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
AT_REST = "(armed._unsaved_since, armed._missed, armed._trigger, armed._wanted(), armed._saver.busy)"


def _holding(folder, name):
    """The newest snapshot, once it holds *name*."""
    deadline = time.monotonic() + REPLY_SECONDS
    while True:
        found = max(Store.open(folder / ".ipyrescue", signing.load_key()).snapshots(), key=lambda s: s.sequence)
        if name in found.names:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


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
