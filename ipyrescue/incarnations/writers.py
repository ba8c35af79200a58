"""Processes that outlive their kernel for as long as it takes to write its last snapshot, and how to wait for them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import lives

PATIENCE_SECONDS = 30.0
_LOOKS_EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Waited:
    """How long a process of a dead kernel was waited for, and which of them, by pid, has not ended even so."""

    seconds: float
    unfinished: int | None = None


def wait_for_writers(
    root: Path, notebook: str, incarnation: str, *, patience_seconds: float = PATIENCE_SECONDS
) -> Waited | None:
    """Wait until dead kernels of *notebook*, other than *incarnation*, have no process that writes; None if none had.

    A kernel that lives is not waited for, nor a process that cannot be seen from here or has another start than noted.
    """
    writer = _writer(root, notebook, incarnation)
    if writer is None:
        return None
    started = time.monotonic()
    while writer is not None and time.monotonic() - started < patience_seconds:
        time.sleep(_LOOKS_EVERY_SECONDS)
        writer = _writer(root, notebook, incarnation)
    return Waited(time.monotonic() - started, writer)


def _writer(root: Path, notebook: str, incarnation: str) -> int | None:
    """The pid of a process that writes for a kernel which is gone."""
    for life in lives.read_all(root):
        if life.notebook != notebook or life.incarnation == incarnation or not lives.still_writes(life):
            continue
        if lives.state(life, last_seen_at=lives.last_seen(root, life)) in ("died", "ended"):
            return life.writer_pid
    return None
