"""Runs as commands show them: a record and what the kernel's life record adds, as JSON, as a row, as a sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyrescue.runs import record as records
from ipyrescue.runs.record import ENDED, Record
from ipyrescue.settings import format_duration
from ipyrescue.store import lives
from ipyrescue.store.lives import Life, Memory
from ipyrescue.wording import count, seconds_of

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Shown:
    """One run as it is now: its folder, its judged record, and the life record of the kernel that it runs."""

    folder: Path
    record: Record
    life: Life | None

    @property
    def lives(self) -> bool:
        """Whether its runner does."""
        return self.record.state not in ENDED

    @property
    def progress(self) -> str:
        """What its loops stand at, else what it printed last."""
        loops = ", ".join(self.life.loops) if self.life is not None and self.lives else ""
        return loops or self.record.progress or ""

    @property
    def memory(self) -> Memory | None:
        """The memory of its kernel, while that lives."""
        runs = self.lives and self.record.kernel is not None
        return self.life.memory if self.life is not None and runs else None

    @property
    def saved_at(self) -> str | None:
        """When its last snapshot became durable: the later of what its runner and its kernel say."""
        said = [self.record.saved_at, self.life.saved_at if self.life is not None else None]
        return max((moment for moment in said if moment), key=lambda moment: seconds_of(moment) or 0.0, default=None)

    @property
    def up_seconds(self) -> float | None:
        """How long it has run, or ran."""
        began, ended = seconds_of(self.record.started or self.record.created), seconds_of(self.record.ended)
        if began is None or (not self.lives and ended is None):
            return None
        return max(0.0, (time.time() if self.lives or ended is None else ended) - began)


def look(folder: Path) -> Shown:
    """The run in *folder* as it is now. Raises RunNotFoundError, CorruptError, StoreError."""
    record = records.judged(records.read(folder), folder)
    known = {life.incarnation: life for life in lives.read_all(records.store_of(folder))} if record.incarnations else {}
    return Shown(folder, record, known.get(record.incarnations[-1]) if record.incarnations else None)


def document(shown: Shown) -> dict[str, Any]:
    """A run as JSON: the same keys for every state, null for what is not known."""
    record, memory = shown.record, shown.memory
    return {
        "name": record.name,
        "kind": record.kind,
        "state": record.state,
        "reason": record.reason,
        "exit_code": record.exit_code,
        "source": record.source,
        "output": record.output,
        "folder": str(shown.folder),
        "store": str(records.store_of(shown.folder)),
        "created": record.created,
        "started": record.started,
        "ended": record.ended,
        "up_seconds": None if shown.up_seconds is None else round(shown.up_seconds, 3),
        "cell": record.cell,
        "cells": record.cells,
        "cells_done": len(record.done),
        "progress": shown.progress or None,
        "saved_at": shown.saved_at,
        "attempt": record.attempt,
        "deaths": [{"at": d.at, "cell": d.cell, "text": d.text, "exit_code": d.exit_code} for d in record.deaths],
        "pid": record.runner.pid if record.runner is not None else None,
        "host": record.runner.host if record.runner is not None else None,
        "kernel_pid": record.kernel.pid if record.kernel is not None else None,
        "connection_file": record.connection_file,
        "rss_bytes": memory.rss_bytes if memory is not None else None,
        "cuda_bytes": memory.cuda_reserved_bytes if memory is not None else None,
    }


def ending(shown: Shown) -> str:
    """How a run ended, or what it does, with the reason: `train: stopped after 8 s, cell 4 of 5. ...`."""
    record = shown.record
    took = f" after {format_duration(shown.up_seconds)}" if shown.up_seconds is not None and not shown.lives else ""
    if record.state == "finished":
        at = f", {count(record.cells, 'cell')}" if record.cells else ""
    else:
        at = f", cell {record.cell} of {record.cells}" if record.cell and record.cells else ""
    return f"{record.name}: {record.state}{took}{at}. {record.reason or ''}".rstrip()


def wait(folder: Path, told: Callable[[Shown], None] = lambda shown: None) -> Shown:
    """Return when the run in *folder* has ended, whoever ends it; *told* hears what it is at. Raises StoreError."""
    while True:
        shown = look(folder)
        if not shown.lives:
            return shown
        told(shown)
        time.sleep(_LOOK_SECONDS)
