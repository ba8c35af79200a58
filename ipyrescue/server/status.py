"""How well the running kernel of a notebook is protected, and how full its memory is, into JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipyrescue.incarnations.protection import protection
from ipyrescue.incarnations.witness import Process, life_of
from ipyrescue.manifest import Snapshot
from ipyrescue.server.contents import largest
from ipyrescue.store import lives
from ipyrescue.store.lives import Life, Memory

_MEMORY = ("rss_bytes", "peak_rss_bytes", "limit_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes", "warning")


def living(root: Path, process: Process) -> Life | None:
    """The record of a kernel that runs; None if it keeps none."""
    life = life_of(root, process)
    alive = life is not None and lives.state(life, last_seen_at=lives.last_seen(root, life)) in ("alive", "unknown")
    return life if alive else None


def status(
    path: str, kernel_id: str | None, life: Life | None, snapshots: Sequence[Snapshot], now: float
) -> dict[str, Any]:
    """The answer for one notebook; *snapshots* are its own, newest first, *now* is in seconds since the epoch."""
    judged = protection(life, now, running=kernel_id is not None)
    return {
        "path": path,
        "kernel_id": kernel_id,
        "protection": {
            **dataclasses.asdict(judged),
            "every_seconds": life and life.every_seconds,
            "interval_seconds": life and life.interval_seconds,
            "pause_seconds": life and life.pause_seconds,
            "slowdown_seconds": life and life.slowdown_seconds,
            "protected_since": life and life.protected_since,
            "armed_at": life and life.armed_at,
            "saved_at": life and life.saved_at,
            "failure": life and life.failure,
        },
        "memory": _memory(life.memory) if life is not None and life.memory is not None else None,
        "largest": largest(snapshots[0]) if snapshots else [],
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {name: getattr(memory, name) for name in _MEMORY}
