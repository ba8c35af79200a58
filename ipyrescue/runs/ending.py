"""How a script is brought to its end, a step at a time: it saves, gets a SIGTERM, and at last a SIGKILL.

A snapshot is asked for first, as `ipyrescue now` does: it is cut where the state is consistent, in the midst of a loop
too, while what a SIGTERM leaves is cut wherever the script stands and is restored by nobody unasked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import Literal

from ipyrescue.errors import StoreError
from ipyrescue.runs import offspring
from ipyrescue.runs import record as records
from ipyrescue.runs.heeding import Asked
from ipyrescue.runs.notes import Notes
from ipyrescue.settings import format_duration
from ipyrescue.store import requests
from ipyrescue.store.requests import Request

Step = Literal["running", "saving", "terminated", "killed"]


@dataclass(frozen=True)
class Patience:
    """How long each step may take, in seconds.

    Who sends a SIGTERM, such as `docker stop`, kills 10 seconds later: so there is less time for a snapshot then.
    """

    save_seconds: float = 20.0
    save_at_sigterm_seconds: float = 6.0
    grace_seconds: float = 30.0


class Ending:
    """The end of the script that runs as process *pid*, from the moment that somebody asks for it."""

    def __init__(self, pid: int, notes: Notes, asked: Asked, patience: Patience) -> None:
        self._pid = pid
        self._notes = notes
        self._asked = asked
        self._patience = patience
        self._root = records.store_of(notes.folder)
        self._step: Step = "running"
        self._deadline = 0.0
        self._request: tuple[str, Request] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the script was sent a signal: its end says nothing of itself then."""
        return self._step in ("terminated", "killed")

    def look(self) -> None:
        """Take the next step, if somebody asks for it and it is time."""
        how = self._asked.how
        if how is None or self._step == "killed":
            return
        if self._step == "running":
            self._notes.note(state="stopping", reason=f"{self._asked.whence} asked it to stop.")
            self._ask_for_snapshot()
        if how == "now":
            self._kill("now")
        elif self._step == "saving" and (self._is_answered() or time.monotonic() > self._deadline):
            self._terminate()
        elif self._step == "terminated" and time.monotonic() > self._deadline:
            self._kill(f"it did not end within {format_duration(self._patience.grace_seconds)}")

    def close(self) -> None:
        """Ask for nothing any more."""
        if self._request is not None:
            requests.withdraw(self._root, *self._request)

    def _ask_for_snapshot(self) -> None:
        hurries = self._asked.whence == "SIGTERM"
        patience_seconds = self._patience.save_at_sigterm_seconds if hurries else self._patience.save_seconds
        self._step, self._deadline = "saving", time.monotonic() + patience_seconds
        life = self._notes.life()
        if life is None or life.every_seconds is None:  # it does not listen
            return
        wanted = Request.new(patience_seconds=patience_seconds)
        with contextlib.suppress(StoreError):
            self._request = life.incarnation, requests.ask(self._root, life.incarnation, wanted)

    def _is_answered(self) -> bool:
        if self._request is None:
            return True
        incarnation, request = self._request
        answer = requests.answered(self._root, incarnation)
        if answer is None or answer.id != request.id or not answer.final:
            return False
        if answer.snapshot_id is not None:
            self._notes.say(f"{self._asked.whence}: snapshot {answer.snapshot_id[:8]} was made.")
        else:
            self._notes.say(f"{self._asked.whence}: no snapshot was made: {answer.refusal}")
        return True

    def _terminate(self) -> None:
        self._step, self._deadline = "terminated", time.monotonic() + self._patience.grace_seconds
        self._notes.say(f"{self._asked.whence}: the script gets a SIGTERM, to end.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def _kill(self, why: str) -> None:
        self._step = "killed"
        self._notes.say(f"The script and the processes of its group are killed: {why}.")
        offspring.kill_group(self._pid)
