"""Life records: how each kernel process lives and ended, to JSON files and back. Never signed, never trusted.

A record that cannot be read is skipped; what one says decides what is offered to a person, never what is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import socket
import sys
import time
import types
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, layout

LIFE_LIMIT_BYTES = 64 << 10
ALIVE_SECONDS = 30.0
"""A heartbeat younger than this is a living kernel's, where its process cannot be seen."""
DEAD_SECONDS = 60.0
"""A heartbeat older than this is a dead one's."""

State = Literal["alive", "ended", "died", "unknown"]


@dataclass(frozen=True)
class Life:
    """One kernel process. *started*, *cell_started* and *ended_at* are ISO 8601; *ended* says how it ended cleanly.

    *restored* is the snapshot that brought its variables back; *dismissed*: the user does not want them back.
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
    cell: int | None = None
    cell_started: str | None = None
    cell_source: str | None = None
    cell_running: bool = False
    ended: str | None = None
    ended_at: str | None = None
    restored: str | None = None
    dismissed: bool = False


class ProcessFacts(NamedTuple):
    """What tells a process from a later one of the same number. None: not known; *start_ticks* also: not running."""

    start_ticks: int | None
    boot_id: str | None
    pid_namespace: str | None


def write(root: Path, life: Life, *, durable: bool = False) -> None:
    """Put *life* in the place of its last record; with *durable*, also through a power cut. Raises StoreError."""
    if life.cell_source is not None:
        lines = life.cell_source.strip().splitlines() or [""]
        life = dataclasses.replace(life, cell_source=lines[0][:200])
    path = layout.life_path(root, life.incarnation)
    data = json.dumps(dataclasses.asdict(life), sort_keys=True, indent=1).encode("ascii")
    with atomic.explained("write the life record", path):
        atomic.replace(path, data, durable=durable)


def touch(root: Path, incarnation: str) -> None:
    """Give a sign of life. Raises StoreError."""
    path = layout.life_path(root, incarnation)
    with atomic.explained("touch the life record", path):
        os.utime(path)


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
    here = here or process_facts(os.getpid())
    if life.ended is not None:
        return "ended"
    same_host = life.host == socket.gethostname()
    if same_host and None not in (life.boot_id, here.boot_id) and life.boot_id != here.boot_id:
        return "died"
    if same_host and (life.boot_id, life.pid_namespace) == here[1:]:
        return _state_in_sight(life)
    if last_seen_at is None:
        return "unknown"
    return _state_by_heartbeat((time.time() if now is None else now) - last_seen_at)


def process_facts(pid: int) -> ProcessFacts:
    """The facts of process *pid*. A zombie does not run any more."""
    if sys.platform != "linux":
        return ProcessFacts(_start_by_psutil(pid), None, None)
    return ProcessFacts(_start_ticks(pid), _boot_id(), _pid_namespace(pid))


def _state_in_sight(life: Life) -> State:
    start_ticks = process_facts(life.pid).start_ticks
    if start_ticks is None:
        return "died" if _can_see_processes() else "unknown"
    if life.start_ticks is None:
        return "unknown"
    return "alive" if start_ticks == life.start_ticks else "died"


def _state_by_heartbeat(age_seconds: float) -> State:
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
        life = _parse(json.loads(atomic.read_file(path, LIFE_LIMIT_BYTES)))
        if layout.parse_life_name(name) == life.incarnation:
            return life
    return None


def _parse(fields: Any) -> Life:
    """Exact fields and types. Raises TypeError, ValueError."""
    hints = _hints()
    if type(fields) is not dict or fields.keys() != hints.keys():
        raise TypeError("not the fields of a life record")
    if not all(type(fields[name]) in allowed for name, allowed in hints.items()):
        raise TypeError("not the types of a life record")
    if fields["kind"] not in ("notebook", "console") or len(fields["cell_source"] or "") > 200:
        raise ValueError("not a life record")
    return Life(**fields)


@cache
def _hints() -> dict[str, tuple[type, ...]]:
    hints = typing.get_type_hints(Life)
    return {
        name: typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,) for name, hint in hints.items()
    }
