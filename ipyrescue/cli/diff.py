"""`ipyrescue diff`: what is different between two snapshots, from their manifests alone."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyrescue.cli.entries import age, open_store
from ipyrescue.cli.output import Column, say, write_json, write_table
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.comparing import Difference, compare, in_order, left_out
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_size
from ipyrescue.store import Store

_COLUMNS = (
    Column("CHANGE"),
    Column("NAME", fold=True),
    Column("TYPE", fold=True),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("CHANGED", right=True),
    Column("NOTE", fold=True),
)


def diff(
    first: Annotated[str, typer.Argument(metavar="ID", help="An id or its beginning, a label or latest~N.")] = (
        "latest~1"
    ),
    second: Annotated[str, typer.Argument(metavar="ID2", help="The same of another one.")] = "latest",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which variables were added, removed or changed between two snapshots.

    Changed means that the saved bytes differ; variables that share objects count as changed together. Without ID2 it is
    the latest of the same notebook, without both the latest and the one before. Order is that of making.

    CHANGED says by how many bytes at most: what is saved is cut into pieces of up to a megabyte, and a piece that
    differs counts in full, as large as it is on disk.
    """
    opened = open_store(store, need_key=True)
    older, newer = _pair(opened, first, second)
    difference = compare(older, newer)
    if as_json:
        write_json({"store": str(opened.root), "older": older.id, "newer": newer.id, **difference.as_json()})
    else:
        _write(older, newer, difference)


def _pair(store: Store, first: str, second: str) -> tuple[Snapshot, Snapshot]:
    """The two that are meant, the latest being those of the notebook of the first."""
    notebook = store.find("latest" if first.startswith("latest") else first).notebook
    return in_order(store.find(first, notebook), store.find(second, notebook))


def _write(older: Snapshot, newer: Snapshot, difference: Difference) -> None:
    rows: list[tuple[str, ...]]
    rows = [("added", v.name, v.type, "", format_size(v.size_bytes), "", "") for v in difference.added]
    rows += [
        ("removed", v.name, v.type, format_size(v.size_bytes), "", "", left_out(v.name, newer))
        for v in difference.removed
    ]
    rows += [("changed", c.after.name, c.types, *map(format_size, c.sizes_bytes), "") for c in difference.changed]
    if rows:
        write_table(_COLUMNS, rows)
    say(f"From {_named(older)} to {_named(newer)}: {difference}.")


def _named(snapshot: Snapshot) -> str:
    return f"{snapshot.id[:8]} of {snapshot.notebook} (made {age(snapshot)})"
