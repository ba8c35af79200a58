"""Real Jupyter servers as users start them, JupyterLab or Notebook 7, each with a folder and kernels of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LISTENING = re.compile(r"(http://127\.0\.0\.1:\d+)/\S*token=")
TOKEN = "open-sesame"  # of a server on loopback that lives as long as a test
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
# The question whether news may be fetched is a notification too, and this is no test of it.
NO_NEWS = '{"fetchNews": "false", "checkForUpdates": false}'
NO_NEWS_FILE = "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"


class FrontEnd:
    """One server with the page of *kind*, `lab` or `notebook`, over the notebooks in *folder*."""

    def __init__(self, kind: str, folder: Path, home: Path) -> None:
        self.kind, self.folder = kind, folder
        self._log: list[str] = []
        self._listening = threading.Event()
        self._process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "jupyterlab" if kind == "lab" else "notebook"),
                *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
                *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"),
                "--KernelRestarter.time_to_dead=0.5",
            ],
            env=_environment_in(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(START_SECONDS), self.log

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return "".join(self._log)

    def write_notebook(self, name: str, *cells: str) -> None:
        """Put a notebook with these code *cells* into the folder."""
        made = [nbformat.v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(cells)]
        notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": KERNELSPEC})
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)

    def address(self, name: str) -> str:
        """Where a browser finds the notebook *name*."""
        place = "lab/tree" if self.kind == "lab" else "notebooks"
        return f"{self.url}/{place}/{name}?token={TOKEN}"

    def kill_kernel(self) -> None:
        """SIGKILL to the one kernel that runs, as from a terminal."""
        os.kill(self._kernel().pid, signal.SIGKILL)

    def wait_for_restart(self, died: int) -> None:
        """Wait until the server has put another kernel in the place of the one with the process id *died*."""
        waiting = threading.Event()
        for _ in range(600):
            if any(process.pid != died for process in self._kernels()):
                return
            waiting.wait(0.05)
        raise AssertionError(self.log)

    def kernel_pid(self) -> int:
        """The process id of the one kernel that runs."""
        return self._kernel().pid

    def stop(self) -> None:
        """End the server and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for process in [*self._kernels(), psutil.Process(self._process.pid)]:
                process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _kernel(self) -> psutil.Process:
        (kernel,) = self._kernels()
        return kernel

    def _kernels(self) -> list[psutil.Process]:
        children = psutil.Process(self._process.pid).children()
        return [child for child in children if _is_kernel(child)]

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            if found := LISTENING.search(line):
                self.url = found[1]
                self._listening.set()


@contextmanager
def front_end(kind: str, folder: Path) -> Iterator[FrontEnd]:
    """A front end over new folders in *folder*, gone at the end."""
    notebooks, home = folder / "notebooks", folder / "home"
    notebooks.mkdir()
    settings = home / "config" / NO_NEWS_FILE
    settings.parent.mkdir(parents=True)
    settings.write_text(NO_NEWS)
    started = FrontEnd(kind, notebooks, home)
    try:
        yield started
    finally:
        started.stop()


def _environment_in(home: Path) -> dict[str, str]:
    """Nothing of whoever runs the tests; the labextension comes from the environment's own share/."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_", "XDG_"))}
    return {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }


def _is_kernel(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any("kernel" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False
