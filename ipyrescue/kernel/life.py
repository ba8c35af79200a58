"""The writing side of life records: what happens to a kernel, onto disk, so that the next one knows how it ended.

A life record must never break a cell: whatever the disk does is swallowed and remembered as one warning. Knows no
IPython beyond a kernel object with a `do_shutdown`, and no snapshots beyond their manifests.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import operator
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from ipyrescue.capture.signals import GRACE_SECONDS, Farewell
from ipyrescue.errors import RescueError
from ipyrescue.identity import Identity
from ipyrescue.incarnations.protection import protection
from ipyrescue.kernel.memory import MemoryWatch
from ipyrescue.kernel.traces import Traces
from ipyrescue.redaction import redacted, shows_a_secret
from ipyrescue.store import layout, lives
from ipyrescue.store.lives import Cause, Life, Memory
from ipyrescue.store.upkeep import bury_unsaved
from ipyrescue.training import progress

HEARTBEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""How often the memory is looked at, and written down when it has changed by a twentieth."""

BEFORE_END_SECONDS = 2.0
"""A Jupyter server that asks a kernel to end sends SIGTERM after 2.5 seconds, and SIGKILL after 5."""

_JOIN_SECONDS = 5.0

_CHANGED = 0.05
_CELL_IDS = 20
_NOTED_CHARACTERS = 300
_LOOKED_AT_CHARACTERS = 4096
_WITHHELD = "withheld: it looks like a secret"
_KERNEL_ID = re.compile(r"kernel-(.+)\.json")


