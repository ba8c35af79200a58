"""Line events of chosen frames, through `sys.settrace`, with nothing left behind.

Turns what Python calls a trace function into three questions to whoever wants the lines. Knows no loops. A tracer that
is there already is never touched, and a Ctrl-C of the user at any moment leaves no half of ours.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from ipyrescue.capture.headers import Position

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Wants(Protocol):
    """Who wants to know of lines."""

    def follows(self, frame: FrameType) -> bool:
        """Whether the lines of *frame*, which begins, are wanted too."""

    def line(self, frame: FrameType, before: Position, now: Position) -> Callable[[], None] | None:
        """A traced frame went on to another line; what is returned is called when the tracing was taken back."""

    def left(self, frame: FrameType) -> None:
        """A traced frame has ended."""


class Tracing:
    """Traces frames of the main thread for *wants*, from `on` until `off`. A forked child does not trace on."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._process = os.getpid()
        self._global = self._entered  # a bound method is made anew each time; these two are compared by identity
        self._local = self._happened
        self._frames: dict[FrameType, Position] = {}

    def on(self, frames: list[FrameType]) -> None:
        """Trace the lines of *frames*, all of them: the innermost may return first."""
        with _uninterrupted():
            for frame in frames:
                self._frames[frame] = _position(frame)
                frame.f_trace = self._local
            if sys.gettrace() is None:
                sys.settrace(self._global)

    def off(self) -> None:
        """Take everything back, also what an interrupt has left half done."""
        if not self._frames and sys.gettrace() is not self._global:
            return
        with _uninterrupted():
            if sys.gettrace() is self._global:
                sys.settrace(None)
            for frame in list(self._frames):
                if frame.f_trace is self._local:
                    frame.f_trace = None
            self._frames.clear()

    def is_taken(self, frames: list[FrameType]) -> bool:
        """Whether somebody else traces, or one of *frames* is traced by somebody else. If so, ours is off."""
        taken = sys.gettrace() not in (None, self._global) or any(
            frame.f_trace not in (None, self._local) for frame in frames
        )
        if taken or sys.gettrace() is None:
            self.off()
        return taken

    def _entered(self, frame: FrameType, event: str, arg: object) -> Any:
        """A frame begins, or goes on after a `yield`."""
        if os.getpid() != self._process:
            self.off()
        elif frame in self._frames or self._wants.follows(frame):
            self._frames[frame] = self._frames.get(frame) or _position(frame)
            return self._local
        return None

    def _happened(self, frame: FrameType, event: str, arg: object) -> Any:
        reach: Callable[[], None] | None = None
        try:
            reach = self._look(frame, event)
        except KeyboardInterrupt:
            self.off()
            raise
        except BaseException:  # noqa: BLE001 - a mistake of ours costs the cut, never the cell
            self.off()
        if reach is not None:
            self.off()
            reach()
            _ = frame.f_locals  # before 3.13 the end of this call writes them back, as they were when last read
        return self._local if frame in self._frames else None

    def _look(self, frame: FrameType, event: str) -> Callable[[], None] | None:
        if os.getpid() != self._process or sys.gettrace() is not self._global:
            self.off()
        elif event == "line" and frame in self._frames:
            before, now = self._frames[frame], _position(frame)
            self._frames[frame] = now
            return self._wants.line(frame, before, now)
        elif event == "return" and not _is_suspended(frame):
            self._frames.pop(frame, None)
            frame.f_trace = None
            self._wants.left(frame)
        return None


def _position(frame: FrameType) -> Position:
    return Position(frame.f_lineno or 0, frame.f_lasti)


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame that "returns" only yields or awaits, and will go on."""
    code, offset = frame.f_code, frame.f_lasti
    here, after = (dis.opname[byte] for byte in code.co_code[offset : offset + 4 : 2].ljust(2, b"\0"))
    if not code.co_flags & _GENERATORS:
        return False
    return "YIELD" in here or here == "RESUME" or after == "YIELD_FROM"  # up to 3.12; 3.13; 3.10 when it awaits


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold a Ctrl-C back for a moment: half of a change would leave a tracer behind."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[-1])
