"""The writing side of life records: what happens to a kernel, onto disk, so that the next one knows how it ended.

A life record must never break a cell: whatever the disk does is swallowed and remembered as one warning. Knows no
IPython beyond a kernel object with a `do_shutdown`, and no snapshots beyond their manifests.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ipyrescue.errors import RescueError
from ipyrescue.identity import Identity
from ipyrescue.store import layout, lives
from ipyrescue.store.lives import Life

HEARTBEAT_SECONDS = 5.0


class LifeRecorder:
    """Keeps the life record of this kernel process. Call `begin` once the notebook is known, again when it changes."""

    def __init__(self, incarnation: str, *, kernel: Any = None, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        """Make a recorder that has written nothing; *kernel* is ipykernel's, if there is one."""
        self.incarnation = incarnation
        self.warning: str | None = None
        self._life: Life | None = None
        self._root: Path | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._heartbeat_seconds = heartbeat_seconds
        self._shutdown = _ShutdownHook(kernel, self.ends) if kernel is not None else None

    @property
    def life(self) -> Life | None:
        """The record as it should stand on disk; `None` before `begin`."""
        return self._life

    def begin(self, root: Path, identity: Identity) -> None:
        """Write the record, durably, into the store at *root*; make the store if there is none.

        When called again for another notebook or another store, the record moves with it.
        """
        if not self._mine():
            return
        before, left = self._life, self._root
        life = before or _newborn(self.incarnation, identity)
        life = dataclasses.replace(life, notebook=identity.notebook, kind=identity.kind)
        with self._swallowed(), self._lock:
            self._life, self._root = life, root
            layout.create(root)
            lives.write(root, life, durable=True)
        if before is None:
            self._watch()
        elif left is not None and left != root:
            with self._swallowed():
                lives.write(left, dataclasses.replace(before, ended="moved", ended_at=_now()))

    def cell_begins(self, number: int | None, source: str) -> None:
        """Note that cell *number* runs from now on."""
        self._change(cell=number, cell_started=_now(), cell_source=source, cell_running=True)

    def cell_ends(self) -> None:
        """Note that no cell runs any more; the last one stays named."""
        self._change(cell_running=False)

    def ends(self, how: str) -> None:
        """Note a clean end: `exit`, `restart`, `shutdown` or `unload`. The first one counts."""
        if self._life is not None and self._life.ended is None:
            self._change(durable=True, ended=how, ended_at=_now())

    def stop(self) -> None:
        """Watch no longer: no heartbeat, no hook at exit, the kernel's own `do_shutdown`. The record stays as it is."""
        self._stopped.set()
        atexit.unregister(self._at_exit)
        if self._shutdown is not None:
            self._shutdown.remove()

    def _mine(self) -> bool:
        """Whether this is the process that was begun, and not a child that forked from it."""
        return os.getpid() == self._process

    def _watch(self) -> None:
        atexit.register(self._at_exit)
        if self._shutdown is not None:
            self._shutdown.install()
        with contextlib.suppress(RuntimeError):  # No thread to be had: then there is no heartbeat.
            threading.Thread(target=self._beat, name="ipyrescue-heartbeat", daemon=True).start()

    def _at_exit(self) -> None:
        self.ends("exit")
        if self._mine():
            self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(self._heartbeat_seconds):
            root = self._root
            if root is not None:
                with self._swallowed():
                    lives.touch(root, self.incarnation)

    def _change(self, *, durable: bool = False, **fields: Any) -> None:
        if self._life is None or self._root is None or not self._mine():
            return
        with self._swallowed(), self._lock:
            # In memory first: should the disk refuse now, the next write that it takes says all of it.
            self._life = dataclasses.replace(self._life, **fields)
            lives.write(self._root, self._life, durable=durable)

    @contextlib.contextmanager
    def _swallowed(self) -> Iterator[None]:
        try:
            yield
        except (RescueError, OSError, ValueError) as error:
            self.warning = (
                f"A crash of this kernel might go unnoticed, because its life record was not written. {error}"
            )


class _ShutdownHook:
    """Hears of a shutdown or a restart that was asked for, on whatever thread the kernel handles it."""

    def __init__(self, kernel: Any, ends: Callable[[str], None]) -> None:
        self._kernel = kernel
        self._ends = ends
        self._active = False
        self._wrapper: Any = None

    def install(self) -> None:
        """Stand before the kernel's `do_shutdown`."""
        original = self._kernel.do_shutdown

        def do_shutdown(restart: bool) -> Any:  # noqa: FBT001 - the kernel calls it so
            if self._active:
                self._ends("restart" if restart else "shutdown")
            return original(restart)

        self._wrapper, self._active = do_shutdown, True
        self._kernel.do_shutdown = do_shutdown

    def remove(self) -> None:
        """Step aside; where somebody else has wrapped us since, only fall silent."""
        self._active = False
        if self._wrapper is not None and vars(self._kernel).get("do_shutdown") is self._wrapper:
            del self._kernel.do_shutdown


def _newborn(incarnation: str, identity: Identity) -> Life:
    facts = lives.process_facts(os.getpid())
    return Life(
        incarnation=incarnation,
        notebook=identity.notebook,
        kind=identity.kind,
        pid=os.getpid(),
        start_ticks=facts.start_ticks,
        boot_id=facts.boot_id,
        pid_namespace=facts.pid_namespace,
        host=socket.gethostname(),
        started=_now(),
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
