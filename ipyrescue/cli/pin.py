"""`ipyrescue pin` and `unpin`: keep snapshots until somebody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli.entries import choose, open_store, summary
from ipyrescue.cli.output import printable, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption

SnapshotsArgument = Annotated[list[str], typer.Argument(metavar="ID", help="Ids or their beginnings, or labels.")]


def pin(
    snapshots: SnapshotsArgument,
    off: Annotated[bool, typer.Option("--off", help="Unpin them, as ipyrescue unpin does.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pin snapshots: they stay, however many newer ones there are, until they are unpinned.

    The others stay or go as if nothing were pinned. ipyrescue forget refuses what is pinned.
    """
    _set(snapshots, store, pinned=not off, as_json=as_json)


def unpin(snapshots: SnapshotsArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Unpin snapshots: they may go again like others."""
    _set(snapshots, store, pinned=False, as_json=as_json)


def _set(snapshots: list[str], store: Path | None, *, pinned: bool, as_json: bool) -> None:
    """Pin or unpin all of them, or none where one is not found; tell which."""
    opened = open_store(store, need_key=False)
    chosen = {entry.id: entry for entry in (choose(opened, spec) for spec in snapshots)}
    for snapshot_id in chosen:
        if pinned:
            opened.pin(snapshot_id)
        else:
            opened.unpin(snapshot_id)
    if as_json:
        now = [summary(choose(opened, snapshot_id)) for snapshot_id in chosen]
        write_json({"store": str(opened.root), "snapshots": now})
        return
    for entry in chosen.values():
        of = f" of {entry.snapshot.notebook}" if entry.snapshot else f" ({entry.state})"
        write(printable(f"{'Pinned' if pinned else 'Unpinned'} {entry.id[:8]}{of}"))
