"""What asks for a snapshot beside the clock: somebody in a terminal, and memory that is nearly full.

Turns files in the store and the machine's counters into triggers. Knows no safe points; is asked about once a second.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from ipyrescue.errors import RescueError
from ipyrescue.kernel.pressure import Pressure
from ipyrescue.manifest import Snapshot
from ipyrescue.store import requests
from ipyrescue.wording import seconds_of

LOOK_SECONDS = 1.0


class Outside:
    """Looks outside for one kernel. *place* tells where its store stands, and its incarnation."""

    def __init__(self, place: Callable[[], tuple[Path, str]]) -> None:
        self._place = place
        self._pressure = Pressure()
        self._asked: requests.Request | None = None
        self._looked = 0.0
        self.crossed: str | None = None
        """What is nearly full, of the last time that memory came near a limit."""

    def look(self) -> str | None:
        """Say `now` when somebody has asked for a snapshot, `memory` when memory has come near a limit, once each."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        crossed = self._pressure.crossed()
        if crossed is not None:
            self.crossed = crossed
            return "memory"
        known, self._asked = self._asked, requests.pending(*self._place())
        return "now" if self._asked is not None and self._asked != known else None

    def answer(self, snapshot: Snapshot) -> None:
        """Tell whoever has asked that *snapshot* was made, if it was made after that."""
        if self._asked is not None and (seconds_of(snapshot.created) or 0.0) >= self._asked.at:
            self._say(snapshot_id=snapshot.id)

    def refuse(self, reason: str) -> None:
        """Tell whoever has asked why no snapshot was made."""
        self._say(refusal=reason)

    def stop(self) -> None:
        """Leave no request and no answer behind."""
        requests.clear(*self._place())

    def _say(self, *, snapshot_id: str | None = None, refusal: str | None = None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            with contextlib.suppress(RescueError):
                requests.answer(*self._place(), asked, snapshot_id=snapshot_id, refusal=refusal)
