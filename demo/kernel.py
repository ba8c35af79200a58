"""A real Jupyter kernel in a process of its own: cells to lines of output, as a notebook would show them."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

START_SECONDS = 60
SILENT_SECONDS = 120
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class KernelError(Exception):
    """A kernel did not start, did not answer, or a cell raised where it should not have."""


class Kernel:
    """The kernel of one notebook. It is killed when its `with` block ends, however that ends."""

    def __init__(self, notebook: Path) -> None:
        """Prepare a kernel for *notebook*, whose Jupyter and IPython keep their files in `home` beside it."""
        home = notebook.parent / "home"
        home.mkdir(exist_ok=True)
        self._folder = notebook.parent
        self._environment = {
            **os.environ,
            "JPY_SESSION_NAME": str(notebook),  # so Jupyter tells a kernel which notebook it serves
            "JUPYTER_DATA_DIR": str(home / "jupyter"),
            "IPYTHONDIR": str(home / "ipython"),
            "NO_COLOR": "1",
        }
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        # The kernel of this very Python, whatever kernels the user has installed.
        specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
        self._manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs, transport="ipc")
        self._manager.connection_file = os.path.join(self._sockets.name, "kernel.json")
        self._client: Any = None

    def __enter__(self) -> Kernel:
        try:
            self._manager.start_kernel(cwd=str(self._folder), env=self._environment)
            self._client = self._manager.blocking_client()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=START_SECONDS)
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):
                raise KernelError(f"The kernel did not start: {error}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The number of the kernel's process."""
        return int(self._manager.provisioner.pid)

    def kill(self) -> None:
        """Send SIGKILL: no handler runs, nothing is flushed, as when the out-of-memory killer comes."""
        os.kill(self.pid, signal.SIGKILL)
        while self._manager.is_alive():
            time.sleep(0.01)

    def close(self) -> None:
        """End the process, if it still lives, and the connection to it."""
        if self._client is not None:
            self._client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=True)
        self._sockets.cleanup()

    def run(self, cell: str, *, raises: str | None = None) -> Iterator[str]:
        """Run *cell* and yield its output line by line, as it comes.

        Raises `KernelError` if the cell raises anything but the exception called *raises*.
        """
        return self.output(self.begin(cell), raises=raises)

    def begin(self, cell: str) -> str:
        """Have the kernel run *cell* after those before it; return the name under which its output comes."""
        return str(self._client.execute(cell))

    def output(self, request: str, *, raises: str | None = None) -> Iterator[str]:
        """Yield what a cell that was begun prints, until it is done. Ask in the order of the cells."""
        partial = ""
        for kind, content in self._messages(request):
            *lines, partial = (partial + _text(kind, content)).split("\n")
            yield from lines
            if kind == "error" and content["ename"] != raises:
                raise KernelError(f"A cell raised {content['ename']}: {content['evalue']}")
        if partial:
            yield partial

    def _messages(self, request: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what the cell sends until the kernel is idle again."""
        silent_since = time.monotonic()
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except Empty:
                self._insist(silent_since)
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            silent_since, kind, content = time.monotonic(), message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                self._take_reply(request)
                return
            yield kind, content

    def _take_reply(self, request: str) -> None:
        """Wait for the reply too: ipykernel before 7.4 may never read a request that meets the last one's reply."""
        try:
            while self._client.get_shell_msg(timeout=SILENT_SECONDS)["parent_header"].get("msg_id") != request:
                pass
        except Empty:
            raise KernelError("A cell ended, but its kernel does not answer.") from None

    def _insist(self, silent_since: float) -> None:
        if not self._manager.is_alive():
            raise KernelError("The kernel died, and nobody had asked it to.")
        if time.monotonic() - silent_since > SILENT_SECONDS:
            raise KernelError(f"A cell said nothing for {SILENT_SECONDS} seconds.")


def _text(kind: str, content: dict[str, Any]) -> str:
    """Show a message as text: streams as they are, results and errors as lines of their own."""
    if kind == "stream":
        return _COLOUR.sub("", content["text"])
    if kind in ("execute_result", "display_data"):
        return content["data"].get("text/plain", "") + "\n"
    if kind == "error":
        return f"{content['ename']}: {content['evalue']}\n"
    return ""
