"""A server's kernels, watched: what their restarter and the event bus say into announcements.

Nothing here may raise into the restarter, nor keep it waiting for long. Where there is no restarter, as behind a
gateway, nothing is seen, and what kernels note themselves must do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import subprocess
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ipyrescue.errors import RescueError
from ipyrescue.incarnations import witness
from ipyrescue.incarnations.witness import End, Process
from ipyrescue.manifest import Snapshot
from ipyrescue.server import notebooks, offers
from ipyrescue.server.notebooks import Notebook
from ipyrescue.server.offers import Announcement, Board
from ipyrescue.server.sessions import Sessions
from ipyrescue.server.stores import Stores
from ipyrescue.store.lives import Life

KERNEL_ACTIONS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"
RECORD_SECONDS = 2.0
"""How long a restart may wait until the death stands on record, where the disk is slow."""

LEAVE_SECONDS = 2.0
"""How long a server that ends waits for the last threads of a kernel that is dying."""


@dataclass(frozen=True)
class Seen:
    """The end of a kernel, whose it was, and its record if it kept one. *clean*: it said goodbye."""

    end: End
    notebook: Notebook
    life: Life | None
    clean: bool

    @property
    def while_starting(self) -> bool:
        """Whether this was a new process that died before it had anything to lose."""
        return self.life is None and self.end.restarts > 1


class Watch:
    """Follows every Python kernel of a server. *tell* gets each new announcement, on the event loop."""

    def __init__(
        self,
        kernel_manager: Any,
        contents_manager: Any,
        sessions: Sessions,
        stores: Stores,
        board: Board,
        tell: Callable[[Announcement], None],
        log: Logger,
    ) -> None:
        self._kernel_manager = kernel_manager
        self._contents_manager = contents_manager
        self._sessions = sessions
        self._stores = stores
        self._board = board
        self._tell = tell
        self._log = log
        self._followed: WeakSet[Any] = WeakSet()
        self._processes: dict[str, Process] = {}
        self._deaths: dict[str, Future[Seen | None]] = {}
        self._last_deaths: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ipyrescue-witness")

    def process(self, kernel_id: str) -> Process:
        """The process of a kernel that runs, as far as it is known."""
        return self._processes.get(kernel_id) or Process(kernel_id, None, None, None)

    def stop(self) -> None:
        """See who is dead already, of what ends the server too perhaps, and write down nothing more.

        The server shuts its kernels down after this, also what it began to put in the place of those; with that they
        would pass for ended by their user.
        """
        for kernel_id in tuple(self._processes):
            kernel = self._kernel(kernel_id)
            if kernel is not None and _has_ended(kernel):
                self._guarded(self._on_death, kernel_id, kernel)
        self._last_deaths = frozenset(self._deaths)
        self._writer.shutdown(wait=False, cancel_futures=True)

    async def on_kernel_action(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        """Hear of a kernel that was started, restarted or shut down, by whomever."""
        kernel_id, action = data.get("kernel_id"), data.get("action")
        if kernel_id in self._last_deaths:
            return
        if data.get("status") != "success" or kernel_id is None:
            return
        try:
            self._sessions.look()
            if action == "start":
                self._follow(kernel_id)
            elif action == "restart":
                await self._restarted(kernel_id)
            elif action == "shutdown":
                await self._shut_down(kernel_id)
        except Exception:  # noqa: BLE001 - a hook: the server's other listeners and its kernels go on
            self._log.warning("ipyrescue could not follow kernel %s.", kernel_id, exc_info=True)

    def _follow(self, kernel_id: str) -> None:
        kernel = self._kernel(kernel_id)
        if kernel is None or not _speaks_python(kernel):
            return
        self._processes[kernel_id] = Process.seen_now(kernel_id, _pid(kernel))
        if kernel not in self._followed:
            self._followed.add(kernel)
            kernel.add_restart_callback(lambda: self._guarded(self._on_death, kernel_id, kernel), "restart")
            kernel.add_restart_callback(lambda: self._guarded(self._on_given_up, kernel_id, kernel), "dead")

    def _kernel(self, kernel_id: str) -> Any:
        return self._kernel_manager.get_kernel(kernel_id) if kernel_id in self._kernel_manager else None

    def _guarded(self, callback: Callable[[str, Any], None], kernel_id: str, kernel: Any) -> None:
        try:
            callback(kernel_id, kernel)
        except Exception:  # noqa: BLE001 - a hook: whatever is wrong here, the restarter restarts
            self._log.warning("ipyrescue could not note the death of kernel %s.", kernel_id, exc_info=True)

    def _on_death(self, kernel_id: str, kernel: Any) -> None:
        """The process is gone and the next not made yet: put on record what is known of it."""
        future = self._writer.submit(self._see, *self._end(kernel_id, kernel))
        # Where a restart failed, the first death is the one that lost something.
        self._deaths.setdefault(kernel_id, future)
        with contextlib.suppress(NotYetError):
            future.result(RECORD_SECONDS)

    def _on_given_up(self, kernel_id: str, kernel: Any) -> None:
        """The last process is gone too, and there will be no next."""
        end, path = self._end(kernel_id, kernel)
        future = self._writer.submit(self._see, end, path)
        self._sessions.forget(kernel_id)
        self._processes.pop(kernel_id, None)
        self._later(self._given_up(kernel_id, future, end.restarts - 1))

    def _end(self, kernel_id: str, kernel: Any) -> tuple[End, str | None]:
        process = self._processes.get(kernel_id) or Process.seen_now(kernel_id, _pid(kernel))
        return End.seen_now(process, _exit_code(kernel), _deaths_in_a_row(kernel)), self._sessions.path_of(kernel_id)

    def _see(self, end: End, path: str | None) -> Seen | None:
        """Off the event loop: find whose death it was, and attest."""
        notebook = notebooks.locate(self._contents_manager, path) if path is not None else None
        if notebook is None:
            return None
        life = witness.attest(notebook.store_root, end)
        clean = life is None and (end.exit_code == 0 or witness.ended_cleanly(notebook.store_root, end.process))
        return Seen(end, notebook, life, clean)

    async def _restarted(self, kernel_id: str) -> None:
        before = self._processes.get(kernel_id)
        self._follow(kernel_id)
        death = self._deaths.pop(kernel_id, None)
        if death is None:
            await self._ended_by_request(kernel_id, before, "restart")
            return
        seen = await asyncio.wrap_future(death)
        if seen is not None and not seen.clean and not seen.while_starting:
            self._announce(await asyncio.to_thread(self._announcement, seen, kernel_id))

    async def _given_up(self, kernel_id: str, last: Future[Seen | None], failed_starts: int) -> None:
        self._deaths.pop(kernel_id, None)
        seen = await asyncio.wrap_future(last)
        if seen is None:
            return
        announced = self._board.kept(seen.notebook.path, kernel_id) if seen.while_starting else None
        if announced is None:
            announced = await asyncio.to_thread(self._announcement, seen, kernel_id)
        self._board.drop(announced)
        self._announce(dataclasses.replace(announced, state="dead", kernel_id=None, failed_starts=failed_starts))

    async def _shut_down(self, kernel_id: str) -> None:
        death = self._deaths.pop(kernel_id, None)
        if death is not None:
            await asyncio.wait([asyncio.wrap_future(death)])
        await self._ended_by_request(kernel_id, self._processes.pop(kernel_id, None), "shutdown")
        self._sessions.forget(kernel_id)

    async def _ended_by_request(self, kernel_id: str, process: Process | None, how: str) -> None:
        path = self._sessions.path_of(kernel_id)
        if process is None or path is None:
            return
        notebook = notebooks.locate(self._contents_manager, path)
        if notebook is not None:
            await asyncio.to_thread(witness.end_by_request, notebook.store_root, process, how)
        kept = self._board.kept(path, kernel_id)
        if kept is not None and not kept.recorded:
            self._board.drop(kept)

    def _announcement(self, seen: Seen, kernel_id: str) -> Announcement:
        try:
            snapshots: list[Snapshot] = self._stores.snapshots(seen.notebook.store_root)
        except RescueError as error:
            self._log.warning("ipyrescue: the snapshots of %s are out of reach. %s", seen.notebook.path, error)
            snapshots = []
        if seen.life is not None:
            return offers.of_record(seen.notebook, seen.life, snapshots, kernel_id)
        return offers.without_record(seen.notebook, seen.end, snapshots, kernel_id)

    def _announce(self, announcement: Announcement) -> None:
        if offers.is_silenced(announcement.offer):
            return
        self._board.keep(announcement)
        self._tell(announcement)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on outside of the restarter's callback."""
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - nobody awaits this task
            self._log.warning("ipyrescue could not tell of a kernel that is dead.", exc_info=True)


def _speaks_python(kernel: Any) -> bool:
    try:
        return bool(kernel.kernel_spec.language.lower() == "python")
    except (KeyError, AttributeError):  # a gateway's kernel: its specification is not here
        return False


def _pid(kernel: Any) -> int | None:
    return getattr(kernel.provisioner, "pid", None)


def _exit_code(kernel: Any) -> int | None:
    return getattr(getattr(kernel.provisioner, "process", None), "returncode", None)


def _has_ended(kernel: Any) -> bool:
    """Whether its process is gone; one whose first thread is dead already is waited for, since the others follow."""
    process = getattr(kernel.provisioner, "process", None)
    if process is None:
        return False
    if process.poll() is None and _is_ending(process.pid):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LEAVE_SECONDS)
    return process.poll() is not None


def _is_ending(pid: int) -> bool:
    """Whether the first thread of a process is a zombie (proc(5)); its parent cannot reap it before the last one."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def _deaths_in_a_row(kernel: Any) -> int:
    """How often the restarter has found it dead since it last ran well; it has no public name for that."""
    return getattr(getattr(kernel, "_restarter", None), "_restart_count", None) or 1
