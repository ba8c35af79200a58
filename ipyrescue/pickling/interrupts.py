"""A Ctrl-C of the user, told from a `KeyboardInterrupt` that an object raises while it is pickled."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def watched() -> Iterator[Callable[[], bool]]:
    """Yield the question whether the user has interrupted since; it is yes where that cannot be known."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals arrive in the main thread only
        return
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        yield lambda: handler is None
        return
    pressed: list[Any] = []
    here = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != here:
            return  # a child that was just forked: the interrupt is its parent's
        pressed.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, handler)
