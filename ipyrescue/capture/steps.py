"""Which optimizers step in a cell, from where, and how often.

Turns each step of an optimizer into its chain: where control stands in each frame of the cell's own code, innermost
first, up to the cell. Knows no torch and no tracing. It is asked after each step of a training, so it costs about a
microsecond: what is dear (lines, loops) is left for when a snapshot is wanted.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FrameType

from ipyrescue.capture.headers import Loop, is_top_level

REMEMBERED = 64
ACTIVE_INTERVALS = 5
"""An optimizer is part of the loop until it has missed this many of its own intervals."""
_FADING = 0.9
_LATEST = 8
_LIBRARY, _CELL, _TOP = range(3)

Chain = list[CodeType | int]


class Stepped:
    """One optimizer: its last *chain*, and after how many steps of all optimizers it steps again (*interval*)."""

    __slots__ = ("chain", "count", "first", "follower", "interval")

    def __init__(self, count: int) -> None:
        self.first = self.count = count
        self.interval = float(count)
        self.chain: Chain = []
        self.follower = self

    def stepped_in(self, loop: Loop) -> bool:
        """Whether the last step came from the body of *loop*."""
        pairs = zip(self.chain[::2], self.chain[1::2], strict=True)
        return any(code is loop.code and loop.encloses(_line(code, offset)) for code, offset in pairs)


class Steps:
    """The steps of one cell. *is_cell* says which code is the user's own; *times* are those of the last steps."""

    def __init__(self, is_cell: Callable[[CodeType], bool]) -> None:
        self._is_cell = is_cell
        self.times: deque[float] = deque(maxlen=REMEMBERED)
        self.forget()

    def forget(self) -> None:
        """A new cell: what stepped in the last one says nothing about it."""
        self.times.clear()
        self._count = 0
        self._optimizers: dict[int, Stepped] = {}
        self._last: Stepped | None = None
        self._outermost: FrameType | None = None
        self._kinds: dict[int, tuple[int, CodeType]] = {}  # by id, and kept: the hash of a code object reads all of it

    def note(self, optimizer: object, frame: FrameType | None, now: float) -> Stepped:
        """Note a step of *optimizer* at *now* seconds that was made by *frame* or below it."""
        self.times.append(now)
        self._count = count = self._count + 1
        stepped = self._optimizers.get(id(optimizer))
        if stepped is None:
            stepped = self._optimizers[id(optimizer)] = Stepped(count)
        else:
            interval, faded = count - stepped.count, stepped.interval * _FADING
            stepped.interval = interval if interval > faded else faded
            stepped.count = count
        if self._last is not None:
            self._last.follower = stepped
        self._last = stepped
        stepped.chain = self._chain(frame)
        return stepped

    def active(self) -> list[Stepped]:
        """Return the optimizers that belong to what is trained now.

        Measured in steps and not in seconds, because an evaluation between two steps may take as long as it likes.
        """
        return [one for one in self._optimizers.values() if self._count - one.count <= ACTIVE_INTERVALS * one.interval]

    def completes(self, stepped: Stepped) -> bool:
        """Whether a round of all active optimizers ends with the step of *stepped*, as far as rounds were seen."""
        active = self.active()
        begins = min(active, key=lambda one: one.first)
        return len(active) == 1 or (stepped is not begins and stepped.follower is begins)

    @property
    def interval_seconds(self) -> float:
        """The usual time from one step to the next; nothing before there were two."""
        latest = list(self.times)[-_LATEST:]
        pauses = [later - earlier for earlier, later in pairwise(latest)]
        return statistics.median(pauses) if pauses else 0.0

    def _chain(self, frame: FrameType | None) -> Chain:
        chain: Chain = []
        kinds, top = self._kinds, None
        while frame is not None:
            code = frame.f_code
            known = kinds.get(id(code)) or self._kind(code)
            if known[0]:
                chain += (code, frame.f_lasti)
                if frame is self._outermost:
                    return chain
                top = frame if known[0] == _TOP else top
            frame = frame.f_back
        self._outermost = top  # what is below are the frames of the kernel, walked once for each statement
        return chain

    def _kind(self, code: CodeType) -> tuple[int, CodeType]:
        kind = (_TOP if is_top_level(code) else _CELL) if self._is_cell(code) else _LIBRARY
        known = self._kinds[id(code)] = kind, code
        return known


def _line(code: CodeType | int, offset: CodeType | int) -> int:
    assert isinstance(code, CodeType)
    assert isinstance(offset, int)
    return next((line for start, end, line in code.co_lines() if start <= offset < end and line), 0)
