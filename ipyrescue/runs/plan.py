"""Where a run goes on: what is done, the notebook's cells and the run's snapshots into a Plan. Pure.

The rules stand in docs/runs.md. Knows no files, no kernels and no clocks; order is by sequence number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ipyrescue.runs.record import Done

SKIP_TAG = "skip-execution"
"""nbclient's tag for cells that are not run."""
CONTINUE_TAG = "ipyrescue-continue"
"""A cell with this tag goes on from whatever snapshot was cut inside it, also without a loop of ipyrescue's."""


@dataclass(frozen=True)
class Code:
    """A code cell that runs: its *number* among them (from 1), where it stands, and the *chain* up to it."""

    number: int
    index: int
    chain: str
    continues: bool = False


@dataclass(frozen=True)
class Saved:
    """A snapshot of the run, as far as the rules ask: *inside* a cell, and whether it holds what loops stand at."""

    id: str
    sequence: int
    inside: bool
    progress: bool


@dataclass(frozen=True)
class Left:
    """What earlier attempts left: the *cell* that was cut off, if it goes on at all, and what is *done*.

    Snapshots inside cells up to the sequence number *stale_through* are of another cell, or of this one as it was.
    """

    done: tuple[Done, ...] = ()
    cell: int | None = None
    stale_through: int = 0


@dataclass(frozen=True)
class Plan:
    """Begin with the cell number *first* after restoring *snapshot*; None: from nothing.

    *goes_on*: the snapshot was cut inside that cell. *sentences* say what runs again though it had run.
    """

    first: int
    snapshot: str | None = None
    goes_on: bool = False
    sentences: tuple[str, ...] = ()


def runs(source: str, tags: Collection[str]) -> bool:
    """Whether a code cell runs, and counts."""
    return bool(source.strip()) and SKIP_TAG not in tags


def chains(sources: Iterable[str]) -> list[str]:
    """For each code cell a hash over its source and all before it: equal only where everything before is equal."""
    running, found = hashlib.sha256(), []
    for source in sources:
        running.update(source.encode("utf-8", "surrogatepass") + b"\0")
        found.append(running.hexdigest())
    return found


def plan(cells: Sequence[Code], left: Left, snapshots: Collection[Saved], unusable: Collection[str] = ()) -> Plan:
    """Choose by the rules of docs/runs.md; *unusable* are the ids of snapshots that could not be restored."""
    there = {snapshot.id: snapshot for snapshot in snapshots if snapshot.id not in unusable}
    matching = [done for done in left.done if _matches(done, cells)]
    last = max(matching, key=lambda done: done.cell, default=None)
    inside = _inside(cells, left, last, there)
    if inside is not None:
        return Plan(_after(last), inside.id, goes_on=True, sentences=tuple(_edited(left.done, cells)))
    found = max((done for done in matching if done.snapshot in there), key=lambda done: done.cell, default=None)
    first = _after(found)
    told = (*_edited(left.done, cells), *_again(first, _after(last), unusable))
    return Plan(first, found.snapshot if found is not None else None, sentences=told)


def _matches(done: Done, cells: Sequence[Code]) -> bool:
    return done.cell <= len(cells) and cells[done.cell - 1].chain == done.chain


def _after(done: Done | None) -> int:
    return done.cell + 1 if done is not None else 1


def _inside(cells: Sequence[Code], left: Left, last: Done | None, there: dict[str, Saved]) -> Saved | None:
    """The newest snapshot that was cut inside the cell after *last*, if that cell may go on from it."""
    number = _after(last)
    if left.cell != number or number > len(cells):
        return None
    after = max(last.sequence if last is not None else 0, left.stale_through)
    found = [one for one in there.values() if one.inside and one.sequence > after]
    newest = max(found, key=lambda one: one.sequence, default=None)
    if newest is None or cells[number - 1].continues:
        return newest
    # A loop that an earlier cell holds is in both snapshots, and says nothing about this cell.
    before = there.get(last.snapshot) if last is not None else None
    is_of_this_cell = last is None or (before is not None and not before.progress)
    return newest if newest.progress and is_of_this_cell else None


def _edited(done: Iterable[Done], cells: Sequence[Code]) -> Iterable[str]:
    changed = min((one.cell for one in done if not _matches(one, cells)), default=None)
    if changed is not None and changed > len(cells):
        yield f"Cell {changed}, which had run, is not there any more."
    elif changed is not None:
        yield f"Cell {changed} was edited, moved or added since it ran: it and all that follow run again."


def _again(first: int, cut_off: int, unusable: Collection[str]) -> Iterable[str]:
    if first < cut_off:
        which = f"Cell {first} runs" if first == cut_off - 1 else f"Cells {first} to {cut_off - 1} run"
        why = "cannot be restored" if unusable else "are gone"
        yield f"{which} again, although done: later snapshots {why}."