class LifeRecorder:
    """Keeps the life record of this kernel process. Call `begin` once the notebook is known, again when it changes."""

    def __init__(
        self,
        incarnation: str,
        *,
        kernel: Any = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        before_end: Callable[[str], None] | None = None,
    ) -> None:
        """Make a recorder that has written nothing; *kernel* is ipykernel's, if there is one.

        *before_end* is called with `shutdown` or `restart` before a kernel ends as it was asked to, on the thread that
        was asked; it has `BEFORE_END_SECONDS` and is not waited for any longer.
        """
        self.incarnation = incarnation
        self.warning: str | None = None
        self.broken_off: Callable[[], Cause | None] = lambda: None
        """Asked when the interpreter exits: what has broken the program off, which is no clean end then."""
        self.memory = MemoryWatch()
        self._traces = Traces(incarnation)
        self._kernel_id = _kernel_id(kernel)
        self._life: Life | None = None
        self._root: Path | None = None
        self._is_created = self._is_behind = False
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._heart: threading.Thread | None = None
        self._heartbeat_seconds = heartbeat_seconds
        self._shutdown = _ShutdownHook(kernel, self.ends, before_end) if kernel is not None else None

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
        life = before or _newborn(self.incarnation, self._kernel_id, identity)
        life = dataclasses.replace(life, notebook=identity.notebook, kind=identity.kind)
        with self._swallowed(), self._lock:
            self._life, self._root, self._is_created = life, root, False
            self._create(root)
            lives.write(root, life, durable=True)
            if left != root:
                self._traces.begin(root)
        if before is None:
            self._watch()
        elif left is not None and left != root:
            with self._swallowed():
                lives.write(left, dataclasses.replace(before, ended="moved", ended_at=_now()))

    def cell_begins(self, number: int | None, source: str, cell_id: str | None = None) -> None:
        """Note that cell *number* runs from now on; *cell_id* is the front end's name of it.

        A block of a script has no number.
        """
        known = self._life.cell_ids if self._life is not None else ()
        ids = (
            *(known if cell_id is None else (i for i in known if i != cell_id)),
            *([cell_id[:200]] if cell_id else ()),
        )
        self._change(
            cell=number,
            cell_started=_now(),
            cell_source=_noted(source.strip().partition("\n")[0]),
            cell_running=True,
            cell_ids=ids[-_CELL_IDS:],
            error=None,
            loops=progress.standing(),
            inside=None,
            memory=self.memory.cell_begins(),
        )

    def cell_ends(self, number: int = 0, source: str = "", error: BaseException | None = None) -> None:
        """Note that no cell runs any more, and what it raised; the last one stays named."""
        said = f"{type(error).__name__}: {error}".splitlines()[0] if error is not None else None
        self._change(
            cell_running=False,
            cell_ended=_now(),
            loops=progress.standing(),
            inside=None,
            error=_noted(said) if said is not None else None,
            memory=self.memory.cell_ends(number, source),
        )

    def arms(self, every_seconds: float | None) -> None:
        """Note that snapshots are made by themselves from now on, or with None no more."""
        known = self._life
        again = known is not None and known.every_seconds is not None and every_seconds is not None
        armed_at = known.armed_at if again and known is not None else _now() if every_seconds is not None else None
        since = (known.protected_since if again and known is not None else None) or _now()
        self._change(
            every_seconds=every_seconds,
            armed_at=armed_at,
            failure=None,
            interval_seconds=every_seconds,
            inside=None,
            protected_since=since if every_seconds is not None and known is not None and known.saved_at else None,
        )

    def saves(
        self,
        created: str,
        *,
        waited: bool = False,
        interval_seconds: float | None = None,
        pause_seconds: float | None = None,
        lacking: str | None = None,
    ) -> None:
        """Note the last snapshot that is durable; attempts that failed before it are past.

        *waited*: the program did nothing since it was *created*, as with a command. *interval_seconds* is the interval
        from now on, where it was stretched or is that no more; *lacking* a sentence on what is trained and not in it.
        """
        known = self._life
        armed, since = known is not None and known.every_seconds is not None, None
        if known is not None and armed:
            since = known.protected_since if protection(known, time.time()).state == "protected" else None
        said: dict[str, Any] = {"interval_seconds": interval_seconds, "pause_seconds": pause_seconds}
        self._change(
            saved_at=created,
            saved_through=_now() if waited else created,
            failure=None,
            inside=None,
            lacking=lacking,
            protected_since=(since or _now()) if armed and lacking is None else None,
            **{name: value for name, value in said.items() if value is not None},
        )

    def slows(self, slowdown_seconds: float, interval_seconds: float) -> None:
        """Note how much training lost beside the pause of the last snapshot, and the interval that follows from it."""
        self._change(slowdown_seconds=slowdown_seconds, interval_seconds=interval_seconds)

    def obstructs(self, reason: str | None) -> None:
        """Note why no snapshot can be made inside the running cell just now; None: nothing stands in the way."""
        if self._life is not None and self._life.inside != reason:
            self._change(inside=redacted(reason)[:_NOTED_CHARACTERS] if reason is not None else None)

    def fails(self, failure: str) -> None:
        """Note why the last attempt to save failed."""
        self._change(failure=redacted(failure)[:1000], protected_since=None)

    def finds_damage(self, damage: str | None) -> None:
        """Note what is damaged of the snapshots that are kept; None: nothing that is known."""
        if self._life is not None and self._life.damage != damage:
            self._change(damage=redacted(damage)[:1000] if damage is not None else None)

    def foresees(self, outlook: str | None) -> None:
        """Note that there is too little room for the next snapshot, and what will go for it; None: there is enough."""
        if self._life is not None and self._life.outlook != outlook:
            self._change(outlook=outlook)

    def writes(self, pid: int | None) -> None:
        """Note which process of ours is writing a snapshot; None when none is. The next kernel waits for it."""
        started = lives.process_facts(pid).start_ticks if pid is not None else None
        self._change(writer_pid=pid, writer_start_ticks=started)

    def is_written_here(self) -> None:
        """In a forked child that writes a snapshot: say so in the record, which spares the kernel the time."""
        if self._life is not None and self._root is not None:
            pid = os.getpid()
            started = lives.process_facts(pid).start_ticks
            known = dataclasses.replace(self._life, writer_pid=pid, writer_start_ticks=started)
            with self._swallowed():
                lives.write(self._root, known, durable=False)

    @contextlib.contextmanager
    def restores(self, snapshot_id: str, device: str | None) -> Iterator[None]:
        """Note, durably, that a restore is being tried: should it kill the kernel, the next one is to know."""
        self._change(durable=True, restoring=snapshot_id, restoring_device=device)
        try:
            yield
        finally:
            self._change(restoring=None, restoring_device=None)

    def ends(self, how: str) -> None:
        """Note a clean end: `exit`, `restart`, `shutdown` or `unload`. The first one counts."""
        if self._life is not None and self._life.ended is None:
            self._change(durable=True, ended=how, ended_at=_now())
            if self._mine():
                self._traces.end()

    def farewell(self, save: Callable[[str], None], *, grace_seconds: float = GRACE_SECONDS) -> Farewell:
        """One that calls *save* before SIGTERM and SIGHUP end this kernel; the stack is written before that."""
        return Farewell(save, grace_seconds=grace_seconds, arrived=self._traces.arrived, aside=self._traces.aside)

    def rest(self) -> None:
        """Give no signs of life, and leave signals alone, until `wake`; how the process ends is noted all the same."""
        self._stopped.set()
        if self._heart is not None:
            self._heart.join(_JOIN_SECONDS)
        self._heart = None
        self._traces.end()

    def wake(self) -> None:
        """Go on after `rest`."""
        if self._life is not None and self._root is not None and self._stopped.is_set() and self._mine():
            self._stopped.clear()
            with self._swallowed():
                self._traces.begin(self._root)
            self._start_heart()

    def stop(self) -> None:
        """Watch no longer: no heartbeat, no hook at exit, the kernel's own `do_shutdown`. The record stays as it is."""
        self._stopped.set()
        if self._heart is not None:
            self._heart.join(_JOIN_SECONDS)
        self._traces.end()
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
        self._start_heart()

    def _start_heart(self) -> None:
        heart = threading.Thread(target=self._beat, name="ipyrescue-heartbeat", daemon=True)
        with contextlib.suppress(RuntimeError):  # No thread to be had: then there is no heartbeat.
            heart.start()
            self._heart = heart

    def _at_exit(self) -> None:
        cause = self.broken_off()
        if cause is None:
            self.ends("exit")
        else:
            self._change(durable=True, cause=cause)
        if self._mine():
            self._traces.end()
            self._stopped.set()

    def _beat(self) -> None:
        last = time.monotonic()
        with contextlib.suppress(OSError, RescueError):
            if self._root is not None:
                bury_unsaved(self._root)
        while not self._stopped.wait(min(LOOK_SECONDS, self._heartbeat_seconds)):
            # What the user's torch answers is not ours to foresee, and without a heart we would be taken for dead.
            with contextlib.suppress(Exception), self._swallowed():
                if self._give_sign(due=time.monotonic() - last >= self._heartbeat_seconds):
                    last = time.monotonic()

    def _give_sign(self, *, due: bool) -> bool:
        """Write down the memory when it has changed, and when a sign of life is *due* what loops stand at.

        Where nothing has changed, a sign of life is a touch of the record; one that the disk refused is written again.
        """
        life, now, loops = self._life, self.memory.watch(), progress.standing()
        known, moved = (life.memory, life.loops != loops) if life is not None else (None, False)
        if known is None or _differ(known, now) or (due and (moved or self._is_behind)):
            self._change(memory=now, loops=loops)
        elif due and self._root is not None and self._is_created:
            lives.touch(self._root, self.incarnation)
        else:
            return False
        return True

    def _create(self, root: Path) -> None:
        """Make the store, or see that it is one: through a link in its place nothing is written. Raises StoreError."""
        layout.create(root)
        self._is_created = True

    def _change(self, *, durable: bool = False, **fields: Any) -> None:
        if self._life is None or self._root is None or not self._mine():
            return
        with self._swallowed(), self._lock:
            # In memory first: should the disk refuse now, the next write that it takes says all of it.
            self._life, was_behind, self._is_behind = dataclasses.replace(self._life, **fields), self._is_behind, True
            if not self._is_created:
                self._create(self._root)
            lives.write(self._root, self._life, durable=durable)
            self._is_behind, self.warning = False, None if was_behind else self.warning

    @contextlib.contextmanager
    def _swallowed(self) -> Iterator[None]:
        try:
            yield
        except (RescueError, OSError, ValueError, psutil.Error) as error:
            self.warning = (
                f"A crash of this kernel might go unnoticed, because its life record was not written. {error}"
            )


