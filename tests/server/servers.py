"""A Jupyter server as its users meet it: REST requests, kernels that run cells and die, events."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from tornado.httpclient import HTTPClientError

from ipyrescue.server.offers import SCHEMA_ID
from ipyrescue.server.restarts import KERNEL_ACTIONS

REPLY_SECONDS = 60.0


@dataclass
class Opened:
    """A notebook with its kernel, as a front end has it open."""

    server: Server
    path: str
    session_id: str
    kernel_id: str
    _client: Any = None

    @property
    def kernel(self) -> Any:
        return self.server.app.kernel_manager.get_kernel(self.kernel_id)

    @property
    def pid(self) -> int:
        return self.kernel.provisioner.process.pid

    async def client(self) -> Any:
        """The client of this kernel, when the process that runs now is ready to run cells.

        One for all of its processes: a second one of the same session would get no replies.
        """
        if self._client is None:
            self._client = self.kernel.client()
            self._client.start_channels()
        await self._client.wait_for_ready(timeout=REPLY_SECONDS)
        return self._client

    async def run(self, *cells: str, cell_ids: Sequence[str] = ()) -> str:
        """Run cells to their end, named as a front end names them; return what they showed."""
        shown: list[str] = []

        def collect(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("data", {}).get("text/plain") or "")
            assert message["msg_type"] != "error", content["evalue"]

        client = await self.client()
        for cell, cell_id in itertools.zip_longest(cells, cell_ids):
            with _named(client, cell_id):
                await client.execute_interactive(cell, timeout=REPLY_SECONDS, output_hook=collect, allow_stdin=False)
        return "".join(shown)

    async def begin(self, cell: str) -> None:
        """Start a cell and do not wait for it."""
        (await self.client()).execute(cell)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        if self._client is not None:
            self._client.stop_channels()


class Server:
    """The server of a test."""

    def __init__(self, app: Any, fetch: Any, root: Path) -> None:
        self.app = app
        self.root = root
        self._fetch = fetch
        self.opened: list[Opened] = []
        self._offers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._actions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        app.event_logger.add_listener(schema_id=SCHEMA_ID, listener=self._on_offer)
        app.event_logger.add_listener(schema_id=KERNEL_ACTIONS, listener=self._on_action)

    async def _on_offer(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        self._offers.put_nowait(data)

    async def _on_action(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        self._actions.put_nowait(data)

    async def announced(self) -> dict[str, Any]:
        """The next offer that the event bus brings."""
        return await asyncio.wait_for(self._offers.get(), REPLY_SECONDS)

    async def action(self, kind: str) -> dict[str, Any]:
        """The next kernel action of a kind that the event bus brings."""
        while True:
            data = await asyncio.wait_for(self._actions.get(), REPLY_SECONDS)
            if data["action"] == kind:
                return data

    def write_notebook(self, path: str, *cells: str) -> Path:
        """Put a notebook into the root folder, its cells with ids."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, file)
        return file

    def cell_ids(self, path: str) -> list[str]:
        """The ids of a notebook's cells."""
        return [cell["id"] for cell in nbformat.read(self.root / path, as_version=4).cells]

    async def open(self, path: str = "train.ipynb", kernel: str = "python3") -> Opened:
        """Open a notebook: start a session, and with it a kernel."""
        body = {"path": path, "name": path.rpartition("/")[2], "type": "notebook", "kernel": {"name": kernel}}
        session = await self.ask("POST", "api", "sessions", body=body)
        opened = Opened(self, path, session["id"], session["kernel"]["id"])
        self.opened.append(opened)
        return opened

    async def ask(self, method: str, *parts: str, body: Any = None, **query: str) -> Any:
        """One REST request; raises `HTTPClientError` for what is refused."""
        answer = await self._fetch(
            *parts,
            method=method,
            params=query,
            body=json.dumps(body) if body is not None else None,
            allow_nonstandard_methods=True,
        )
        return json.loads(answer.body) if answer.body else None

    async def get(self, *parts: str, **query: str) -> Any:
        """What the extension answers."""
        return await self.ask("GET", "ipyrescue", *parts, **query)

    async def offers(self, path: str = "train.ipynb") -> list[dict[str, Any]]:
        """What is offered to a notebook."""
        return (await self.get("offers", path=path))["offers"]

    async def refusal(self, method: str, *parts: str, **query: str) -> tuple[int, str]:
        """The status and the sentence of a request that is refused."""
        try:
            answer = await self.ask(method, "ipyrescue", *parts, **query)
        except HTTPClientError as error:
            return error.code, json.loads(error.response.body)["message"]
        raise AssertionError(f"not refused: {answer}")

    async def close(self) -> None:
        for opened in self.opened:
            opened.close()
        await self.app.kernel_manager.shutdown_all(now=True)


@contextmanager
def _named(client: Any, cell_id: str | None) -> Iterator[None]:
    """Let the client's requests say which cell they run, as JupyterLab's do."""
    plain = client.session.msg

    def msg(*arguments: Any, **keywords: Any) -> Any:
        return plain(*arguments, **{**keywords, "metadata": {"cellId": cell_id}})

    if cell_id is not None:
        client.session.msg = msg
    try:
        yield
    finally:
        client.session.msg = plain
