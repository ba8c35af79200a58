"""Life records: how each kernel process lives and ended, to JSON files and back. Never signed, never trusted.

A record that cannot be read is skipped; what one says decides what is offered to a person, never what is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, layout, records

LIFE_LIMIT_BYTES = 64 << 10
ALIVE_SECONDS = 30.0
"""A heartbeat younger than this is a living kernel's, where its process cannot be seen."""
DEAD_SECONDS = 60.0
"""A heartbeat older than this is a dead one's."""

FROM_OUTSIDE = frozenset({"terminated", "hung_up", "parent_gone", "rebooted"})
"""Kinds of causes that have nothing to do with what the kernel was doing."""

State = Literal["alive", "ended", "died", "unknown"]


@dataclass(frozen=True)
class Memory:
    """The memory of a kernel when it was last looked at, and the *peak* of the cell that ran then. None: not known.

    *oom_kills* are the processes that the OOM killer had ended by then: in the kernel's control group, which is
    *oom_group*, and on the whole machine. *warning* says that a cell takes more each time it runs.
    """

    rss_bytes: int
    peak_rss_bytes: int
    limit_bytes: int | None = None
    cuda_allocated_bytes: int | None = None
    cuda_reserved_bytes: int | None = None
    oom_kills: int | None = None
    oom_group: str | None = None
    machine_oom_kills: int | None = None
    warning: str | None = None


@dataclass(frozen=True)
class Cause:
    """Why a kernel died: a *kind* for programs; *verb* and *text* make `The kernel {verb} ({text})`.

    *certain* is False where the facts only suggest it; *place* is where the code stood, innermost line first.
    """

    kind: str
    verb: str
    text: str
    certain: bool = True
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Life:
    """One kernel process, as it says itself; what is said of it after its death stands in the last fields.

    Moments are ISO 8601 with a zone. *ended* says how it ended cleanly. *every_seconds* and *armed_at* are set while it
    makes snapshots by itself, *saved_at* is its last good one, which holds all that was done until *saved_through*, and
    *failure* the sentence of attempts that failed since; *protected_since* is when that protection began, None while
    there is none. *damage* is a sentence on snapshots of its notebook that were found damaged, *outlook* one on what
    the next snapshot lacks. *interval_seconds* is the interval in force, longer than *every_seconds* where a snapshot,
    with its *pause_seconds* and the *slowdown_seconds* that training lost while it was written, would cost too much;
    *inside* says why none can be made inside the running cell just now, *lacking* is a sentence on what was trained
    when the last one was made and is not in it. *restoring* is the snapshot that is being
    restored, *restoring_device* the device it is forced to. *cell_ids* are the front end's names of the last cells.
    *writer_pid* is the process that is writing a snapshot just now, and may outlive the kernel. *loops* are what the
    running loops stood at when it was looked at last, outermost first: `train 12/100`.

    After death: *restored* is the snapshot that brought its variables back; *dismissed*: the user does not want
    them back; *exit_code* (negative: a signal), *died_at* and *restarts* are what a Jupyter server saw; *cause* is
    the diagnosis that was made while the traces were fresh.
    """

    incarnation: str
    notebook: str
    kind: str
    pid: int
    start_ticks: int | None
    boot_id: str | None
    pid_namespace: str | None
    host: str
    started: str
    kernel_id: str | None = None
    parent_pid: int | None = None
    parent_start_ticks: int | None = None
    parent_name: str | None = None
    cell: int | None = None
    cell_started: str | None = None
    cell_ended: str | None = None
    cell_source: str | None = None
    cell_running: bool = False
    cell_ids: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    error: str | None = None
    memory: Memory | None = None
    every_seconds: float | None = None
    armed_at: str | None = None
    saved_at: str | None = None
    saved_through: str | None = None
    failure: str | None = None
    damage: str | None = None
    outlook: str | None = None
    protected_since: str | None = None
    interval_seconds: float | None = None
    pause_seconds: float | None = None
    slowdown_seconds: float | None = None
    inside: str | None = None
    lacking: str | None = None
    restoring: str | None = None
    restoring_device: str | None = None
    writer_pid: int | None = None
    writer_start_ticks: int | None = None
    ended: str | None = None
    ended_at: str | None = None
    restored: str | None = None
    dismissed: bool = False
    exit_code: int | None = None
    died_at: str | None = None
    restarts: int | None = None
    cause: Cause | None = None


class Traced(Protocol):
    """A process that a record tells of: its number, and what tells it from a later one of the same number."""

    @property
    def pid(self) -> int: ...  # noqa: D102 - as in ProcessFacts
    @property
    def start_ticks(self) -> int | None: ...  # noqa: D102
    @property
    def boot_id(self) -> str | None: ...  # noqa: D102
    @property
    def pid_namespace(self) -> str | None: ...  # noqa: D102
    @property
    def host(self) -> str: ...  # noqa: D102


class ProcessFacts(NamedTuple):
    """What tells a process from a later one of the same number. None: not known; *start_ticks* also: not running."""

    start_ticks: int | None
    boot_id: str | None
    pid_namespace: str | None


def write(root: Path, life: Life, *, durable: bool = False) -> None:
    """Put *life* in the place of its last record; with *durable*, also through a power cut. Raises StoreError."""
    layout.check_folder_writable(layout.kernels(root))
    if life.cell_source is not None:
        lines = life.cell_source.strip().splitlines() or [""]
        life = dataclasses.replace(life, cell_source=lines[0][:200])
    path = layout.life_path(root, life.incarnation)
    with atomic.explained("write the life record", path):
        atomic.replace(path, records.encoded(life), durable=durable)


