"""The record of a run: what its runner says of it, to a JSON file and back. Never signed, never trusted.

Plain data; who lives is asked of the operating system when a record is judged, never believed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ipyrescue.errors import CorruptError, RescueError, RunNotFoundError
from ipyrescue.runs.outputs import Written
from ipyrescue.store import atomic, layout, lives, records

RECORD_LIMIT_BYTES = 8 << 20
RECORD_NAME = "run.json"
HEARTBEAT_SECONDS = 5.0
"""How often a runner touches its record, so that other machines and containers see that it lives."""

Kind = Literal["notebook", "script"]
OnFailure = Literal["resume", "restart", "stop"]
State = Literal["starting", "running", "waiting", "stopping", "finished", "failed", "stopped", "died", "dead"]
"""`waiting`: for the back-off before the next attempt. `failed`: a cell raised, a script ended with an error. `died`:
the kernel died, and no retry was left. `dead`: the runner itself is gone; no runner writes that, readers find it."""

ENDED: frozenset[State] = frozenset({"finished", "failed", "stopped", "died", "dead"})


@dataclass(frozen=True)
class Options:
    """How a run was asked for. Paths are absolute; of an environment file only the path is kept, never a value.

    *parameters* are names and the texts that were typed for them. *timeout_cell_seconds* None: no limit.
    """

    every_seconds: float = 300.0
    retries: int = 3
    on_failure: OnFailure = "resume"
    output: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None
    timeout_cell_seconds: float | None = None
    kernel: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Process:
    """A process as `ipyrescue.store.lives.process_facts` tells one from a later one of the same number."""

    pid: int
    start_ticks: int | None
    boot_id: str | None
    pid_namespace: str | None
    host: str


@dataclass(frozen=True)
class Death:
    """A kernel of the run that died: *at* (ISO 8601), in which *cell* (from 1), and what of: `The kernel {text}`."""

    at: str
    cell: int | None
    text: str
    exit_code: int | None = None
    incarnation: str | None = None


@dataclass(frozen=True)
class Done:
    """A code cell that is finished and saved: its *cell* number (from 1), the *chain* of sources up to it in hex.

    *snapshot* is what its end is saved in.
    """

    cell: int
    chain: str
    snapshot: str
    sequence: int
    at: str


@dataclass(frozen=True)
class Outputs:
    """The notebook that a run writes to by now, and how it was left at the run's end.

    *written* None: its runner writes to it, or was killed.
    """

    path: str
    written: Written | None = None


@dataclass(frozen=True)
class Record:
    """One run. Moments are ISO 8601 with a zone; *source*, *folder* (where it was started) and *store* are absolute.

    *cell* is the code cell that runs, of *cells*, counted from 1; *progress* what its loop or its last line of output
    says; *saved_at* its last durable snapshot; *reason* a sentence about how it ended, or what it waits for. *cut_off*
    says what ended *cell* before its end, and snapshots inside cells up to the sequence number *stale_through* are of
    another cell, or of this one as it was. *outputs* None: nothing was written yet, or by an older version.
    """

    name: str
    kind: Kind
    source: str
    folder: str
    store: str
    options: Options
    created: str
    state: State = "starting"
    reason: str | None = None
    exit_code: int | None = None
    runner: Process | None = None
    kernel: Process | None = None
    connection_file: str | None = None
    started: str | None = None
    ended: str | None = None
    attempt: int = 0
    cell: int | None = None
    cells: int | None = None
    cell_started: str | None = None
    progress: str | None = None
    saved_at: str | None = None
    deaths: tuple[Death, ...] = ()
    done: tuple[Done, ...] = ()
    incarnations: tuple[str, ...] = field(default=())
    cut_off: str | None = None
    stale_through: int = 0
    outputs: Outputs | None = None

    @property
    def output(self) -> str | None:
        """The notebook where its outputs stand by now, or are to stand."""
        return self.outputs.path if self.outputs is not None else self.options.output


def now() -> str:
    """This moment, as records write it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def process_of(pid: int) -> Process:
    """What tells process *pid* from a later one of the same number."""
    return Process(pid, *lives.process_facts(pid), host=socket.gethostname())


def store_of(folder: Path) -> Path:
    """The store in which a run's folder stands: what the record says of it may be another container's path."""
    return folder.parent.parent


