"""The record of a run as its runner keeps it: what changes, onto disk, and a sign of life now and then.

A disk that is full must not end a run: what it does not take is tried again with the next sign of life.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipyrescue import redaction
from ipyrescue.errors import StoreError
from ipyrescue.incarnations import witness
from ipyrescue.runs import record as records
from ipyrescue.runs.log import Log
from ipyrescue.runs.record import Record

PROGRESS_SECONDS = 1.0

Watch = Callable[[Record], None]


class Notes:
    """Keeps the record in *folder*, and shows it to *watch* when it changes. Raises RescueError where there is none."""

    def __init__(self, folder: Path, log: Log, watch: Watch | None = None) -> None:
        self.record = records.read(folder)
        self._folder = folder
        self._log = log
        self._watch = watch
        self._is_behind = False
        self._next_beat = 0.0
        self._next_progress = 0.0

    def change(self, *, durable: bool = False, **said: Any) -> None:
        """Put it into the record, if it is news."""
        before, self.record = self.record, dataclasses.replace(self.record, **said)
        if self.record != before or self._is_behind or durable:
            self._write(durable=durable)
        if self.record != before and self._watch is not None:
            self._watch(self.record)

    def beat(self, last_line: Callable[[], str] = str, process: witness.Process | None = None) -> None:
        """Give a sign of life when it is time for one, and note what is printed and what *process* says of itself."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + records.HEARTBEAT_SECONDS
            if process is not None:
                self.take_from_life(process)
            with contextlib.suppress(StoreError):
                records.touch(self._folder)
            self.change()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_SECONDS
            self.change(progress=harmless(last_line()) or self.record.progress)

    def take_from_life(self, process: witness.Process) -> None:
        """Note what the process's own record says: who it is, and what is saved."""
        life = witness.life_of(records.store_of(self._folder), process)
        if life is not None:
            known = self.record.incarnations
            self.change(
                incarnations=known if life.incarnation in known else (*known, life.incarnation),
                saved_at=life.saved_at or self.record.saved_at,
            )

    def _write(self, *, durable: bool) -> None:
        try:
            records.write(self._folder, self.record, durable=durable)
            self._is_behind = False
        except StoreError as error:
            if not self._is_behind:
                self._log.say(f"The record of this run is behind: {error}")
            self._is_behind = True


def harmless(line: str) -> str | None:
    """A line of output for the record; none where it is empty or looks like a secret."""
    return line if line and not redaction.shows_a_secret(line) else None
