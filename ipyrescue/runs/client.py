"""nbclient, as a run needs it: outputs into a notebook that is saved while cells run, and nothing of a death lost.

nbclient executes the cells; here their streams are put together as a front end shows them, all is copied to the log,
and what was printed before the last message of a dead kernel is read before its death is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container
from functools import partial
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete, DeadKernelError

from ipyrescue.runs.kernel import Kernel
from ipyrescue.runs.streams import CellText

_ALIVE_SECONDS = 0.25
_SILENT_SECONDS = 0.3
_LATEST_SECONDS = 10.0
_REST_SECONDS = 1.5
_LATE = ("stream", "display_data", "execute_result", "update_display_data")

_SILENT = logging.getLogger("ipyrescue.runs.nbclient")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

Printed = Callable[[str, bytes], None]


class CellClient(NotebookClient):  # type: ignore[misc,unused-ignore]
    """Executes single cells of *notebook* in *kernel*; *changed* is called after each output."""

    def __init__(
        self, notebook: Any, kernel: Kernel, *, log_name: str, printed: Printed, changed: Callable[[], None]
    ) -> None:
        super().__init__(notebook, km=kernel.manager, timeout=None, record_timing=True, coalesce_streams=False)
        self.log = _SILENT  # what it would say, the record says
        self.kc = self._channels = kernel.client
        self._log_name = log_name
        self._printed = printed
        self._changed = changed
        self._texts: dict[int, CellText] = {}
        self._requests: dict[str, tuple[Any, int]] = {}
        self._heard_at = time.monotonic()

    def take_displays_of(self, other: CellClient | None, places: Container[int]) -> None:
        """Know the displays that a kernel before this one has shown in the cells at these *places*."""
        for name, shown in other._display_id_map.items() if other is not None else ():
            self._display_id_map[name] = {place: indices for place, indices in shown.items() if place in places}

    def settle(self) -> None:
        """Put into the notebook what streams show by now."""
        for text in self._texts.values():
            text.settle()

    async def read_the_rest(self, until: Callable[[], bool]) -> None:
        """Take what is still on its way from cells that have ended; a thread of theirs may print for ever."""
        deadline = time.monotonic() + _REST_SECONDS
        with contextlib.suppress(Exception):
            while time.monotonic() < deadline and not until():
                self._take_late(await self._channels.iopub_channel.get_msg(timeout=0.1))

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Take one message of the kernel."""
        self._heard_at = time.monotonic()
        self._requests[msg["parent_header"].get("msg_id")] = cell, cell_index
        result = super().process_message(msg, cell, cell_index)
        self._copy(msg)
        return result

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Add an output; a stream's text goes on where the last one ended."""
        if msg["msg_type"] != "stream" or self.output_hook_stack[msg["parent_header"].get("msg_id")]:
            return super().output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            outs[:] = []
            self.clear_display_id_mapping(cell_index)
            self.clear_before_next_output = False
        content = msg["content"]
        self._text_of(cell_index).add(outs, content["name"], content["text"], nbformat.NotebookNode)
        return None

    async def _async_poll_output_msg(self, parent_msg_id: str, cell: Any, cell_index: int) -> None:
        while True:
            msg = await self._channels.iopub_channel.get_msg(timeout=None)
            if msg["parent_header"].get("msg_id") != parent_msg_id:
                self._take_late(msg)
                continue
            try:
                self.process_message(msg, cell, cell_index)
            except CellExecutionComplete:
                return

    async def _async_poll_kernel_alive(self) -> None:
        while True:
            await asyncio.sleep(_ALIVE_SECONDS)
            try:
                await self._async_check_alive()
            except DeadKernelError:
                await self._until_silent()
                if self.task_poll_for_reply is not None:
                    self.task_poll_for_reply.cancel()
                return

    async def _until_silent(self) -> None:
        """Wait until all that a dead kernel has sent was read."""
        deadline = time.monotonic() + _LATEST_SECONDS
        self._heard_at = time.monotonic()
        while time.monotonic() < min(deadline, self._heard_at + _SILENT_SECONDS):
            await asyncio.sleep(_SILENT_SECONDS / 3)

    def _take_late(self, msg: dict[str, Any]) -> None:
        """A thread of a cell that has ended prints on: that belongs to its cell."""
        known = self._requests.get(msg["parent_header"].get("msg_id"))
        if known is not None and msg["msg_type"] in _LATE:
            self.process_message(msg, *known)

    def _text_of(self, cell_index: int) -> CellText:
        removed = partial(self._output_is_gone, cell_index)
        return self._texts.setdefault(cell_index, CellText(self._log_name, removed))

    def _output_is_gone(self, cell_index: int, place: int) -> None:
        """Display ids point at outputs by their places."""
        for places in self._display_id_map.values():
            if cell_index in places:
                places[cell_index] = [one - (one > place) for one in places[cell_index]]

    def _copy(self, msg: dict[str, Any]) -> None:
        """What a message shows as text, for the log."""
        content, kind = msg["content"], msg["msg_type"]
        if kind == "stream":
            self._tell(content["name"], content["text"])
        elif kind in ("execute_result", "display_data"):
            self._tell("stdout", str(content["data"].get("text/plain", "")) + "\n")
        elif kind == "error":
            self._tell("stderr", "\n".join(content["traceback"]) + "\n")
        if kind not in ("status", "execute_input"):
            self._changed()

    def _tell(self, stream: str, text: str) -> None:
        self._printed(stream, text.encode("utf-8", "surrogatepass"))
