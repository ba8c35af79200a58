"""Snapshots inside running cells, in real kernels that are killed: by a process beside the kernel, and by a thread."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from kernels import REPLY_SECONDS, Kernel

pytestmark = pytest.mark.slow

MakeKernel = Callable[..., Kernel]

UNSTRETCHED = {"IPYRESCUE_MAX_SHARE": "100%"}
WRITERS = [
    pytest.param({}, id="process", marks=pytest.mark.skipif(sys.platform != "linux", reason="no children")),
    pytest.param({"IPYRESCUE_WRITER": "thread"}, id="thread"),
]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there are children on Linux only")

DIGEST = """
import hashlib, itertools
from pathlib import Path
def digest(step, losses, model, opt):
    h = hashlib.sha256(repr((step, losses)).encode())
    states = (v for _, s in sorted(opt.state_dict()["state"].items()) for _, v in sorted(s.items()))
    for t in itertools.chain(model.state_dict().values(), states):
        h.update(t.numpy().tobytes())
    return h.hexdigest()
"""
TRAINING = f"""
import torch
from torch import nn
torch.manual_seed(0); torch.set_num_threads(1)
{DIGEST}
def setup():
    model = nn.Sequential(nn.Linear(256, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 8))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)
def update(model, opt):
    loss = model(torch.randn(16, 256)).square().mean()
    opt.zero_grad(); loss.backward(); opt.step()
    return loss.item()
model, opt = setup()
step, losses, seal = 0, [], digest(0, [], model, opt)
"""
LOOP = """
while not Path("stop").exists():
    losses.append(update(model, opt))
    del losses[:-50]
    step += 1
    seal = digest(step, losses, model, opt)
"""
FUNCTION = """
def train():
    shared, local, losses = model, torch.optim.SGD(model.parameters(), lr=1e-3), []
    for step in itertools.count():
        losses.append(update(shared, local))
        del losses[:-50]
        seal = digest(step, losses, shared, local)
train()
"""
CHECK = """
import ipyrescue
torn, cuts, steps = [], {}, []
for s in ipyrescue.snapshots():
    names = {}
    ipyrescue.restore(s.id, into=names)
    if s.trigger != "command" and s.cut != "cell_end" and not s.frames:
        cuts[s.cut] = cuts.get(s.cut, 0) + 1
        steps.append(names["step"])
        if digest(*(names[name] for name in ("step", "losses", "model", "opt"))) != names["seal"]:
            torn.append((s.cut, s.trigger, names["step"]))
"""
FRAMES = """
frame = ipyrescue.frames()[0]
sealed = digest(*(frame.locals[name] for name in ("step", "losses", "shared", "local"))) == frame.locals["seal"]
"""
NO_MEMORY = """
from ipyrescue.kernel.extension import recorder_of
area = recorder_of(get_ipython()).notebook.area
area.release()
area._available_bytes = lambda: 0
del area
"""
COUNTING = "while not Path('stop').exists():\n    step += 1\n    time.sleep(0.001)"
GATED = """
import os, time
from pathlib import Path
from ipyrescue.kernel.notebook import Notebook
complete = Notebook.complete
def gated(*args, **kwargs):
    Path("writing~").write_text(f"{os.getpid()} {step}")
    os.rename("writing~", "writing")
    while not Path("open").exists(): time.sleep(0.01)
    return complete(*args, **kwargs)
Notebook.complete = gated
"""
HOSTILE = """
import os, signal, time
from pathlib import Path
class Hangs:
    def __reduce__(self):
        with open("asleep", "a") as file: file.write("x")
        time.sleep(1e6)
class Dies:
    def __reduce__(self): os.kill(os.getpid(), signal.SIGKILL)
class Exits:
    def __reduce__(self): os._exit(0)
step, hangs, dies, exits = 0, Hangs(), Dies(), Exits()
"""
COUNTING_ALOUD = """
while not Path("stop").exists():
    step += 1
    Path("step~").write_text(str(step)); os.rename("step~", "step")
