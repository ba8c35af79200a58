"""What is told about the last kernel of a notebook: an `Offer` into a few lines of text, or into a toast. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.offer import Offer
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_age, format_duration, format_size
from ipyrescue.store.lives import Life
from ipyrescue.wording import CUTS, CUTS_INSIDE, age, clean, clock, count, seconds_of, shortened

TOAST_CHARACTERS = 140
"""More of a notification JupyterLab does not show."""

_SOURCE_CHARACTERS = 60
_NAMES = 2
_PLACES = 5
_TITLE_CHARACTERS = 40
_SHORTEST_CAUSE = 8
_LONGEST_CAUSE = 200
_PROTECT = "%checkpoint_vars every=5m"


def describe(offer: Offer, now: float) -> str:
    """Tell what died, why, when and in which cell, what is saved and what to type; *now* in epoch seconds."""
    lines = story(offer, now)
    if offer.snapshot is not None:
        restore = restore_line(offer)
        lines.append(f"Bring it back: {restore}    Look first: {restore} --dry-run")
    return "\n".join(lines)


def story(offer: Offer, now: float) -> list[str]:
    """The same for where there are buttons: nothing to type."""
    lines = [_what_died(offer, now)]
    if offer.cause.place:
        lines.append(f"It stood in {' < '.join(map(_in_short, offer.cause.place[:_PLACES]))}.")
    return lines + what_is_left(offer, now)


def what_is_left(offer: Offer, now: float) -> list[str]:
    """Say which snapshot is proposed and why, and which other there is."""
    lines = []
    if offer.snapshot is None and offer.interrupted is None and offer.note is None:
        lines.append(_unreadable(offer) or f"It left no snapshot. So that the next one does: {_PROTECT}")
    if offer.note is not None:
        lines.append(offer.note)
    if offer.snapshot is not None:
        its = offer.snapshot.incarnation == offer.life.incarnation
        which = "Snapshot" if offer.note else "Its newest snapshot" if its else "The newest snapshot from before it"
        made = f"{_before(offer.snapshot, offer.death)}{_where(offer.snapshot)}"
        lines.append(f"{which}, {offer.snapshot.id[:8]}, was made {made}: {_contents(offer.snapshot)}.")
    if offer.interrupted is not None:
        lines.append(_interrupted(offer.interrupted, newer=offer.snapshot is not None, now=now))
    return lines


def toast(offer: Offer, now: float) -> str:
    """The same in at most 140 characters on two lines: what must not be cut is what is saved."""
    saved = _saved_in_short(offer)
    room = TOAST_CHARACTERS - len(saved) - 1
    life, cause = offer.life, offer.cause
    where = f" in cell [{life.cell}]" if life.cell_running and life.cell is not None else ""
    when = f" {format_age(now - offer.death.at)}" if offer.death.at > 0 else ""
    died = f"{shortened(title(life), _TITLE_CHARACTERS)}: kernel {_in_short(cause.verb)}"
    spare = room - len(f"{died} (){when}{where}.")
    why = f" ({shortened(clean(cause.text), spare)})" if spare >= _SHORTEST_CAUSE else ""
    return f"{shortened(f'{died}{why}{when}{where}.', room)}\n{saved}"


def describe_alive(life: Life) -> str:
    """Tell that the old kernel of the notebook is still running, and how to go on in it."""
    cell = f", busy in cell [{life.cell}]" if life.cell_running and life.cell is not None else ""
    told = f"Another kernel of {title(life)} is still running on {clean(life.host)} (pid {life.pid}{cell})."
    if life.kernel_id is None:
        return f"{told} Its snapshots are its own; to take one over nevertheless: %restore_vars --list"
    return (
        f"{told} Nothing is lost: to go on in it, choose it as this notebook's kernel (JupyterLab: Kernel, Change "
        f"Kernel; VS Code: Select Kernel, Existing Jupyter Server), or open a console: "
        f"jupyter console --existing kernel-{clean(life.kernel_id)}.json"
    )


def restore_line(offer: Offer) -> str:
    """Spell the line that takes what is proposed."""
    if offer.snapshot is None:
        return "%restore_vars --list"
    if offer.life.kind == "script":
        return "ipyrescue.resume()"
    # A console is known by its folder only, so it must be told which one it may take.
    if offer.life.kind == "notebook" and offer.device is None and not offer.renamed:
        return "%restore_vars"
    return line_for(offer.life, offer.snapshot.id) + (f" device={offer.device}" if offer.device else "")


def line_for(life: Life, snapshot_id: str) -> str:
    """Spell the line that restores one snapshot, where *life* was lived: a script has no magics."""
    name = clean(snapshot_id[:8])
    return f'ipyrescue.restore("{name}")' if life.kind == "script" else f"%restore_vars from={name}"


def process(life: Life) -> str:
    """What to call the process in a sentence."""
    return "run" if life.kind == "script" else "kernel"


def title(life: Life) -> str:
    """What to call a life's notebook in a sentence."""
    return clean(PurePosixPath(life.notebook).name) if life.kind != "console" else "this console"


