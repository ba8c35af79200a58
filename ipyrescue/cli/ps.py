"""`ipyrescue ps`: the runs, what they are at, and when each was last saved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli import runs
from ipyrescue.cli.entries import Entry, entries, open_store, summary
from ipyrescue.cli.output import Column, say, write_json, write_table
from ipyrescue.cli.runs import Shown
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RescueError
from ipyrescue.runs import record as records
from ipyrescue.runs import registry
from ipyrescue.settings import format_duration, format_size
from ipyrescue.wording import age, count, seconds_of, shortened

RECENT_SECONDS = 86_400.0
"""What ended longer ago is shown with --all only."""

_PROGRESS_CHARACTERS = 48
_COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("CELL", right=True),
    Column("PROGRESS", fold=True),
    Column("SAVED"),
    Column("RAM", right=True),
    Column("VRAM", right=True),
    Column("UP", right=True),
)


def ps(
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Also runs that ended more than a day ago.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of this folder and all others of yours: those that live, and what ended within a day.

    A run whose runner is gone is dead, whatever it wrote last. SAVED is its newest snapshot, and what is wrong with it.

    \b
    --json prints {"runs": [...]}; each run is as in `ipyrescue run --json`, with
      snapshot   its newest one as in `ipyrescue ls --json`, or null
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    found = _found(store)
    shown = [one for one in found if show_all or as_json or one.lives or _is_recent(one)]
    newest = _newest(shown)
    if as_json:
        write_json({"runs": [{**runs.document(one), "snapshot": _summary(newest.get(one.folder))} for one in shown]})
        return
    if shown:
        rows = [_row(one, newest.get(one.folder)) for one in shown]
        write_table(_COLUMNS, rows, marked=[one.record.state in ("dead", "died", "failed") for one in shown])
    for one in shown:
        if one.record.state in ("dead", "died", "failed") and one.record.reason:
            say(f"{one.record.name}: {one.record.reason}")
    if not found:
        say("There are no runs. Begin one: ipyrescue run train.ipynb --detach")
    elif len(shown) < len(found):
        say(f"{count(len(found) - len(shown), 'run')} that ended before: ipyrescue ps -a")


def _found(store: Path | None) -> list[Shown]:
    """All runs that can be read, oldest first; what cannot be read is said."""
    found = []
    for folder in registry.all_folders(store):
        try:
            found.append(runs.look(folder))
        except RescueError as error:
            say(f"{folder.name}: {error}")
    return sorted(found, key=lambda one: (one.record.created, one.record.name))


def _is_recent(shown: Shown) -> bool:
    """Whether it ended within a day; a dead one died when it was last heard of."""
    ended = seconds_of(shown.record.ended) or _touched(shown.folder)
    return time.time() - ended < RECENT_SECONDS


def _touched(folder: Path) -> float:
    try:
        return (folder / records.RECORD_NAME).stat().st_mtime
    except OSError:
        return 0.0


def _newest(shown: list[Shown]) -> dict[Path, Entry]:
    """The newest snapshot of each run, by its folder; none where a store cannot be read."""
    newest: dict[Path, Entry] = {}
    for root in {records.store_of(one.folder) for one in shown if one.record.incarnations}:
        try:
            there = entries(open_store(root, need_key=False))
        except RescueError as error:
            say(f"{root}: {error}")
            continue
        for one in shown:
            mine = [e for e in there if e.snapshot is not None and e.snapshot.incarnation in one.record.incarnations]
            if mine and records.store_of(one.folder) == root:
                newest[one.folder] = mine[0]
    return newest


def _summary(entry: Entry | None) -> dict[str, Any] | None:
    return summary(entry) if entry is not None else None


def _row(shown: Shown, newest: Entry | None) -> tuple[str, ...]:
    record, memory = shown.record, shown.memory
    cell = f"{record.cell if record.cell is not None else len(record.done)}/{record.cells}" if record.cells else ""
    vram = memory.cuda_reserved_bytes if memory is not None else None
    return (
        record.name,
        record.state,
        cell,
        shortened(shown.progress, _PROGRESS_CHARACTERS) if shown.lives else "",
        _saved(shown, newest),
        format_size(memory.rss_bytes) if memory is not None else "",
        format_size(vram) if vram is not None else "",
        format_duration(shown.up_seconds) if shown.up_seconds is not None else "",
    )


def _saved(shown: Shown, newest: Entry | None) -> str:
    if newest is not None and newest.snapshot is not None:
        made = age(newest.snapshot.created, now=time.time())
        return made if newest.state == "ok" else f"{made}, {newest.state}"
    return f"{age(shown.saved_at, now=time.time())}, gone" if shown.saved_at is not None else "no"