"""
STATE = """
import psutil, signal, sys, threading
def state():
    threads = sorted(t.name for t in threading.enumerate() if t is not threading.current_thread())
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return threads, handlers, sys.gettrace(), threading.gettrace(), len(psutil.Process().children())
sys.before = state()
"""
AT_REST = """
import time
import numpy as np
from pathlib import Path
def rest():
    return np.arange(50_000_000 // 8), [{"id": i, "name": f"row {i}"} for i in range(200_000)]
"""


def wait_until(true: Callable[[], Any], *about: object) -> None:
    deadline = time.monotonic() + REPLY_SECONDS
    while not true():
        assert time.monotonic() < deadline, about
        time.sleep(0.01)


def snapshots(folder: Path) -> int:
    return len(list((folder / ".ipyrescue" / "snapshots").glob("*.json")))


def wait_for_snapshots(folder: Path, more: int) -> None:
    wanted = snapshots(folder) + more
    wait_until(lambda: snapshots(folder) >= wanted, wanted)


def writing(folder: Path) -> tuple[int, int]:
    """The child that waits before it writes, and at which step it was forked."""
    wait_until((folder / "writing").exists)
    child, step = (folder / "writing").read_text().split()
    (folder / "writing").unlink()
    return int(child), int(step)


def newest(folder: Path) -> dict[str, Any]:
    files = (folder / ".ipyrescue" / "snapshots").glob("*.json")
    manifests: list[dict[str, Any]] = [json.loads(file.read_text("utf-8").splitlines()[1]) for file in files]
    return max(manifests, key=lambda manifest: manifest["sequence"])


def end_of_cell(kernel: Kernel) -> str:
    """What a cell that was begun printed until it ended."""
    said = ""
    while True:
        message = kernel.client.get_iopub_msg(timeout=REPLY_SECONDS)
        said += str(message["content"].get("text", ""))
        if message["content"].get("execution_state") == "idle" and message["parent_header"]["msg_type"] == (
            "execute_request"
        ):
            return said


@pytest.mark.parametrize("writer", WRITERS)
def test_no_snapshot_of_a_training_loop_is_torn(
    make_kernel: MakeKernel, tmp_path: Path, writer: dict[str, str]
) -> None:
    """At whatever instant one falls due, it holds whole iterations: at the top of a cell, and in a function of one."""
    first = make_kernel(**UNSTRETCHED, **writer)
    first.run("%load_ext ipyrescue")
    first.run(TRAINING)
    first.run("%checkpoint_vars model opt every=0.1s keep=100")
    first.begin(LOOP)
    wait_for_snapshots(tmp_path, 7)
    (tmp_path / "stop").touch()
    assert end_of_cell(first) == ""
    first.begin(FUNCTION)
    wait_for_snapshots(tmp_path, 3)
    first.kill()

    second = make_kernel(**UNSTRETCHED, **writer)
    second.run("%load_ext ipyrescue")
    second.run(DIGEST)
    second.run(CHECK)
    assert second.value("torn") == []
    assert second.value("[step for step in steps if step == 0]") == []
    assert second.value("cuts.get('boundary', 0)") >= 6
    assert set(second.value("cuts")) == {"boundary"}
    second.run("%restore_vars")
    second.run(FRAMES)
    assert second.value("(frame.function, sealed, frame.locals['shared'] is model)") == ("train", True, True)
    assert second.value("next(iter(frame.locals['local'].param_groups[0]['params'])) is next(model.parameters())")
    (tmp_path / "stop").unlink()
    second.run(NO_MEMORY)
    second.begin(LOOP)
    wait_for_snapshots(tmp_path, 2)  # armed again, inside cells
    (tmp_path / "stop").touch()
    assert end_of_cell(second) == ""
    told = second.run("%checkpoint_vars --status").text
    assert "written while your code waited: its copy needs" in told
    assert "Written by the kernel itself, while your code waits." in told
    second.run(CHECK)
    assert second.value("torn") == []


@ON_LINUX
def test_kernel_and_child_die_in_every_order(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """A child that is killed costs one attempt; one that outlives its kernel ends its work; with both, one snapshot."""
    first = make_kernel(**UNSTRETCHED)
    first.run("%load_ext ipyrescue")
    first.run(GATED)
    first.run("step, kept = 0, [1, 2]\n%checkpoint_vars every=0.2s keep=99")
    first.begin(COUNTING)
    child, _ = writing(tmp_path)
    os.kill(child, signal.SIGKILL)
    (tmp_path / "open").touch()
    wait_for_snapshots(tmp_path, 2)
    (tmp_path / "stop").touch()
    said = end_of_cell(first)
    assert said.count("NOT saved") == said.count("Saving works again") == 1
    assert "the process that wrote it was killed (SIGKILL). Your program goes on" in said

    first.run("get_ipython()._ipyrescue.drain()", store_history=False)
    for name in ("open", "stop", "writing"):
        (tmp_path / name).unlink()
    first.begin(COUNTING)
    child, step = writing(tmp_path)
    before = snapshots(tmp_path)
    first.kill()
    assert psutil.pid_exists(child)
    assert snapshots(tmp_path) == before
    second = make_kernel(**UNSTRETCHED)
    assert "Python is still writing" not in second.run("%load_ext ipyrescue").text
    (tmp_path / "open").touch()
    second.run("%restore_vars")
    assert second.value("(step, kept)") == (step, [1, 2])

    (tmp_path / "open").unlink()
    (tmp_path / "writing").unlink(missing_ok=True)
    second.run(GATED)
    second.begin(COUNTING)
    child, _ = writing(tmp_path)
    second.kill()
    os.kill(child, signal.SIGKILL)
    third = make_kernel()
    third.run("%load_ext ipyrescue")
    third.run("%restore_vars")
    assert third.value("step") >= step
    third.run("import ipyrescue\nfor s in ipyrescue.snapshots(): ipyrescue.restore(s.id, into={})")


@ON_LINUX
def test_hostile_objects_are_left_out_while_the_cell_goes_on(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """One hangs, one kills its process, one ends it: none costs the cell a moment, or the other names a snapshot."""
    kernel = make_kernel(**UNSTRETCHED, IPYRESCUE_PICKLE_DEADLINE="3s", IPYRESCUE_WRITER="process")
    kernel.run("%load_ext ipyrescue")
    kernel.run(HOSTILE)
    kernel.run("from ipyrescue.kernel.extension import recorder_of\nimport ipyrescue")
    kernel.run("%checkpoint_vars every=0.2s keep=99")
    (tmp_path / "asleep").unlink()
    kernel.run("recorder_of(get_ipython()).notebook.fence.denied.clear()")
    kernel.begin(COUNTING_ALOUD)
    wait_until((tmp_path / "asleep").exists)
    before, at = snapshots(tmp_path), int((tmp_path / "step").read_text())
    wait_until(lambda: int((tmp_path / "step").read_text()) > at + 50)
    assert snapshots(tmp_path) == before, "the child still waits for the object that hangs"
    wait_for_snapshots(tmp_path, 3)
    (tmp_path / "stop").touch()
    assert end_of_cell(kernel) == ""

    assert (tmp_path / "asleep").read_text() == "x", "what one child has learned the next ones know"
    skipped = {one["name"]: one["reason"] for one in newest(tmp_path)["skipped"]}
    assert {name: skipped[name].split("pickling ")[1] for name in ("hangs", "dies", "exits")} == {
        "hangs": "did not end within 3 s",
        "dies": "crashes the process (SIGKILL)",
        "exits": "ends the process (exit status 0)",
    }
    assert {"step", "Hangs"} <= set(kernel.value("ipyrescue.restore(into={}).names"))


@pytest.mark.parametrize("writer", WRITERS)
def test_every_end_of_a_cell_and_of_a_kernel_is_saved(
    make_kernel: MakeKernel, tmp_path: Path, writer: dict[str, str]
) -> None:
    """Ctrl-C, `%unload_ext`, SIGTERM, a shutdown of an idle kernel; beside 50 MB and 200 000 objects at rest."""
    first = make_kernel(**UNSTRETCHED, **writer)
    first.run(STATE + AT_REST)
    first.run("%load_ext ipyrescue")
    first.run("step, (array, rows) = 0, rest()\n%checkpoint_vars every=0.3s keep=99")
    first.begin(COUNTING)
    wait_for_snapshots(tmp_path, 2)
    first.manager.interrupt_kernel()
    end_of_cell(first)
    first.run("%unload_ext ipyrescue")
    made = newest(tmp_path)
    assert (made["trigger"], made["cut"], made["reason"]) == ("exception", "interrupted", "KeyboardInterrupt")
    assert first.value("[i for i, (a, b) in enumerate(zip(state(), sys.before)) if a != b]") == []

    first.run("%load_ext ipyrescue\n%checkpoint_vars every=0.3s keep=99")
    first.begin(COUNTING)
    wait_for_snapshots(tmp_path, 1)
    os.kill(first.pid, signal.SIGTERM)
    assert first.manager.provisioner.process.wait() == -signal.SIGTERM  # type: ignore[union-attr]
    first.close()

    second = make_kernel(**UNSTRETCHED, **writer)
    second.run("%load_ext ipyrescue")
    told = second.run("%restore_vars").text
    made = newest(tmp_path)
    assert (made["trigger"], made["cut"], made["reason"]) == ("signal", "interrupted", "SIGTERM")
    assert f"A newer snapshot, {made['id'][:8]}, was cut in the middle of a step (SIGTERM)" in told
    second.run(AT_REST)
    assert second.value("((array == rest()[0]).all().item(), rows == rest()[1])") == (True, True)

    second.run("%checkpoint_vars every=1h")
    second.run("unsaved = 1")
    second.shut_down()
    wait_until(lambda: newest(tmp_path)["trigger"] == "shutdown")  # a child may still be writing it
    made = newest(tmp_path)
    assert "unsaved" in [variable["name"] for variable in made["variables"]]


SHAPES = {
    "line": "%%time\n" + COUNTING,
    "await": "import asyncio\nwhile not Path('stop').exists():\n    step += 1\n    await asyncio.sleep(0.001)",
}
BESIDE = """
import threading
counts = {"begun": 0, "ended": 0}
def work():
    while not Path("stop").exists():
        counts["begun"] += 1
        counts["ended"] += 1
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive():
    thread.join(0.001)
"""


def test_cells_of_all_shapes_are_saved(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Below a cell magic, at an await, and while a thread of the user goes on: it is left alone."""
    kernel = make_kernel(**UNSTRETCHED)
    kernel.run("%load_ext ipyrescue")
    kernel.run("import ipyrescue, time\nfrom pathlib import Path\nstep = 0\n%checkpoint_vars every=0.1s keep=99")
    for cut, source in SHAPES.items():
        (tmp_path / "stop").unlink(missing_ok=True)
        kernel.begin(source)
        wait_for_snapshots(tmp_path, 3)
        assert newest(tmp_path)["cut"] == cut
        (tmp_path / "stop").touch()
        end_of_cell(kernel)

    (tmp_path / "stop").unlink()
    kernel.begin(BESIDE)
    wait_for_snapshots(tmp_path, 3)
    (tmp_path / "stop").touch()
    assert end_of_cell(kernel) == ""
    assert kernel.value("counts['begun'] == counts['ended'] > 0")
    kernel.run("for s in ipyrescue.snapshots(): ipyrescue.restore(s.id, into={})")
