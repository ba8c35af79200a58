"""Processes that run a script: each is a fork of one that has imported torch, which takes longer than most tests.

    python scripts.py          reads lines of JSON {"script", "environ"}, forks for each, and says pid and exit status

The child runs the script as `python SCRIPT` would: in a `__main__` of its own, to the end of the interpreter.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 60.0


class Scripts:
    """Starts scripts in *folder*, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mother = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    def start(self, script: str, **environ: str) -> Run:
        """Start a script that lies in the folder."""
        order = {"script": str(self.folder / script), "output": str(self.folder / "output"), "environ": environ}
        assert self._mother.stdin is not None
        self._mother.stdin.write(json.dumps(order) + "\n")
        self._mother.stdin.flush()
        return Run(self, int(self.answer()))

    def run(self, script: str, **environ: str) -> Run:
        """Run a script to its end, which is to be a good one."""
        run = self.start(script, **environ)
        assert run.status == 0, run.output
        return run

    def answer(self) -> str:
        """What the mother process says next."""
        assert self._mother.stdout is not None
        return self._mother.stdout.readline()

    def output(self) -> str:
        """What the last script has printed so far, errors too."""
        return (self.folder / "output").read_text(encoding="utf-8")

    def close(self) -> None:
        """End the mother process."""
        self._mother.kill()
        self._mother.communicate()


class Run:
    """One run of a script."""

    def __init__(self, scripts: Scripts, pid: int) -> None:
        self._scripts = scripts
        self._status: int | None = None
        self.pid = pid

    def kill_when(self, happened: Callable[[], Any], number: int) -> int:
        """Send signal *number* as soon as something has *happened*; return the exit status."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            alive = os.path.exists(f"/proc/{self.pid}") or sys.platform != "linux"
            assert alive, self._scripts.output()
            assert time.monotonic() < deadline, self._scripts.output()
            time.sleep(LOOK_SECONDS)
        os.kill(self.pid, number)
        return self.status

    @property
    def status(self) -> int:
        """The exit status, negative for a signal; waits for it."""
        if self._status is None:
            self._status = int(self._scripts.answer())
        return self._status

    @property
    def output(self) -> str:
        """What it printed."""
        assert self.status is not None
        return self._scripts.output()


@contextlib.contextmanager
def scripts(folder: Path) -> Iterator[Scripts]:
    """A mother process for as long as the context lasts."""
    made = Scripts(folder)
    try:
        yield made
    finally:
        made.close()


# --- the mother process -----------------------------------------------------------------------------------------


def serve() -> tuple[str, dict[str, Any]] | None:
    """Fork for each order, and wait. In the child return the text of the script and its namespace."""
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
        torch.nn.Linear(2, 2)(torch.randn(2, 2)).sum().backward()
        torch.optim.AdamW([torch.zeros(1)])  # imports what torch puts off until then
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            return become(order)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def become(order: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(0)
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    os.environ.update(order["environ"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main = types.ModuleType("__main__")
    main.__file__ = order["script"]
    sys.modules["__main__"], sys.argv[:] = main, [order["script"]]
    return Path(order["script"]).read_text(encoding="utf-8"), vars(main)


if __name__ == "__main__":
    born = serve()
    if born is not None:
        exec(compile(born[0], born[1]["__file__"], "exec"), born[1])
