"""The main thread's attention: a free signal number whose handler runs between two instructions of whatever runs there.

Turns `ask` and `wake` (any thread) into calls on the main thread. Knows nothing of cells and snapshots. In a running
cell the number is only tripped (`_thread.interrupt_main`): no signal of the system, so no call of the user's is cut
short. An idle kernel waits in the system, so there it has to be a real signal.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any


class Attention:
    """Calls *given* with the frame that was running, whenever somebody asks. A forked child is not disturbed."""

    def __init__(self, given: Callable[[FrameType | None], None]) -> None:
        self._given = given
        self._process = os.getpid()
        self._main = threading.main_thread().ident or 0
        self._lock = threading.RLock()
        self._number: int | None = None
        self._previous: Any = None
        self._held = False
        self._callbacks: deque[Callable[[], None]] = deque()

    def take(self) -> None:
        """Handle a free signal number, if there is one. On the main thread."""
        number = _free_number()
        if number is not None and self._number is None:
            self._previous = signal.signal(number, self._on_signal)
            if hasattr(signal, "siginterrupt"):
                signal.siginterrupt(number, False)
            self._number = number

    def give_back(self) -> None:
        """Put the disposition back. On the main thread."""
        with self._lock:  # nothing is on its way while it changes: a late signal would kill
            number, self._number = self._number, None
            if number is not None and signal.getsignal(number) == self._on_signal:
                signal.signal(number, self._previous)

    def ask(self) -> None:
        """Have *given* called, as soon as an instruction ends."""
        with self._lock:
            if self._number is not None and os.getpid() == self._process:
                _thread.interrupt_main(self._number)  # type: ignore[arg-type]  # real-time numbers have no name

    def wake(self, callback: Callable[[], None], *, idle: bool) -> None:
        """Run *callback* once on the main thread; *idle* says that it may be waiting in the system."""
        if os.getpid() != self._process:
            return
        self._callbacks.append(callback)
        with self._lock:
            if self._number is not None and idle and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(self._main, self._number)
            else:
                self.ask()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Call nobody meanwhile; who was to be woken is called afterwards."""
        try:
            self._held = True
            yield
        finally:
            self._held = False
            if self._callbacks:
                self.ask()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or self._held:
            return
        while self._callbacks:
            shielded(self._callbacks.popleft())
        shielded(partial(self._given, frame))


def shielded(call: Callable[[], None]) -> None:
    """Call *call*; of what it raises, only a Ctrl-C of the user goes on to the cell."""
    try:
        call()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the cell comes first; whoever is called keeps what it has to say
        return


def _free_number() -> int | None:
    """Return a signal number that nobody handles, preferably one that means nothing to anybody."""
    names = ("SIGUSR2", "SIGUSR1", "SIGVTALRM", "SIGPROF", "SIGBREAK")
    real_time = range(int(signal.SIGRTMIN) + 5, int(signal.SIGRTMAX) + 1) if hasattr(signal, "SIGRTMIN") else range(0)
    named = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    return next((number for number in [*real_time, *named] if signal.getsignal(number) == signal.SIG_DFL), None)
