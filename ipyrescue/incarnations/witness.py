"""What the parent of a kernel saw of its end, onto the kernel's life record. Knows no restarter and no front end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.incarnations.cause import diagnose
from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.evidence import Evidence, gather, machine_oom_kills, oom_kills
from ipyrescue.store import lives
from ipyrescue.store.lives import Cause, Life


@dataclass(frozen=True)
class Process:
    """A kernel process while it runs; the counters are those of the OOM killer when it began."""

    kernel_id: str
    pid: int | None
    oom_kills: int | None
    machine_oom_kills: int | None

    @classmethod
    def seen_now(cls, kernel_id: str, pid: int | None) -> Process:
        """Look at the counters."""
        return cls(kernel_id, pid, oom_kills(), machine_oom_kills())


@dataclass(frozen=True)
class End:
    """A process that is gone. *exit_code* is negative for a signal; *restarts* counts deaths in a row."""

    process: Process
    exit_code: int | None
    restarts: int
    died_at: str

    @classmethod
    def seen_now(cls, process: Process, exit_code: int | None, restarts: int) -> End:
        """Of a process that has just been found dead."""
        return cls(process, exit_code, restarts, datetime.now(timezone.utc).isoformat(timespec="milliseconds"))


def attest(root: Path, end: End) -> Life | None:
    """Note on the life record of a kernel that died how it ended, and why; None where there is no such record.

    What a read-only store does not take is known to the caller only.
    """
    life = life_of(root, end.process)
    if life is None:
        return None
    life = _noted(root, life, exit_code=end.exit_code, died_at=end.died_at, restarts=end.restarts)
    return _noted(root, life, cause=diagnose(gather(root, Death(life, lives.last_seen(root, life)))))


def cause_of(end: End, notebook: str) -> tuple[Life, Cause]:
    """A stand-in for the record of a kernel that kept none, and what its exit code tells."""
    life = Life(
        incarnation="",
        notebook=notebook,
        kind="notebook",
        pid=end.process.pid or 0,
        start_ticks=None,
        boot_id=None,
        pid_namespace=None,
        host="",
        started=end.died_at,
        kernel_id=end.process.kernel_id,
        exit_code=end.exit_code,
        died_at=end.died_at,
        restarts=end.restarts,
    )
    evidence = Evidence(
        life,
        oom_kills=_since(end.process.oom_kills, oom_kills()),
        machine_oom_kills=_since(end.process.machine_oom_kills, machine_oom_kills()),
    )
    return life, diagnose(evidence)


def life_of(root: Path, process: Process) -> Life | None:
    """The record that a process keeps, or kept until it died without a word; None where there is none."""
    unfinished = [life for life in _of_kernel(root, process) if life.ended is None and life.died_at is None]
    return _own_first(unfinished, process)


def ended_cleanly(root: Path, process: Process) -> bool:
    """Whether a process said goodbye: by `exit()`, or because it was asked to shut down."""
    return any(life.pid == process.pid and life.ended not in (None, "unload") for life in _of_kernel(root, process))


def end_by_request(root: Path, process: Process, how: str) -> None:
    """Note that a kernel which could not say so itself was ended by its user: a *restart*, a *shutdown*.

    One that hangs in compiled code is killed in the end, and would pass for dead.
    """
    life = life_of(root, process)
    if life is not None and lives.state(life, last_seen_at=lives.last_seen(root, life)) == "died":
        _noted(root, life, ended=how, ended_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"))


def _of_kernel(root: Path, process: Process) -> list[Life]:
    """The records of this kernel id, oldest first, and those of its process that name none."""
    return [
        life
        for life in lives.read_all(root)
        if life.kernel_id == process.kernel_id
        or (life.kernel_id is None and life.pid == process.pid and lives.same_host(life))
    ]


def _own_first(found: Iterable[Life], process: Process) -> Life | None:
    """The record with the process's number; a launcher such as `conda run` has another one than its kernel."""
    return max(found, key=lambda life: (life.pid == process.pid, life.started), default=None)


def _noted(root: Path, life: Life, **said: object) -> Life:
    with contextlib.suppress(StoreError):
        return lives.annotate(root, life, **said)
    return dataclasses.replace(life, **said)  # type: ignore[arg-type]


def _since(before: int | None, now: int | None) -> int | None:
    return now - before if before is not None and now is not None else None
