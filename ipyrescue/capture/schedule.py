"""When to checkpoint: what happened in a cell, and the clock, into a decision. Pure; knows no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 6


@dataclass(frozen=True)
class Schedule:
    """How often snapshots are wanted. Without *every_seconds* nothing is armed and nothing is ever due."""

    every_seconds: float | None = None
    long_cell_seconds: float | None = 60.0


@dataclass(frozen=True)
class Decision:
    """A snapshot is due, and *trigger* says why: `every`, `long cell` or `exception`."""

    trigger: str

    @property
    def interrupted(self) -> bool:
        """Whether the cell stopped in the middle of a step, so that the cut cannot be called consistent."""
        return self.trigger == "exception"


def due(
    schedule: Schedule, *, now: float, last: float | None, cell_seconds: float, raised: bool, failures: int
) -> Decision | None:
    """Decide at the end of a cell whether a snapshot is due.

    *now* and *last* (when the last attempt began, `None` before the first) come from one monotonic clock;
    *failures* counts the attempts that failed in a row. While they fail, only the backed-off interval counts, so that
    a full disk is not asked again after each cell.
    """
    if schedule.every_seconds is None:
        return None
    elapsed = last is None or now - last >= interval_seconds(schedule.every_seconds, failures=failures)
    long = schedule.long_cell_seconds is not None and cell_seconds >= schedule.long_cell_seconds
    if not elapsed and (failures or not (raised or long)):
        return None
    return Decision("exception" if raised else "every" if elapsed else "long cell")


def interval_seconds(every_seconds: float, *, failures: int) -> float:
    """Return the interval after *failures* in a row: doubled by each, at most 64 times as long."""
    return every_seconds * float(1 << min(max(failures, 0), _MOST_DOUBLINGS))
