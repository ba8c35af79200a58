"""Which optimizers step in a cell, how often, and while a snapshot is wanted: from where.

Turns steps into the optimizers that belong to the loop that runs now. Knows no torch and no tracing. It is told of each
step of a training, so that costs well under a microsecond; the stack is looked at only while somebody asks.
"""

from __future__ import annotations

import statistics
import weakref
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FrameType

from ipyrescue.capture.headers import Loop

REMEMBERED = 64
ACTIVE_INTERVALS = 5
"""An optimizer is part of the loop until it has missed this many of its own intervals."""
_UNKNOWN_INTERVAL = 20  # at most, of an optimizer that has stepped once
_FADING = 0.9
_LATEST = 8

Chain = list[tuple[CodeType, int, int]]
"""Where control stood in each frame of a cell at a step, innermost first: code, offset of the instruction, line."""


class Stepped:
    """One optimizer. *count* numbers its last step among those of all, *interval* is how many of them lie between its.

    *chain* is where it stepped from since somebody asked, if it has; *within* the code that has returned when its
    training is over, once somebody has asked.
    """

    __slots__ = ("alive", "chain", "count", "first", "follower", "interval", "within")

    def __init__(self, optimizer: object, count: int) -> None:
        self.alive = _reference(optimizer)
        self.first = self.count = count
        self.interval = float(min(count, _UNKNOWN_INTERVAL))
        self.follower = self
        self.chain: Chain = []
        self.within: CodeType | None = None

    def stepped_in(self, loop: Loop) -> bool:
        """Whether it is known that the last step came from the body of *loop*."""
        return any(code is loop.code and loop.encloses(line) for code, _, line in self.chain)


class Steps:
    """The steps of one cell; *times* are those of the last ones."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=REMEMBERED)
        self.forget()

    def forget(self) -> None:
        """A new cell: what stepped in the last one says nothing about it."""
        self.times.clear()
        self._count = 0
        self._optimizers: dict[int, Stepped] = {}
        self._last: Stepped | None = None

    def forget_chains(self) -> None:
        """Somebody asks anew: what stepped before may step from elsewhere by now."""
        for stepped in list(self._optimizers.values()):
            stepped.chain = []

    def note(self, optimizer: object, now: float) -> Stepped:
        """Note a step of *optimizer* at *now* seconds."""
        self.times.append(now)
        self._count = count = self._count + 1
        stepped = self._optimizers.get(id(optimizer))
        if stepped is None or stepped.alive() is None:  # another one at its address
            stepped = self._meet(optimizer, count)
        else:
            interval, faded = count - stepped.count, stepped.interval * _FADING
            stepped.interval = interval if interval > faded or stepped.count == stepped.first else faded
            stepped.count = count
        if self._last is not None:
            self._last.follower = stepped
        self._last = stepped
        return stepped

    def active(self) -> list[Stepped]:
        """Return the optimizers that belong to what is trained now.

        Measured in steps and not in seconds, because an evaluation between two steps may take as long as it likes.
        """
        return [one for one in list(self._optimizers.values()) if self._is_active(one)]

    def _is_active(self, one: Stepped) -> bool:
        return self._count - one.count <= ACTIVE_INTERVALS * one.interval and one.alive() is not None

    def _meet(self, optimizer: object, count: int) -> Stepped:
        """Some trainings make a new optimizer for each task, so those of the past are forgotten."""
        if len(self._optimizers) >= REMEMBERED:
            self._optimizers = {key: one for key, one in self._optimizers.items() if self._is_active(one)}
        stepped = self._optimizers[id(optimizer)] = Stepped(optimizer, count)
        return stepped

    def completes(self, stepped: Stepped) -> bool:
        """Whether a round of all active optimizers ends with the step of *stepped*, as far as rounds were seen."""
        active = self.active()
        begins = min(active, key=lambda one: one.first)
        return len(active) == 1 or (stepped is not begins and stepped.follower is begins)

    @property
    def round_seconds(self) -> float:
        """The usual time in which each active optimizer steps once; nothing before there were two steps."""
        latest = list(self.times)[-_LATEST:]
        pauses = [later - earlier for earlier, later in pairwise(latest)]
        known = [one.interval for one in self.active() if one.count > one.first]
        return statistics.median(pauses) * max(known, default=1.0) if pauses else 0.0


def _reference(optimizer: object) -> Callable[[], object | None]:
    try:
        return weakref.ref(optimizer)
    except TypeError:  # it has slots, and none for this
        return lambda: True


def chain_of(frames: list[FrameType]) -> Chain:
    """Return where control stands in *frames*."""
    return [(frame.f_code, frame.f_lasti, frame.f_lineno) for frame in frames]