def when_and_where(death: Death, now: float) -> str:
    """Say when a kernel died and which cell ran then."""
    return f"{_when(death, now)}{_in_which_cell(death)}"


def _what_died(offer: Offer, now: float) -> str:
    again = ", in the middle of a restore" if offer.life.restoring is not None else ""
    cause = f"{_in_short(offer.cause.verb)} ({_in_short(offer.cause.text)})"
    return f"The last {process(offer.life)} of {title(offer.life)} {cause} {when_and_where(offer.death, now)}{again}."


def _in_short(text: str) -> str:
    """A text of a life record, which nobody vouches for."""
    return shortened(clean(text), _LONGEST_CAUSE)


def _when(death: Death, now: float) -> str:
    if death.at <= 0:
        return "at an unknown time"
    about = "" if death.life.died_at else "about "
    return f"at {about}{clock(death.at, now=now)} ({format_age(now - death.at)})"


def _in_which_cell(death: Death) -> str:
    life = death.life
    if not life.cell_running:
        return " outside of its guard" if life.kind == "script" else " while no cell was running"
    name = f"cell [{life.cell}]" if life.cell is not None else "its block" if life.kind == "script" else "a cell"
    shown = shortened(clean((life.cell_source or "").strip().partition("\n")[0]), _SOURCE_CHARACTERS)
    seconds = death.at - (seconds_of(life.cell_started) or death.at)
    # A record that is no older than its cell is no measure of how long the cell ran.
    ran = f" had been running for {format_duration(seconds)}" if seconds >= 1 else " was running"
    return f" while {name}{ran}" + (f" ({shown})" if shown else "")


def _before(snapshot: Snapshot, death: Death) -> str:
    made = seconds_of(snapshot.created)
    if made is None or death.at <= 0:
        return "at an unknown time"
    return f"{format_duration(death.at - made)} before" if death.at - made >= 1 else "just before"


def _where(snapshot: Snapshot) -> str:
    """Say at which place of a cell that ran it was cut."""
    return f", {CUTS[snapshot.cut]}" if snapshot.cut in CUTS_INSIDE else ""


def _contents(snapshot: Snapshot, *, between: str = " and ") -> str:
    """`model, opt and 14 more, 1.3 GB`: tagged names first."""
    names = [v.name for v in snapshot.globals]
    first = [n for n in snapshot.settings.tagged if n in names]
    shown = [shortened(clean(n), 20) for n in (*first, *(n for n in names if n not in first))][:_NAMES]
    rest = len(names) - len(shown)
    told = ", ".join(shown) + (f"{between}{rest:,} more" if rest > 0 else "")
    return f"{told or count(0, 'variable')}, {format_size(snapshot.size_bytes)}"


def _saved_in_short(offer: Offer) -> str:
    if offer.snapshot is not None:
        contents = _contents(offer.snapshot, between=", ")
        return shortened(f"Snapshot {_before(offer.snapshot, offer.death)}: {contents}.", 90)
    if offer.interrupted is not None:
        return f"Only a snapshot in mid-step is left: {offer.interrupted.id[:8]}."
    if offer.note is not None:
        return "No snapshot is proposed: each one killed the kernel."
    if offer.unreadable:
        return f"{count(offer.unreadable, 'snapshot')} there cannot be read."
    return f"No snapshot there. For the next time: {_PROTECT}"


def _unreadable(offer: Offer) -> str | None:
    if not offer.unreadable:
        return None
    return (
        f"{count(offer.unreadable, 'snapshot')} there cannot be read: signed by another key, or damaged. "
        "In the notebook, %snapshots --all shows them; IPYRESCUE_KEY_FILE names the key."
    )


def _interrupted(snapshot: Snapshot, *, newer: bool, now: float) -> str:
    reason = f" ({clean(snapshot.reason)})" if snapshot.reason else ""
    which = "A newer one" if newer else "Its only snapshot"
    made = age(snapshot.created, now=now)
    return (
        f"{which}, {snapshot.id[:8]}, was cut in the middle of a step{reason} {made}, so it may be torn; "
        f"to take it: %restore_vars from={snapshot.id[:8]}"
    )
