"""Who asks a runner to stop, and how: signals and a file in the run's folder into one answer.

SIGTERM, SIGUSR1 (which batch systems send before a wall time) and Ctrl-C ask for a snapshot and an end, a second Ctrl-C
for the end alone. Knows no kernel and no script.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from ipyrescue.runs import stopping
from ipyrescue.runs.stopping import How

_READ_BYTES = 4096


class Asked:
    """What is asked of this process while the block runs. Main thread only, since it handles signals."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signals: list[int] = []
        self._before: dict[int, Any] = {}
        self._wake, self._woken = -1, -1
        self._fd_before = -1

    def __enter__(self) -> Asked:
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._fd_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _heed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._wake)
        os.close(self._woken)

    @property
    def how(self) -> How | None:
        """What is asked, if anything is: to end after a *snapshot*, or *now*."""
        requested = stopping.requested(self._folder)
        if requested == "now" or self._signals.count(signal.SIGINT) > 1:
            return "now"
        return "snapshot" if self._signals else requested

    @property
    def whence(self) -> str:
        """By whom, for a sentence."""
        return signal.Signals(self._signals[0]).name if self._signals else "ipyrescue stop"

    @property
    def interrupted(self) -> bool:
        """Whether a Ctrl-C was among it."""
        return signal.SIGINT in self._signals

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal comes or a child ends."""
        woken = select.poll()
        woken.register(self._woken, select.POLLIN)
        woken.poll(max(seconds, 0.0) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, _READ_BYTES)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def _heed(number: int, frame: FrameType | None) -> None:
    """A child has ended: whoever waits looks."""
