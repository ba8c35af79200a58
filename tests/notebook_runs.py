"""Runs of notebooks in a test: written, run here or by a process of their own, looked at, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ipyrescue.runs import record as records
from ipyrescue.runs import runner, spawn, stopping
from ipyrescue.runs.record import Options, Record

PATIENCE_SECONDS = 60.0


class Run:
    """One run of a notebook of these *sources*; each call of `here` or `apart` is one runner of it."""

    def __init__(self, folder: Path, sources: Sequence[str], *, in_place: bool = False, **options: Any) -> None:
        self.source = folder / "train.ipynb"
        self.pauses: list[float] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self.write(sources)
        options.setdefault("every_seconds", 300.0)
        self.folder = spawn.folder_of(spawn.begin(self.source, Options(**options), in_place=in_place))

    # --- the notebook -----------------------------------------------------------------------------------------------

    def write(self, sources: Sequence[str], tags: dict[int, str] | None = None) -> None:
        """Write or edit the notebook; *tags* are those of cells, by their places."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        for place, tag in (tags or {}).items():
            cells[place].metadata["tags"] = [tag]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.source)

    @property
    def output(self) -> Any:
        """The output notebook, which is valid."""
        notebook = nbformat.read(self.source.with_suffix(".run.ipynb"), as_version=4)
        nbformat.validate(notebook)
        return notebook

    def text(self, cell: int) -> str:
        """What a cell (from 1) shows in the output notebook."""
        return shown(self.output.cells[cell - 1])

    # --- its runners ------------------------------------------------------------------------------------------------

    def here(self) -> int:
        """Run in this process, without pauses between attempts; return the exit code."""

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        return runner.execute(self.folder, foreground=False, sleep=sleep)

    def resume(self) -> int:
        """Go on in this process."""
        spawn.prepare_resume(self.folder)
        return self.here()

    def apart(self) -> subprocess.Popen[bytes]:
        """Run in a process of its own, in a session of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ipyrescue.runs", str(self.folder)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def resume_apart(self) -> subprocess.Popen[bytes]:
        """Go on in a process of its own."""
        spawn.prepare_resume(self.folder)
        return self.apart()

    def stop(self, *, now: bool = False) -> None:
        """Ask for an end."""
        stopping.request(self.folder, now=now)

    @property
    def record(self) -> Record:
        """What the runner says."""
        return records.read(self.folder)

    @property
    def log(self) -> str:
        """All that the log says."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def clean_up(self) -> None:
        """Leave no process."""
        with contextlib.suppress(Exception):
            spawn.end_process(self.record.kernel)
        for process in self._processes:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def shown(cell: Any) -> str:
    """Streams, results and errors of a cell as text."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type == "error":
            parts.append(f"{output.ename}: {output.evalue}\n")
        else:
            parts.append(output.data.get("text/plain", "") + "\n")
    return "".join(parts)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for an event, however long that takes here."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
