"""How well a kernel is protected right now: its life record and its newest snapshot into one word and a sentence.

Pure. What is stale is never called protection: without a snapshot, with attempts that failed, when what a cell trains
is in no variable, or when what a cell did has been in no snapshot for more than twice the interval, it says so, and why
where that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ipyrescue.settings import format_age, format_duration
from ipyrescue.store.lives import Life
from ipyrescue.wording import clean, seconds_of, shortened

Level = Literal["protected", "stale", "failing", "not_armed", "not_loaded", "no_kernel"]
_LABEL_CHARACTERS = 40
_TAIL_SECONDS = 1.0
"""What a cell does after its last command has saved: the report of that command, mostly."""

_HINT = "To protect it: %checkpoint_vars every=5m"
_NO_SAFE_POINT = (
    "no place was reached where its state is consistent: it may be in one long call, or train in other processes"
)


@dataclass(frozen=True)
class Protection:
    """*state* for programs, *label* of at most 40 characters for a status line, *text* in full sentences.

    *paused* says why no snapshot can be made inside the running cell just now, before that has made it stale.
    """

    state: Level
    label: str
    text: str
    paused: str | None = None


def protection(
    life: Life | None, now: float, *, running: bool = True, aged: Callable[[float], str] = format_age
) -> Protection:
    """Judge a kernel. *life* is its record, None if it has not loaded ipyrescue; *running*: there is a kernel.

    *now* is in seconds since the epoch; *aged* puts into words how many seconds ago something was.
    """
    if not running:
        return Protection("no_kernel", "no kernel", "There is no kernel, so there is nothing to protect.")
    if life is None:
        return Protection(
            "not_loaded", "not protected", f"This kernel has not loaded ipyrescue: %load_ext ipyrescue. {_HINT}"
        )
    judged = _judged(life, now, aged)
    beside = "".join(f" {clean(text)}" for text in (life.damage, life.outlook) if text is not None)
    return replace(judged, text=judged.text + beside)


def _judged(life: Life, now: float, aged: Callable[[float], str]) -> Protection:
    last = _last(life, now, aged)
    if life.every_seconds is None:
        return Protection("not_armed", "not protected", f"Snapshots are made only by hand; {last}. {_HINT}")
    if life.failure is not None:
        return Protection(
            "failing", "NOT protected: saving fails", f"NOT protected: saving fails; {last}. {clean(life.failure)}"
        )
    saved = seconds_of(life.saved_at)
    if saved is None:
        every = format_duration(life.every_seconds)
        return Protection(
            "stale", "not protected: no snapshot yet", f"Armed for every {every}, but there is no snapshot yet."
        )
    if life.lacking is not None:
        return Protection(
            "stale",
            "NOT protected: training is not saved",
            f"NOT protected, although there are snapshots of your variables; {last}. {clean(life.lacking)}",
        )
    if _unsaved_seconds(life, saved, now) > 2 * interval_of(life):
        return Protection(
            "stale",
            shortened(f"stale: last {format_age(now - saved)}", _LABEL_CHARACTERS),
            f"{_stale(life)} Snapshots are wanted every {interval_words(life)}; {last}.",
        )
    paused = clean(life.inside) if life.inside is not None and life.cell_running else None
    but = f" Inside this cell it is paused: {paused}." if paused is not None else ""
    return Protection(
        "protected",
        shortened(f"protected, {format_age(now - saved)}", _LABEL_CHARACTERS),
        f"Protected: a snapshot at most every {interval_words(life)}, also inside cells; {last}.{but}",
        paused,
    )


def interval_of(life: Life) -> float:
    """The interval in force, in seconds; 0 of a kernel that is not armed."""
    return max(life.every_seconds or 0.0, life.interval_seconds or 0.0)


def interval_words(life: Life) -> str:
    """Say the interval in force, and why it is longer than what was asked for: `12 min (stretched from 5 min ...)`."""
    told, wanted = format_duration(interval_of(life)), format_duration(life.every_seconds or 0.0)
    if told == wanted:
        return told
    cost = (life.pause_seconds or 0.0) + (life.slowdown_seconds or 0.0)
    because = f", because a snapshot costs {format_duration(cost)}" if cost > 0 else ""
    return f"{told} (stretched from {wanted}{because})"


def _stale(life: Life) -> str:
    """Say what is in no snapshot, and why."""
    if not life.cell_running:
        return "What the last cell did is NOT saved."
    return f"The running cell is NOT protected: {clean(life.inside) if life.inside is not None else _NO_SAFE_POINT}."


def _unsaved_seconds(life: Life, saved: float, now: float) -> float:
    """How long there has been something that is in no snapshot: what the running cell did, or the last one."""
    began = seconds_of(life.cell_started)
    if began is None:
        return 0.0
    through = seconds_of(life.saved_through) or saved
    ended = seconds_of(life.cell_ended) or began
    tail = _TAIL_SECONDS if through > saved else 0.0  # the cell waited for it
    return now - max(began, through) if life.cell_running or ended - through > tail else 0.0


def _last(life: Life, now: float, aged: Callable[[float], str]) -> str:
    saved = seconds_of(life.saved_at)
    return f"the last one {aged(now - saved)}" if saved is not None else "there is none yet"
