"""Runs without kernels: runners are real processes, and what they execute is the text of the file that they run.

A file `train.ipynb` of a test is Python. It sees `record`, `folder`, `say(**changes)`, which writes the record and
tells who watches, and `asked()`, which waits for a request to stop; `code` is what the runner ends with.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipyrescue.errors import RescueError
from ipyrescue.places import examining
from ipyrescue.runs import record as records
from ipyrescue.runs import registry, spawn
from ipyrescue.store import lives

STAND_IN = """
import dataclasses, os, pathlib, signal, sys, time, types

def execute(folder, watch=None, *, foreground):
    from ipyrescue.runs import record as records, stopping
    def say(**changes):
        names["record"] = dataclasses.replace(records.read(folder), **changes)
        records.write(folder, names["record"])
        if watch is not None:
            watch(names["record"])
    def asked():
        while stopping.requested(folder) is None:
            time.sleep(0.01)
        return stopping.requested(folder)
    names = dict(record=records.read(folder), folder=folder, say=say, asked=asked, code=0, foreground=foreground,
                 time=time, os=os, signal=signal, sys=sys)
    # Compiled before: a Ctrl-C out of an exec of text has Python end by SIGINT, whoever catches it.
    exec(compile(pathlib.Path(names["record"].source).read_text(), "run", "exec"), names)
    return names["code"]

runner = types.ModuleType("ipyrescue.runs.runner")
runner.execute = execute
sys.modules["ipyrescue.runs.runner"] = sys.modules["ipyrescue.runs.script"] = runner
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process and all that it starts execute files as above, with a registry of the test's own.

    Every runner that a test left is ended, with its group.
    """
    place = tmp_path / "stand-in"
    place.mkdir()
    (place / "sitecustomize.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep))
    module = types.ModuleType("stand_in")
    for name in ("ipyrescue.runs.runner", "ipyrescue.runs.script"):
        monkeypatch.setitem(sys.modules, name, module)
    exec(STAND_IN.partition("runner = ")[0], module.__dict__)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("IPYRESCUE_STORE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(examining, "at_start", lambda source, store: [])  # where the tests run is not what is tested
    yield
    end_all_runners()


@pytest.fixture
def notebook(stand_in: None) -> Callable[..., Path]:
    """Write a file of that name whose execution is *text*."""

    def write(text: str, name: str = "train.ipynb") -> Path:
        path = Path.cwd() / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def on_a_terminal(*command: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start *command* with a terminal of its own, and return it with our end of that; the caller closes it.

    Not by a fork of this process, which has threads.
    """
    ours, theirs = os.openpty()
    take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", take, *command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    return process, ours


def end_all_runners() -> None:
    """End the runners of every run that the registry knows."""
    for folder in registry.all_folders():
        with contextlib.suppress(RescueError):
            runner = records.read(folder).runner
            if runner is not None and runner.pid != os.getpid() and lives.process_state(runner) == "alive":
                with contextlib.suppress(OSError):
                    os.killpg(runner.pid, signal.SIGKILL)
    for process in spawn._started:
        process.wait()
    spawn._started.clear()
