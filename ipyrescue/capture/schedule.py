"""When to checkpoint: what happened in a cell, the clock and what snapshots cost, into a decision. Pure; no clock.

The interval is stretched where snapshots cost too much: what one costs (the pause, and the time that training lost
while it was written) divided by the interval is the share of run time that protection takes, and that has a limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, median_low

_MOST_DOUBLINGS = 6
_LONGEST_BACK_OFF_SECONDS = 1800.0
_REMEMBERED_COSTS = 5
_FEWEST_STEPS = 3
UNNOTICED_SECONDS = 0.1
"""At the end of a cell a pause this short is not felt, so it stretches nothing there."""


@dataclass(frozen=True)
class Schedule:
    """How often snapshots are wanted. Without *every_seconds* nothing is armed and nothing is ever due.

    *max_share* is the most of run time that snapshots may take, 0.01 being a hundredth.
    """

    every_seconds: float | None = None
    long_cell_seconds: float | None = 60.0
    max_share: float = 0.01


@dataclass(frozen=True)
class Decision:
    """A snapshot is due, and *trigger* says why: `every`, `long cell` or `exception`."""

    trigger: str

    @property
    def interrupted(self) -> bool:
        """Whether the cell stopped in the middle of a step, so that the cut cannot be called consistent."""
        return self.trigger == "exception"


@dataclass
class Costs:
    """What the last snapshots cost, in seconds: the pause, and what was lost beside the pause."""

    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_COSTS))

    def add(self, pause_seconds: float, slowdown_seconds: float = 0.0) -> None:
        """Note what one snapshot cost."""
        self._seconds.append(pause_seconds + slowdown_seconds)

    @property
    def typical_seconds(self) -> float:
        """The median of the last ones, of two the smaller: the first one pays for memory that the next one finds."""
        return median_low(self._seconds) if self._seconds else 0.0


def due(
    schedule: Schedule,
    *,
    now: float,
    last: float | None,
    cell_seconds: float,
    raised: bool,
    failures: int,
    cost_seconds: float = 0.0,
) -> Decision | None:
    """Decide at the end of a cell whether a snapshot is due.

    *now* and *last* (when the last attempt began, `None` before the first) come from one monotonic clock;
    *failures* counts the attempts that failed in a row, *cost_seconds* is what a snapshot costs. While attempts fail,
    only the backed-off interval counts, so that a full disk is not asked again after each cell.
    """
    if schedule.every_seconds is None:
        return None
    felt = cost_seconds if cost_seconds > UNNOTICED_SECONDS else 0.0
    interval = stretched_seconds(schedule.every_seconds, felt, schedule.max_share)
    elapsed = last is None or now - last >= interval_seconds(interval, failures=failures)
    long = schedule.long_cell_seconds is not None and cell_seconds >= schedule.long_cell_seconds
    if not elapsed and (failures or not (raised or long)):
        return None
    return Decision("exception" if raised else "every" if elapsed else "long cell")


def due_inside(
    schedule: Schedule,
    *,
    now: float,
    last: float | None,
    unsaved_since: float,
    failures: int = 0,
    cost_seconds: float = 0.0,
) -> Decision | None:
    """Decide while a cell runs whether a snapshot inside it is due, at its next safe point.

    *now*, *last* (when the last attempt began) and *unsaved_since* come from one monotonic clock. *unsaved_since* is
    when the first cell began that no snapshot holds, mostly the running one: after a night in which nothing ran, a new
    cell has an interval's time, but what the cell before it did is not let wait for one more.
    """
    if schedule.every_seconds is None:
        return None
    interval = stretched_seconds(schedule.every_seconds, cost_seconds, schedule.max_share)
    began = unsaved_since if last is None else max(last, unsaved_since)
    return Decision("every") if now - began >= interval_seconds(interval, failures=failures) else None


def stretched_seconds(every_seconds: float, cost_seconds: float, share: float) -> float:
    """Return the interval at which snapshots take at most *share* of run time, and at least *every_seconds*.

    *cost_seconds* is what one costs: its pause, and the time that the program lost while it was written.
    """
    return max(every_seconds, max(cost_seconds, 0.0) / share)


def interval_seconds(every_seconds: float, *, failures: int) -> float:
    """Return the interval after *failures* in a row: doubled by each, at most 64 times as long and half an hour."""
    doubled = every_seconds * float(1 << min(max(failures, 0), _MOST_DOUBLINGS))
    return min(doubled, max(every_seconds, _LONGEST_BACK_OFF_SECONDS))


def slowdown_seconds(before: Sequence[float], during: Sequence[float], *, began: float, ended: float) -> float:
    """Return how much longer training took because a snapshot was written from *began* (after the pause) to *ended*.

    All are times of one monotonic clock. *before* are the ends of optimizer steps as they were known at *began*,
    *during* as they are known now: the last 64 of each are enough, and both may overlap. The measure is the median of
    the steps before; with fewer than three of those, or none since, nothing can be said, which is 0. The first step
    counts by itself, since the copies that a fork makes fall into it, the others by their median, so that an
    evaluation or a slow file of the user is not put down to us; and nothing costs more time than the writing took.
    """
    usual = [later - earlier for earlier, later in pairwise(t for t in before if t <= began)]
    if len(usual) < _FEWEST_STEPS or ended <= began:
        return 0.0
    known = [time for time in during if time > began]
    # What the last 64 steps no longer hold were so many and so short that the first one does not matter.
    marks = [began, *known] if len(known) < len(during) else known
    return _lost_seconds([(a, b) for a, b in pairwise(marks) if a < ended], median(usual), began, ended)


def _lost_seconds(steps: list[tuple[float, float]], usual: float, began: float, ended: float) -> float:
    """What these steps (begin, end) took beyond *usual* each, for all of the time from *began* to *ended*."""
    if not steps:
        return 0.0
    excess = [min(b - a - usual, min(b, ended) - a) for a, b in steps]
    first, others = excess[0], excess[1:]
    lost = first + (median(others) * len(others) if others else 0.0)
    seen = min(steps[-1][1], ended) - steps[0][0]
    unseen = (ended - began) / seen if seen > 0 else 1.0
    return min(max(lost * unseen, 0.0), ended - began)
