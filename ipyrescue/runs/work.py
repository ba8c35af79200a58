"""What all attempts of a run share, and how one ended. Plain data, but for the tools that it hands on."""

from __future__ import annotations

import asyncio
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

    *stop* asks for an end, *at_once* for one without a snapshot; *root* is the store.
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

    def text(self) -> str:
        """The notebook as it is by now."""
        if self.client is not None:
            self.client.settle()
        return self.document.text()

    def say(self, sentence: str) -> None:
        """Tell it in the log."""
        self.journal.say(sentence)