class _ShutdownHook:
    """Hears of a shutdown or a restart that was asked for, on whatever thread the kernel handles it."""

    def __init__(
        self, kernel: Any, ends: Callable[[str], None], before_end: Callable[[str], None] | None = None
    ) -> None:
        self._kernel = kernel
        self._ends = ends
        self._before_end = before_end
        self._active = False
        self._wrapper: Any = None

    def install(self) -> None:
        """Stand before the kernel's `do_shutdown`."""
        original = self._kernel.do_shutdown

        def do_shutdown(restart: bool) -> Any:  # noqa: FBT001 - the kernel calls it so
            if self._active:
                how = "restart" if restart else "shutdown"
                self._take_leave(how)
                self._ends(how)
            return original(restart)

        self._wrapper, self._active = do_shutdown, True
        self._kernel.do_shutdown = do_shutdown

    def _take_leave(self, how: str) -> None:
        """Call `before_end`, and wait for it only as long as the end can wait."""
        before_end = self._before_end
        if before_end is None:
            return

        def call() -> None:
            with contextlib.suppress(BaseException):  # whatever it raises, the kernel was asked to end
                before_end(how)

        leave = threading.Thread(target=call, name="ipyrescue-leave", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: then nothing is saved any more
            leave.start()
            leave.join(BEFORE_END_SECONDS)

    def remove(self) -> None:
        """Step aside; where somebody else has wrapped us since, only fall silent."""
        self._active = False
        if self._wrapper is not None and vars(self._kernel).get("do_shutdown") is self._wrapper:
            del self._kernel.do_shutdown


def _noted(text: str) -> str:
    """What a record keeps of a user's line; it is shown to whoever looks at the notebook, also in a browser."""
    return _WITHHELD if shows_a_secret(text[:_LOOKED_AT_CHARACTERS]) else text[:_NOTED_CHARACTERS]


def _differ(known: Memory, now: Memory) -> bool:
    """Whether the record would mislead whoever asks later how full the memory was, and who was killed for it."""
    counters = operator.attrgetter("oom_kills", "oom_group", "machine_oom_kills")
    pairs = (
        (known.rss_bytes, now.rss_bytes),
        (known.cuda_allocated_bytes or 0, now.cuda_allocated_bytes or 0),
    )
    return counters(known) != counters(now) or any(abs(new - old) > _CHANGED * max(old, 1) for old, new in pairs)


def _kernel_id(kernel: Any) -> str | None:
    """Jupyter's id of a kernel, which is a part of its connection file's name."""
    file = os.path.basename(str(getattr(getattr(kernel, "parent", None), "connection_file", "") or ""))
    match = _KERNEL_ID.fullmatch(file)
    return match[1][:200] if match else None


def _parent() -> dict[str, Any]:
    """Who started this kernel, and ends it: a server, an editor, a terminal."""
    with contextlib.suppress(psutil.Error, OSError):
        parent = psutil.Process().parent()
        if parent is not None:
            started = lives.process_facts(parent.pid).start_ticks
            return {"parent_pid": parent.pid, "parent_start_ticks": started, "parent_name": _name(parent)[:100]}
    return {}


def _name(process: psutil.Process) -> str:
    """What a person calls it: of `python -m jupyterlab` and `python /usr/bin/jupyter-lab` the last word."""
    words = [word for word in process.cmdline()[1:] if word == "-m" or not word.startswith("-")]
    if not process.name().startswith("python") or not words:
        return process.name()
    return words[1] if words[0] == "-m" and len(words) > 1 else os.path.basename(words[0])


def _newborn(incarnation: str, kernel_id: str | None, identity: Identity) -> Life:
    facts = lives.process_facts(os.getpid())
    return Life(
        kernel_id=kernel_id,
        **_parent(),
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
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")
