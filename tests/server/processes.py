"""Jupyter servers as processes of their own, as `jupyter server` starts them, and kernels driven past them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient
from tornado.testing import bind_unused_port

TOKEN = "letmein"
REPLY_SECONDS = 60.0

_AUDITED = """
import json, sys
found = []
sys.addaudithook(lambda event, arguments: found.append(str(arguments)) if event == "pickle.find_class" else None)
from jupyter_server.serverapp import main
try:
    main()
finally:
    print("AUDIT " + json.dumps({"modules": sorted(sys.modules), "unpickled": found}), file=sys.stderr)
"""


class ServerProcess:
    """A server over *root*; ready when made."""

    def __init__(
        self, root: Path, *arguments: str, base_url: str = "/", extension: bool = True, **environ: str
    ) -> None:
        socket, port = bind_unused_port()
        socket.close()
        self.address = f"http://127.0.0.1:{port}{base_url}"
        enabled = json.dumps({"ServerApp": {"jpserver_extensions": {"ipyrescue.server": extension}}})
        folder = root.parent / f"config-{port}" / "jupyter_server_config.d"
        folder.mkdir(parents=True)
        (folder / "ours.json").write_text(enabled)
        environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder.parent), **environ}
        self.runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
        command = [
            sys.executable, "-c", _AUDITED, "--no-browser", "--allow-root",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={base_url}",
            f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.allow_unauthenticated_access=False", "--KernelRestarter.time_to_dead=0.3",
            "--KernelRestarter.random_ports_until_alive=False", *arguments,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1)
        self.log: list[str] = []
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        """It says so a moment before it does."""
        self.wait_for_log("is running at:")
        deadline = time.monotonic() + REPLY_SECONDS
        while True:
            try:
                self.ask("GET", "api")
                return
            except urllib.error.URLError:
                assert time.monotonic() < deadline, "".join(self.log)

    def wait_for_log(self, text: str) -> None:
        """Read the log up to a line that holds *text*."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if text in line:
                return
        raise AssertionError("".join(self.log))

    def ask(self, method: str, where: str, /, body: Any = None, **query: str) -> Any:
        """One REST request; raises `HTTPError` for what is refused."""
        query_text = f"?{urllib.parse.urlencode(query)}" if query else ""
        request = urllib.request.Request(
            f"{self.address}{where}{query_text}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=REPLY_SECONDS) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def get(self, where: str, /, **query: str) -> Any:
        """What the extension answers."""
        return self.ask("GET", f"ipyrescue/{where}", **query)

    def open(self, path: str) -> dict[str, Any]:
        """Start a session of a notebook, and with it a kernel."""
        body = {"path": path, "name": path.rpartition("/")[2], "type": "notebook", "kernel": {"name": "python3"}}
        return self.ask("POST", "api/sessions", body)

    def kill(self) -> None:
        """SIGKILL, as a machine that runs out of memory does it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> dict[str, Any]:
        """End it politely; return what it had loaded and unpickled."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_for_log("AUDIT ")
        self.process.wait()
        return json.loads(self.log[-1].partition("AUDIT ")[2])

    def close(self) -> None:
        self.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def client_of(runtime: Path, kernel_id: str) -> Iterator[BlockingKernelClient]:
    """A client of a kernel of whichever server, by its connection file."""
    client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel_id}.json"))
    client.load_connection_file()
    client.start_channels(hb=False)  # a heart that misses a beat on a busy machine would pass for dead
    try:
        client.wait_for_ready(timeout=REPLY_SECONDS)
        yield client
    finally:
        client.stop_channels()


def run(runtime: Path, kernel_id: str, *cells: str) -> str:
    """Run cells to their end; return what they showed."""
    shown: list[str] = []

    def collect(message: dict[str, Any]) -> None:
        content = message["content"]
        assert message["msg_type"] != "error", content["evalue"]
        shown.append(content.get("text") or content.get("data", {}).get("text/plain") or "")

    with client_of(runtime, kernel_id) as client:
        for cell in cells:
            client.execute_interactive(cell, timeout=REPLY_SECONDS, output_hook=collect, allow_stdin=False)
    return "".join(shown)
