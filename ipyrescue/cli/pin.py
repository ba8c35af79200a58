"""`ipyrescue pin`: keep snapshots until somebody says otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyrescue.cli.entries import choose, open_store, summary
from ipyrescue.cli.output import printable, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption


def pin(
    snapshots: Annotated[list[str], typer.Argument(metavar="ID", help="Ids or their beginnings, or labels.")],
    off: Annotated[bool, typer.Option("--off", help="Unpin them: they may go again like others.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pin snapshots: they stay, however many newer ones there are, until they are unpinned.

    The others stay or go as if nothing were pinned. ipyrescue forget refuses what is pinned.
    """
    opened = open_store(store, need_key=False)
    chosen = {entry.id: entry for entry in (choose(opened, spec) for spec in snapshots)}
    for snapshot_id in chosen:
        if off:
            opened.unpin(snapshot_id)
        else:
            opened.pin(snapshot_id)
    if as_json:
        now = [summary(choose(opened, snapshot_id)) for snapshot_id in chosen]
        write_json({"store": str(opened.root), "snapshots": now})
        return
    for entry in chosen.values():
        of = f" of {entry.snapshot.notebook}" if entry.snapshot else f" ({entry.state})"
        write(printable(f"{'Unpinned' if off else 'Pinned'} {entry.id[:8]}{of}"))
