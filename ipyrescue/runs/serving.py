"""One runner from its lock to its last record: what a run's process does around the execution itself.

Whoever executes, a record never says that a run lives which does not: what ends unexpectedly is written down as failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ipyrescue.errors import RescueError, RunError
from ipyrescue.runs import record as records
from ipyrescue.runs.record import ENDED, Kind, Record, State
from ipyrescue.store import lock

LOCK_NAME = "lock"
_LOCK_PATIENCE_SECONDS = 10.0
_RUNNERS: dict[Kind, str] = {"notebook": "ipyrescue.runs.runner", "script": "ipyrescue.runs.script"}

Watch = Callable[[Record], None]


class Execute(Protocol):
    """What a runner's module offers: run what the record in *folder* says, tell *watch* of changes, return the code."""

    def __call__(self, folder: Path, watch: Watch | None = None, *, foreground: bool) -> int: ...  # noqa: D102


def serve(folder: Path, watch: Watch | None = None, *, foreground: bool) -> int:
    """Execute the run in *folder* in this process, from its first record to its last; return the exit code.

    Raises RunError where another runner has the run, StoreBusyError where one just begins it, and what the execution
    raises, once that is written down.
    """
    _refuse_a_second(folder)
    with lock.alone(folder / LOCK_NAME, _LOCK_PATIENCE_SECONDS):  # who started this process lets go of it in a moment
        _refuse_a_second(folder)
        with _heeding_hang_ups(foreground=foreground):
            return _execute(folder, watch, foreground=foreground)


def _refuse_a_second(folder: Path) -> None:
    record = records.judged(records.read(folder), folder)
    if record.state != "starting" and record.state not in ENDED:
        raise RunError(f"Another runner has the run {folder.name} already. See it: ipyrescue ps")


def _execute(folder: Path, watch: Watch | None, *, foreground: bool) -> int:
    record = dataclasses.replace(records.read(folder), runner=records.process_of(os.getpid()))
    records.write(folder, record)
    try:
        code = _runner_of(record.kind)(folder, watch, foreground=foreground)
    except KeyboardInterrupt:
        _close(folder, "stopped", f"It was interrupted. ipyrescue resume {record.name} goes on.")
        raise
    except BaseException as error:
        _close(folder, "failed", f"The runner failed: {_in_words(error)}. ipyrescue resume {record.name} goes on.")
        raise
    _close(folder, "failed", f"The runner ended with code {code} and said nothing of it.")
    return code


def _runner_of(kind: Kind) -> Execute:
    """What runs such a file; imported here, since a notebook's takes a second that no other command should wait."""
    module: Any = importlib.import_module(_RUNNERS[kind])
    execute: Execute = module.execute
    return execute


def _close(folder: Path, state: State, reason: str) -> None:
    """Write a last record where the runner wrote none. Raises StoreError."""
    record = records.read(folder)
    if record.state not in ENDED:
        ended = dataclasses.replace(record, state=state, reason=reason, exit_code=1, ended=records.now())
        records.write(folder, ended, durable=True)


def _in_words(error: BaseException) -> str:
    return str(error).rstrip(".") if isinstance(error, RescueError) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _heeding_hang_ups(*, foreground: bool) -> Iterator[None]:
    """Let a hang-up be nothing to a detached run; in the foreground it asks to save and stop, as SIGTERM does."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    asks = signal.SIG_IGN if not foreground else lambda *_: signal.raise_signal(signal.SIGTERM)
    before = signal.signal(signal.SIGHUP, asks)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
