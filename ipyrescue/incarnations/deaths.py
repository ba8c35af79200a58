"""Which kernels of a notebook died, and what is noted about them afterwards. Knows no causes and no texts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import layout, lives
from ipyrescue.store.lives import Life


@dataclass(frozen=True)
class Death:
    """A kernel that ended without saying goodbye; *last_seen* is its last heartbeat, in seconds since the epoch."""

    life: Life
    last_seen: float


def previous_death(root: Path, notebook: str, incarnation: str) -> Death | None:
    """Find the newest life of this notebook that died and was neither restored nor dismissed."""
    for life, last_seen in _others(root, notebook, incarnation):
        state = lives.state(life, last_seen_at=last_seen)
        if state == "died" and life.restored is None and not life.dismissed:
            return Death(life, last_seen)
    return None


def still_alive(root: Path, notebook: str, incarnation: str) -> Life | None:
    """Find the newest other kernel of this notebook that is still running."""
    for life, last_seen in _others(root, notebook, incarnation):
        if lives.state(life, last_seen_at=last_seen) == "alive":
            return life
    return None


def mark_restored(root: Path, life: Life, snapshot_id: str) -> None:
    """Note that the variables of a dead kernel are back, so that they are not offered again. Raises `StoreError`."""
    _annotate(root, dataclasses.replace(life, restored=snapshot_id))


def dismiss(root: Path, life: Life) -> None:
    """Note that nobody wants the variables of a dead kernel back. Raises `StoreError`."""
    _annotate(root, dataclasses.replace(life, dismissed=True))


def _annotate(root: Path, life: Life) -> None:
    seen = lives.last_seen(root, life)
    lives.write(root, life)
    with contextlib.suppress(OSError):  # Writing about the dead is no sign of life.
        os.utime(layout.life_path(root, life.incarnation), (seen, seen))


def _others(root: Path, notebook: str, incarnation: str) -> list[tuple[Life, float]]:
    """All other lives of one notebook, newest first."""
    found = [life for life in lives.read_all(root) if life.notebook == notebook and life.incarnation != incarnation]
    return [(life, lives.last_seen(root, life)) for life in reversed(found)]
