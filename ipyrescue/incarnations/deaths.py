"""Which kernels of a notebook died, and what is noted about them afterwards. Knows no causes and no texts."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import lives
from ipyrescue.store.lives import Life
from ipyrescue.wording import seconds_of


@dataclass(frozen=True)
class Death:
    """A kernel that ended without saying goodbye; *last_seen* is its last heartbeat, in seconds since the epoch."""

    life: Life
    last_seen: float

    @property
    def at(self) -> float:
        """When it died, in seconds since the epoch: as a server saw it, else its last heartbeat."""
        return seconds_of(self.life.died_at) or self.last_seen

    @property
    def pending(self) -> bool:
        """Whether nobody has restored or dismissed it yet."""
        return self.life.restored is None and not self.life.dismissed


def deaths(root: Path, notebooks: Collection[str], incarnation: str = "") -> list[Death]:
    """Every death of these notebooks that is on record, newest first, but for *incarnation* itself."""
    return [
        Death(life, seen)
        for life, seen in _others(root, notebooks, incarnation)
        if lives.state(life, last_seen_at=seen) == "died"
    ]


def previous_death(root: Path, notebook: str, incarnation: str, former: Collection[str] = ()) -> Death | None:
    """Find the newest life of this notebook, or under its *former* names, that died and still waits for an answer.

    What died before its user went on from later on is not found.
    """
    for life, last_seen in _others(root, {notebook, *former}, incarnation):
        death = Death(life, last_seen)
        if death.pending and lives.state(life, last_seen_at=last_seen) == "died":
            return death
        if lives.is_answer(life):
            return None
    return None


def still_alive(root: Path, notebook: str, incarnation: str) -> Life | None:
    """Find the newest other kernel of this notebook that is still running."""
    for life, last_seen in _others(root, {notebook}, incarnation):
        if lives.state(life, last_seen_at=last_seen) == "alive":
            return life
    return None


def undecided(root: Path, notebook: str, incarnation: str) -> dict[str, float]:
    """The other kernels of this notebook that cannot be seen and gave a sign of life too lately to be called dead.

    Each with the moment of that sign: if it moves, the kernel lives. A container that starts anew meets the last
    life of its notebook so.
    """
    return {
        life.incarnation: last_seen
        for life, last_seen in _others(root, {notebook}, incarnation)
        if life.ended is None
        and time.time() - last_seen <= lives.DEAD_SECONDS
        and lives.state(life, last_seen_at=None) == "unknown"
    }


def mark_restored(root: Path, life: Life, snapshot_id: str) -> None:
    """Note that the variables of a dead kernel are back, so that they are not offered again. Raises `StoreError`."""
    lives.annotate(root, life, restored=snapshot_id)


def dismiss(root: Path, life: Life) -> None:
    """Note that nobody wants the variables of a dead kernel back. Raises `StoreError`."""
    lives.annotate(root, life, dismissed=True)


def _others(root: Path, notebooks: Collection[str], incarnation: str) -> Iterator[tuple[Life, float]]:
    """All other lives of these notebooks, newest first."""
    for life in reversed(lives.read_all(root)):
        if life.notebook in notebooks and life.incarnation != incarnation:
            yield life, lives.last_seen(root, life)
