"""What is told about the last kernel of a notebook: a `Death` and its snapshots into a few lines of text. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from ipyrescue.incarnations.deaths import Death
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_age, format_duration, format_size
from ipyrescue.store.lives import Life
from ipyrescue.wording import age, clean, clock, count, seconds_of, shortened

_SOURCE_CHARACTERS = 60


def describe_death(death: Death, newest: Snapshot | None, interrupted: Snapshot | None, now: float) -> str:
    """Tell when it died, which cell ran, what the newest snapshot holds, and what to type.

    *newest* is the consistent snapshot that a plain `%restore_vars` takes; *interrupted* a newer one that was cut in
    the middle of a step. *now* is in seconds since the epoch.
    """
    lines = [f"The last kernel of {title(death.life)} died {_when(death, now)}{_in_which_cell(death)}."]
    if newest is None and interrupted is None:
        lines.append("It left no snapshot. So that the next one does: %checkpoint_vars every=5m")
    if newest is not None:
        made = age(newest.created, now=now)
        whose = "Its newest snapshot" if newest.incarnation == death.life.incarnation else "The newest one from before"
        lines.append(f"{whose}, {newest.id[:8]}, holds {_contents(newest)} and was made {made}.")
        # A console is known by its folder only, so it must be told which one it may take.
        restore = "%restore_vars" if death.life.kind == "notebook" else f"%restore_vars from={newest.id[:8]}"
        lines.append(f"Bring it back: {restore}    Look first: {restore} --dry-run")
    if interrupted is not None:
        lines.append(_interrupted(interrupted, newer=newest is not None, now=now))
    return "\n".join(lines)


def describe_alive(life: Life) -> str:
    """Tell that the old kernel of the notebook is still running, and where."""
    cell = f", busy in cell [{life.cell}]" if life.cell_running and life.cell is not None else ""
    return (
        f"Another kernel of {title(life)} is still running on {clean(life.host)} (pid {life.pid}{cell}). "
        "Its snapshots are its own; to take one over nevertheless: %restore_vars --list"
    )


def title(life: Life) -> str:
    """What to call a life's notebook in a sentence."""
    return clean(PurePosixPath(life.notebook).name) if life.kind == "notebook" else "this console"


def _when(death: Death, now: float) -> str:
    if death.last_seen <= 0:
        return "at an unknown time"
    return f"at about {clock(death.last_seen, now=now)} ({format_age(now - death.last_seen)})"


def _in_which_cell(death: Death) -> str:
    life = death.life
    if not life.cell_running:
        return " while no cell was running"
    name = f"cell [{life.cell}]" if life.cell is not None else "a cell"
    shown = shortened(clean((life.cell_source or "").strip().partition("\n")[0]), _SOURCE_CHARACTERS)
    seconds = death.last_seen - (seconds_of(life.cell_started) or death.last_seen)
    # A record that is no older than its cell is no measure of how long the cell ran.
    ran = f" had been running for {format_duration(seconds)}" if seconds >= 1 else " was running"
    return f" while {name}{ran}" + (f" ({shown})" if shown else "")


def _contents(snapshot: Snapshot) -> str:
    return f"{count(len(snapshot.variables), 'variable')}, {format_size(snapshot.size_bytes)},"


def _interrupted(snapshot: Snapshot, *, newer: bool, now: float) -> str:
    reason = f" ({clean(snapshot.reason)})" if snapshot.reason else ""
    which = "A newer one" if newer else "Its only snapshot"
    made = age(snapshot.created, now=now)
    return (
        f"{which}, {snapshot.id[:8]}, was cut in the middle of a step{reason} {made}, so it may be torn; "
        f"to take it: %restore_vars from={snapshot.id[:8]}"
    )
