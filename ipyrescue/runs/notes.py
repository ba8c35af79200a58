"""The journal of a run of a script: what its process says of itself, and what it printed last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ipyrescue.runs import record as records
from ipyrescue.runs.journal import Journal, harmless
from ipyrescue.runs.record import Process, Record
from ipyrescue.store import lives
from ipyrescue.store.lives import Life

_PROGRESS_SECONDS = 1.0


class Notes(Journal):
    """Kept by a runner that waits in a loop of its own, and looks in here each time."""

    def __init__(self, folder: Path, watch: Callable[[Record], None] | None) -> None:
        super().__init__(folder, watch)
        self._next_beat = 0.0
        self._next_progress = 0.0
        self._known: Process | None = None

    def look(self, last_line: Callable[[], str] = str) -> None:
        """Give a sign of life when it is time for one, and note what was printed, and what the process says."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + records.HEARTBEAT_SECONDS
            self.take_from_life()
            self._touch()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_SECONDS
            self.take_progress(last_line())
            if self._known != self.record.kernel:
                self.take_from_life()

    def take_progress(self, line: str) -> None:
        """Note the line that was printed last, if there is one."""
        progress = harmless(line)
        if progress is not None and progress != self.record.progress:
            self.note(progress=progress)

    def take_from_life(self) -> None:
        """Note what the process that runs, or ran last, says in a record of its own: who it is, and what is saved."""
        life = self.life()
        if life is None:
            return
        self._known = self.record.kernel
        known, saved_at = self.record.incarnations, life.saved_at or self.record.saved_at
        known = known if life.incarnation in known else (*known, life.incarnation)
        if (known, saved_at) != (self.record.incarnations, self.record.saved_at):
            self.note(incarnations=known, saved_at=saved_at)

    def life(self) -> Life | None:
        """The life record of the process that runs, or ran last; None where it keeps none."""
        known = lives.read_all(records.store_of(self.folder)) if self.record.kernel is not None else []
        for life in known:
            if Process(life.pid, life.start_ticks, life.boot_id, life.pid_namespace, life.host) == self.record.kernel:
                return life
        return None
