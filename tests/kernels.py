"""Real ipykernels, as a notebook's front end drives them, and their death by SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_runtime_dir

REPLY_SECONDS = 120.0


class CellError(Exception):
    """A cell raised; the message is its last line."""


@dataclass
class Output:
    """What a cell showed: its streams, its displayed data, and its error."""

    stdout: str = ""
    stderr: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        shown = "\n".join(str(d.get("text/plain", "")) for d in self.data)
        return f"{self.stdout}{self.stderr}{shown}"


class Kernel:
    """One kernel process serving *notebook*; `run` is what pressing Shift-Enter does."""

    def __init__(self, notebook: Path | None, folder: Path, **environ: str) -> None:
        file = Path(jupyter_runtime_dir()) / f"kernel-{uuid4()}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        self.manager = KernelManager(kernel_name="python3", connection_file=str(file))
        environment = {**os.environ, **environ}
        environment.pop("JPY_SESSION_NAME", None)
        if notebook is not None:
            environment["JPY_SESSION_NAME"] = str(notebook)
        self.run_environment = environment
        self.manager.start_kernel(
            cwd=str(folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=REPLY_SECONDS)
        self.pid: int = self.manager.provisioner.process.pid  # type: ignore[union-attr]

    def run(self, source: str, *, store_history: bool = True, silent: bool = False) -> Output:
        """Run a cell to its end; raise `CellError` if it raised."""
        output = self.try_run(source, store_history=store_history, silent=silent)
        if output.error is not None:
            raise CellError(output.error)
        return output

    def try_run(self, source: str, *, store_history: bool = True, silent: bool = False) -> Output:
        """Run a cell to its end, whatever it raises."""
        output = Output()
        self.client.execute_interactive(
            source,
            store_history=store_history,
            silent=silent,
            allow_stdin=False,
            timeout=REPLY_SECONDS,
            output_hook=lambda message: _collect(message, output),
        )
        return output

    def begin(self, source: str) -> None:
        """Start a cell and do not wait for it."""
        self.client.execute(source)

    def wait_for_output(self, text: str) -> None:
        """Wait until a running cell has printed *text*."""
        seen, deadline = "", time.monotonic() + REPLY_SECONDS
        while text not in seen:
            assert time.monotonic() < deadline, seen
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            seen += str(message["content"].get("text", ""))

    def value(self, expression: str) -> Any:
        """Evaluate an expression whose repr is a literal."""
        import ast

        output = self.run(f"print(repr({expression}))", store_history=False)
        return ast.literal_eval(output.stdout.strip())

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.manager.provisioner.process.wait()  # type: ignore[union-attr]
        self.close()

    def shut_down(self) -> None:
        """End as a front end ends a kernel: politely."""
        self.manager.shutdown_kernel()
        self.client.stop_channels()

    def close(self) -> None:
        """End in whatever state; for clean-up."""
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@contextmanager
def kernels(folder: Path, name: str | None = "train.ipynb") -> Iterator[Callable[..., Kernel]]:
    """A maker of kernels for one notebook, each of them gone at the end."""
    made: list[Kernel] = []

    def make(notebook: str | None = name, **environ: str) -> Kernel:
        made.append(Kernel(folder / notebook if notebook else None, folder, **environ))
        return made[-1]

    try:
        yield make
    finally:
        for kernel in made:
            kernel.close()


def _collect(message: dict[str, Any], output: Output) -> None:
    content, kind = message["content"], message["msg_type"]
    if kind == "stream" and content["name"] == "stdout":
        output.stdout += content["text"]
    elif kind == "stream":
        output.stderr += content["text"]
    elif kind in ("execute_result", "display_data"):
        output.data.append(content["data"])
    elif kind == "error":
        output.error = f"{content['ename']}: {content['evalue']}"