def write(folder: Path, record: Record, *, durable: bool = False) -> None:
    """Put *record* in the place of the last one; with *durable*, also through a power cut. Raises StoreError."""
    path = folder / RECORD_NAME
    with atomic.explained("write the record of the run", path):
        atomic.replace(path, records.encoded(_bounded(record)), durable=durable)


def touch(folder: Path) -> None:
    """Give a sign of life. Raises StoreError."""
    layout.check_folder_writable(layout.runs(store_of(folder)))
    path = folder / RECORD_NAME
    with atomic.explained("touch the record of the run", path):
        atomic.touch(path)


def read(folder: Path) -> Record:
    """The record in a run's folder. Raises RunNotFoundError, CorruptError, StoreError."""
    path = folder / RECORD_NAME
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise CorruptError(f"{folder} is not a folder, where ipyrescue keeps a run.")
        record = records.parse(Record, atomic.read_file(path, RECORD_LIMIT_BYTES))
    except FileNotFoundError:
        raise RunNotFoundError(
            f"There is no run {folder.name} in {store_of(folder)}. List them: ipyrescue ps -a"
        ) from None
    except (TypeError, ValueError, RecursionError, OSError) as error:
        raise CorruptError(
            f"{path} is damaged: {error}. The run's snapshots are not; without its record it goes with "
            f"ipyrescue rm {folder.name}"
        ) from error
    if record.name != folder.name:
        raise CorruptError(f"{path} is damaged: it says that it is of another run.")
    return record


def read_good(folder: Path) -> Record | None:
    """The record in a run's folder; None where it cannot be read."""
    with contextlib.suppress(RescueError):
        return read(folder)
    return None


def read_all(root: Path) -> list[Record]:
    """The records of all runs in a store that can be read, oldest first."""
    found = [record for folder in folders(root) if (record := read_good(folder)) is not None]
    return sorted(found, key=lambda record: (record.created, record.name))


def folders(root: Path) -> list[Path]:
    """The folder of every run in a store, whatever its record is worth."""
    try:
        names = sorted(filter(layout.parse_run_name, os.listdir(layout.runs(root))))
    except OSError:
        return []
    return [layout.run_folder(root, name) for name in names]


def judged(record: Record, folder: Path | None = None, *, now: float | None = None) -> Record:
    """The record as it is true now: a run whose runner is gone is `dead`, with the reason, whatever was written last.

    A runner on another machine or in another container is known by its heartbeat, the age of the record's file in
    *folder* (by default where the record says); *now* is in seconds since the epoch.
    """
    if record.state in ENDED:
        return record
    if record.runner is None:
        return dataclasses.replace(record, state="dead", reason="It never began: its record names no runner.")
    seen = last_seen(folder or layout.run_folder(Path(record.store), record.name))
    if lives.process_state(record.runner, last_seen_at=seen, now=now) != "died":
        return record
    return dataclasses.replace(record, state="dead", reason=_why_dead(record, record.runner, seen, now))


def _why_dead(record: Record, runner: Process, seen: float, now: float | None) -> str:
    here = lives.process_facts(os.getpid())
    at = f" in cell {record.cell} of {record.cells}" if record.cell and record.cells else ""
    goes_on = f"ipyrescue resume {record.name} goes on."
    if lives.is_of_another_boot(runner, here):
        return f"The machine was started anew while the run was {record.state}{at}. {goes_on}"
    if lives.in_sight(runner, here):
        return f"Its runner (pid {runner.pid}) is gone, while the run was {record.state}{at}. {goes_on}"
    silent = round((time.time() if now is None else now) - seen)
    return f"Its runner (pid {runner.pid} on {runner.host}) has given no sign of life for {silent} s{at}. {goes_on}"


def last_seen(folder: Path) -> float:
    """When a runner gave its last sign of life, in seconds since the epoch by the file system's clock; 0.0: never."""
    try:
        return os.lstat(folder / RECORD_NAME).st_mtime
    except OSError:
        return 0.0


def _bounded(record: Record) -> Record:
    """Texts that come from elsewhere, cut to what a record may hold."""
    return dataclasses.replace(
        record,
        reason=_cut(record.reason),
        progress=_cut(record.progress),
        deaths=tuple(dataclasses.replace(death, text=_cut(death.text) or "") for death in record.deaths),
    )


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= records.LONGEST_TEXT else text[: records.LONGEST_TEXT - 3] + "..."