def is_answer(life: Life) -> bool:
    """Whether what died before this kernel is past: its own variables were restored, or it saved and ended cleanly.

    Whoever works in a kernel, saves there and ends it on purpose has gone on from what died before it.
    """
    went_on = life.saved_at is not None and life.ended in ("exit", "shutdown", "restart")
    return life.restored is not None or went_on


def annotate(root: Path, life: Life, **said: Any) -> Life:
    """Note something about another kernel's life, which is no sign of life of its. Raises StoreError."""
    seen, path = last_seen(root, life), layout.life_path(root, life.incarnation)
    # A server and the next kernel both note things about it: what either has said since stays.
    life = dataclasses.replace(_read(path, path.name) or life, **said)
    write(root, life)
    with contextlib.suppress(OSError):
        atomic.touch(layout.life_path(root, life.incarnation), seen)
    return life


def touch(root: Path, incarnation: str) -> None:
    """Give a sign of life. Raises StoreError."""
    layout.check_folder_writable(layout.kernels(root))
    path = layout.life_path(root, incarnation)
    with atomic.explained("touch the life record", path):
        atomic.touch(path)


def last_seen(root: Path, life: Life) -> float:
    """When it last gave a sign of life, in seconds since the epoch by the file system's clock; 0.0 when unknown."""
    try:
        return os.lstat(layout.life_path(root, life.incarnation)).st_mtime
    except OSError:
        return 0.0


def read_all(root: Path) -> list[Life]:
    """Every record that can be read, in the order in which they began."""
    try:
        names = sorted(filter(layout.parse_life_name, os.listdir(layout.kernels(root))))
    except OSError:
        return []
    found = [_read(layout.kernels(root) / name, name) for name in names]
    return sorted((life for life in found if life is not None), key=lambda life: (life.started, life.incarnation))


def state(
    life: Life,
    *,
    last_seen_at: float | None = None,
    now: float | None = None,
    here: ProcessFacts | None = None,
) -> State:
    """Whether the kernel lives. *last_seen_at* and *now* are seconds since the epoch; *here* are facts of this process.

    A process in sight is looked at. One on another machine or in another container is known by its heartbeat (give
    *last_seen_at*, from `last_seen`; without it such a kernel is "unknown").
    """
    return "ended" if life.ended is not None else process_state(life, last_seen_at=last_seen_at, now=now, here=here)


def process_state(
    process: Traced,
    *,
    last_seen_at: float | None = None,
    now: float | None = None,
    here: ProcessFacts | None = None,
) -> Literal["alive", "died", "unknown"]:
    """Whether a process runs: the arguments are those of `state`."""
    here = here or process_facts(os.getpid())
    if is_of_another_boot(process, here):
        return "died"
    if in_sight(process, here):
        return _state_in_sight(process)
    if last_seen_at is None:
        return "unknown"
    return _state_by_heartbeat((time.time() if now is None else now) - last_seen_at)


def is_of_another_boot(process: Traced, here: ProcessFacts) -> bool:
    """Whether this host was started anew since the process ran."""
    return same_host(process) and None not in (process.boot_id, here.boot_id) and process.boot_id != here.boot_id


def still_writes(life: Life) -> bool:
    """Whether the very process that was writing a snapshot when the record was written runs yet."""
    if life.writer_pid is None or life.writer_start_ticks is None or not in_sight(life):
        return False
    return process_facts(life.writer_pid).start_ticks == life.writer_start_ticks


def same_host(process: Traced) -> bool:
    """Whether it ran under this host's name."""
    return process.host == socket.gethostname()


def in_sight(process: Traced, here: ProcessFacts | None = None) -> bool:
    """Whether its process, if it still ran, could be seen from here: same host, same boot, same container."""
    here = here or process_facts(os.getpid())
    return same_host(process) and (process.boot_id, process.pid_namespace) == (here.boot_id, here.pid_namespace)


def process_facts(pid: int) -> ProcessFacts:
    """The facts of process *pid*. A zombie does not run any more."""
    if sys.platform != "linux":
        return ProcessFacts(_start_by_psutil(pid), None, None)
    return ProcessFacts(_start_ticks(pid), _boot_id(), _pid_namespace(pid))


def _state_in_sight(process: Traced) -> Literal["alive", "died", "unknown"]:
    start_ticks = process_facts(process.pid).start_ticks
    if start_ticks is None:
        return "died" if _can_see_processes() else "unknown"
    if process.start_ticks is None:
        return "unknown"
    return "alive" if start_ticks == process.start_ticks else "died"


def _state_by_heartbeat(age_seconds: float) -> Literal["alive", "died", "unknown"]:
    if age_seconds < ALIVE_SECONDS:
        return "alive"
    return "died" if age_seconds > DEAD_SECONDS else "unknown"


def _can_see_processes() -> bool:
    return process_facts(os.getpid()).start_ticks is not None


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        # The name in brackets may hold anything; what follows its last bracket is regular.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZXx" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _start_by_psutil(pid: int) -> int | None:
    """When it started, in hundredths of a second; None without psutil."""
    try:
        psutil: Any = importlib.import_module("psutil")
    except ImportError:
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
    except psutil.Error:
        return None


def _read(path: Path, name: str) -> Life | None:
    with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, StoreError):
        life = _parse(atomic.read_file(path, LIFE_LIMIT_BYTES))
        if layout.parse_life_name(name) == life.incarnation:
            return life
    return None


def _parse(data: bytes) -> Life:
    life = records.parse(Life, data)
    if life.kind not in ("notebook", "script", "console"):
        raise ValueError("not a life record")
    return life
