"""How well a kernel is protected right now: its life record and its newest snapshot into one word and a sentence.

Pure. What is stale is never called protection: without a snapshot, with attempts that failed, or when what the last
cell did has been unsaved for more than twice the interval, it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ipyrescue.settings import format_age, format_duration
from ipyrescue.store.lives import Life
from ipyrescue.wording import clean, seconds_of, shortened

Level = Literal["protected", "stale", "failing", "not_armed", "not_loaded", "no_kernel"]
_LABEL_CHARACTERS = 40
_HINT = "To protect it: %checkpoint_vars every=5m"


@dataclass(frozen=True)
class Protection:
    """*state* for programs, *label* of at most 40 characters for a status line, *text* in full sentences."""

    state: Level
    label: str
    text: str


def protection(life: Life | None, now: float, *, running: bool = True) -> Protection:
    """Judge a kernel. *life* is its record, None if it has not loaded ipyrescue; *running*: there is a kernel.

    *now* is in seconds since the epoch.
    """
    if not running:
        return Protection("no_kernel", "no kernel", "There is no kernel, so there is nothing to protect.")
    if life is None:
        return Protection(
            "not_loaded", "not protected", f"This kernel has not loaded ipyrescue: %load_ext ipyrescue. {_HINT}"
        )
    if life.every_seconds is None:
        return Protection("not_armed", "not protected", f"Snapshots are made only by hand{_last(life, now)}. {_HINT}")
    every = format_duration(life.every_seconds)
    if life.failure is not None:
        told = f"Saving fails{_last(life, now)}. {clean(life.failure)}"
        return Protection("failing", "NOT protected: saving fails", told)
    saved = seconds_of(life.saved_at)
    if saved is None:
        return Protection(
            "stale", "not protected: no snapshot yet", f"Armed for every {every}, but there is no snapshot yet."
        )
    age = format_age(now - saved)
    if _unsaved_seconds(life, saved, now) > 2 * life.every_seconds:
        what = "The running cell is not protected" if life.cell_running else "What the last cell did is not saved"
        return Protection(
            "stale",
            shortened(f"stale: last {age}", _LABEL_CHARACTERS),
            f"{what}: snapshots are made between cells, at most every {every}; the last one {age}.",
        )
    return Protection(
        "protected",
        shortened(f"protected, {age}", _LABEL_CHARACTERS),
        f"Protected: a snapshot at most every {every}; the last one {age}.",
    )


def _unsaved_seconds(life: Life, saved: float, now: float) -> float:
    """How long there has been something that is in no snapshot: the running cell, or the last one if it came later."""
    began = seconds_of(life.cell_started)
    if began is None or (began <= saved and not life.cell_running):
        return 0.0
    return now - max(began, saved)


def _last(life: Life, now: float) -> str:
    saved = seconds_of(life.saved_at)
    return f"; the last one {format_age(now - saved)}" if saved is not None else "; there is none yet"
