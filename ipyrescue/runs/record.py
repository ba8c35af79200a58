"""The record of a run: what its runner says of it, to a JSON file and back. Never signed, never trusted.

Plain data; who lives is asked of the operating system when a record is judged, never believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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
class Record:
    """One run. Moments are ISO 8601 with a zone; *source*, *folder* (where it was started) and *store* are absolute.

    *cell* is the code cell that runs, of *cells*, counted from 1; *progress* what its loop or its last line of output
    says; *saved_at* its last durable snapshot; *reason* a sentence about how it ended, or what it waits for. *cut_off*
    says what ended *cell* before its end, and snapshots inside cells up to the sequence number *stale_through* are of
    another cell, or of this one as it was.
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
