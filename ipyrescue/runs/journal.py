"""The record of a run while it runs: kept by its runner, shown to whoever watches, alive while the runner is.

What cannot be written, as on a full disk, is written with the next change; the run does not end of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipyrescue import redaction
from ipyrescue.errors import StoreError
from ipyrescue.runs import record as records
from ipyrescue.runs.log import Log
from ipyrescue.runs.record import Record
from ipyrescue.wording import clean, shortened

_PROGRESS_CHARACTERS = 120
_PROGRESS_SECONDS = 1.0
_TAIL_BYTES = 2000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Journal:
    """The one writer of a run's record and log."""

    def __init__(self, folder: Path, watch: Callable[[Record], None] | None) -> None:
        """Read the record. Raises RunNotFoundError, CorruptError, StoreError."""
        self.folder = folder
        self.record = records.read(folder)
        self.log = Log(folder)
        self._watch = watch
        self._tail = b""
        self._unwritten = False
        self._failing = False

    def note(self, *, durable: bool = False, **said: Any) -> None:
        """Change the record, and tell whoever watches, until that cannot be told any more."""
        self.record = dataclasses.replace(self.record, **said)
        self._write(durable=durable)
        if self._watch is not None:
            try:
                self._watch(self.record)
            except OSError:  # a terminal that was closed, a pipe whose reader has ended: the run is not over
                self._watch = None

    def say(self, sentence: str) -> None:
        """Tell it in the log."""
        self.log.say(sentence)

    def printed(self, stream: Any, data: bytes) -> None:
        """Copy to the log what the kernel printed; the last line says how far it is."""
        self.log.write(stream, data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def begin_cell(self) -> None:
        """Nothing is printed yet."""
        self._tail = b""

    async def beat(self) -> None:
        """Note progress once a second, and give a sign of life, until cancelled."""
        beaten = 0.0
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            progress = last_line(self._tail)
            now = asyncio.get_running_loop().time()
            if progress is not None and progress != self.record.progress:
                self.note(progress=progress)
            elif self._unwritten or now - beaten >= records.HEARTBEAT_SECONDS:
                beaten = now
                self._touch()

    def close(self) -> None:
        """Write what is left."""
        if self._unwritten:
            self._write(durable=True)
        self.log.close()

    def _touch(self) -> None:
        if self._unwritten:
            self._write(durable=False)
            return
        try:
            records.touch(self.folder)
        except StoreError as error:
            self._fail(error)

    def _write(self, *, durable: bool) -> None:
        try:
            records.write(self.folder, self.record, durable=durable)
        except StoreError as error:
            self._unwritten = True
            self._fail(error)
        else:
            self._unwritten = self._failing = False

    def _fail(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            self.say(f"{error} The run goes on; `ipyrescue ps` may show old news until this works again.")


def last_line(tail: bytes) -> str | None:
    """The last line that was printed, as it looks by now, shortened; None where it is empty or looks like a secret."""
    lines = _ANSI.sub("", tail.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
    shown = harmless(next((line.strip() for line in reversed(lines) if line.strip()), ""))
    return shortened(clean(shown), _PROGRESS_CHARACTERS) if shown is not None else None


def harmless(line: str) -> str | None:
    """A line of output for the record; none where it is empty or looks like a secret."""
    return line if line and not redaction.shows_a_secret(line) else None
