"""What all attempts of a run share, and how one ended. Plain data, but for the tools that it hands on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ipyrescue.runs.client import CellClient
from ipyrescue.runs.document import Document
from ipyrescue.runs.holdings import Holdings
from ipyrescue.runs.journal import Journal
from ipyrescue.runs.outputs import OutputFile
from ipyrescue.runs.plan import Left
from ipyrescue.runs.record import Death


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, in a sentence; *death* is that of its kernel."""

    state: Literal["finished", "failed", "stopped", "died"]
    reason: str | None = None
    death: Death | None = None


@dataclass
class Work:
    """What all attempts of a run share. *unusable* are snapshots that could not be restored.

    *stop* asks for an end, *at_once* for one without a snapshot; *hurried_at* (of `time.monotonic`) is when a SIGTERM
    asked for it, whose sender kills 10 seconds later. *root* is the store.
    """

    journal: Journal
    document: Document
    file: OutputFile
    holdings: Holdings
    root: Path
    kernel_name: str
    notebook: str
    left: Left
    stop: asyncio.Event
    unusable: set[str] = field(default_factory=set)
    client: CellClient | None = None
    at_once: bool = False
    hurried_at: float | None = None

    def text(self) -> str:
        """The notebook as it is by now."""
        if self.client is not None:
            self.client.settle()
        return self.document.text()

    def left_seconds(self, patience_seconds: float, *, at_sigterm_seconds: float) -> float:
        """How long something may take yet: less, and from the moment of the SIGTERM on, where one has asked to end."""
        if self.hurried_at is None:
            return patience_seconds
        return min(patience_seconds, max(0.0, self.hurried_at + at_sigterm_seconds - time.monotonic()))

    def say(self, sentence: str) -> None:
        """Tell it in the log."""
        self.journal.say(sentence)
