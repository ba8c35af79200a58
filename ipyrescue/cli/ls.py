"""`ipyrescue ls`: every snapshot of a store, newest first."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyrescue.cli.entries import Entry, age, entries, open_store, signer, summary
from ipyrescue.cli.output import Column, say, write_json, write_table
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.settings import format_size

SHOWN = 20
_COLUMNS = (
    Column("ID"),
    Column("STATE"),
    Column("MADE"),
    Column("NOTEBOOK", fold=True),
    Column("LABEL", fold=True),
    Column("CUT"),
    Column("VARS", right=True),
    Column("SIZE", right=True),
    Column("NEW", right=True),
)
_NOTE = Column("NOTE", fold=True)


def ls(
    notebook: Annotated[str | None, typer.Option(metavar="NB", help="Only the snapshots of this notebook.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help=f"Also those older than the newest {SHOWN}.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all snapshots of a store, newest first.

    Damaged ones and those that another key signed are listed too, and marked; what is shown of the
    latter is what they claim, beside that key's fingerprint and the file's owner. --json always lists everything.
    """
    opened = open_store(store, need_key=False)
    found = [entry for entry in entries(opened) if notebook is None or _may_be_of(entry, notebook)]
    if as_json:
        write_json({"store": str(opened.root), "snapshots": [summary(entry) for entry in found]})
        return
    shown = [entry for position, entry in enumerate(found) if show_all or position < SHOWN or entry.state != "ok"]
    if not found:
        say(f"There are no snapshots{f' of {notebook}' if notebook else ''} in {opened.root}.")
        return
    columns = (*_COLUMNS, _NOTE) if any(map(_note, shown)) else _COLUMNS
    rows = [_row(entry)[: len(columns)] for entry in shown]
    write_table(columns, rows, marked=[entry.state != "ok" for entry in shown])
    if len(shown) < len(found):
        say(f"{len(found) - len(shown)} older ones are not shown: ipyrescue ls --all")


def _may_be_of(entry: Entry, notebook: str) -> bool:
    """A manifest that cannot be read may be of any notebook, so it is never filtered away."""
    return entry.snapshot is None or entry.snapshot.notebook == notebook


def _note(entry: Entry) -> str:
    return ", ".join(filter(None, ("pinned" if entry.pinned else "", signer(entry.foreign) if entry.foreign else "")))


def _row(entry: Entry) -> tuple[str, ...]:
    s, note = entry.snapshot, _note(entry)
    if s is None:
        return (entry.id[:8], entry.state, "?", "?", "", "", "", "", "", note)
    size, new = format_size(s.size_bytes), format_size(s.new_bytes)
    return (
        entry.id[:8],
        entry.state,
        age(s),
        s.notebook,
        s.label or "",
        s.cut,
        str(s.variable_count + s.import_count),
        size,
        new,
        note,
    )
