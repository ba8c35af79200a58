"""What on the disk stands in the way of snapshots, and when it does so no more. Knows no schedule.

Attempts that fail are made ever more rarely; where a disk was full or read-only, it is looked at meanwhile, so that the
next attempt need not wait any longer than the disk does. A quota shows in no such look: there the clock alone tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ipyrescue.store.room import Room

_LOOK_SECONDS = 1.0
_BETWEEN_ATTEMPTS_SECONDS = 30.0
_NOTICED_BYTES = 1 << 20


class Obstacle:
    """The disk of one kernel. *room* says what is free there; it may raise OSError."""

    def __init__(self, room: Callable[[], Room]) -> None:
        self._room = room
        self._met: Room | None = None
        self._at = self._looked = 0.0

    def meet(self, needed_bytes: int) -> bool:
        """An attempt has failed that needs at most so many bytes; say whether the disk stands in the way."""
        found = self._look()
        self._met = found if found is not None and found.lacks(needed_bytes) else None
        self._at = time.monotonic()
        return self._met is not None

    def pass_by(self) -> None:
        """An attempt went well."""
        self._met = None

    def is_less(self, interval_seconds: float) -> bool:
        """Whether an attempt is worth while since the disk has more room, once for each that fails.

        Cheap; asked as often as you like. Attempts are not made more often than this *interval_seconds* asks for, nor
        need they wait longer than half a minute.
        """
        now = time.monotonic()
        if self._met is None or now - self._looked < _LOOK_SECONDS:
            return False
        if now - self._at < min(interval_seconds, _BETWEEN_ATTEMPTS_SECONDS):
            return False
        found = self._look()
        if found is None or not _has_more(self._met, found):
            return False
        self._met = None
        return True

    def _look(self) -> Room | None:
        self._looked = time.monotonic()
        try:
            return self._room()
        except OSError:
            return None


def _has_more(before: Room, now: Room) -> bool:
    if now.read_only or now.free_files == 0:
        return False
    return before.read_only or before.free_files == 0 or now.free_bytes >= before.free_bytes + _NOTICED_BYTES
