"""`ipyrescue forget`: drop snapshots, then free the bytes that nobody references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import Entry, choose, entries, open_store, summary
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption, finish
from ipyrescue.errors import RescueError, StoreError
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.blobs import pack_signature
from ipyrescue.store.prune import prune


def forget(
    snapshots: Annotated[list[str], typer.Argument(metavar="ID", help="Ids or their beginnings, or labels.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Also the last good snapshot of a notebook.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget snapshots for good and free their bytes.

    Bytes that other snapshots need stay. The last good snapshot of a notebook goes only with --yes, one that is pinned
    only after ipyrescue pin ID --off. Exit code 3 when they are forgotten but their bytes could not be freed yet.
    """
    opened = open_store(store, need_key=True)
    there = entries(opened)
    chosen = list({entry.id: entry for entry in (choose(opened, spec) for spec in snapshots)}.values())
    _refuse_the_pinned(chosen)
    if not yes:
        _refuse_the_last_good(there, chosen)
    estimate = _freeable_bytes(opened, there, chosen)
    freed, why_not = (estimate, None) if dry_run else _forget(opened, chosen)
    if as_json:
        write_json(_document(opened, chosen, dry_run=dry_run, freed=freed, why_not=why_not))
    else:
        _write(chosen, dry_run=dry_run, freed=freed)
    if why_not:
        say(f"Their bytes are not free yet: {why_not}")
    finish(Exit.DAMAGED if why_not else Exit.OK)


def _refuse_the_pinned(chosen: Sequence[Entry]) -> None:
    """Before the first one goes: the store would refuse in the middle."""
    pinned = " ".join(entry.id[:8] for entry in chosen if entry.pinned)
    if pinned:
        raise StoreError(f"Nothing was forgotten: pinned is {pinned}. Unpin first: ipyrescue pin {pinned} --off")


def _refuse_the_last_good(there: Sequence[Entry], chosen: Sequence[Entry]) -> None:
    going = {entry.id for entry in chosen}
    staying = _notebooks(entry for entry in there if entry.id not in going)
    lost = sorted(_notebooks(chosen) - staying)
    if lost:
        raise StoreError(
            f"Nothing was forgotten: no good snapshot of {', '.join(lost)} would be left. If you mean it, add --yes."
        )


def _notebooks(found: Iterable[Entry]) -> set[str]:
    return {entry.snapshot.notebook for entry in found if entry.good and entry.snapshot}


def _freeable_bytes(store: Store, there: Sequence[Entry], chosen: Sequence[Entry]) -> int:
    """The size of the packs that only *chosen* snapshots need."""
    going = {entry.id for entry in chosen}
    kept = _packs(entry for entry in there if entry.id not in going)
    signatures = [pack_signature(store.root, pack) for pack in _packs(chosen) - kept]
    return sum(signature[2] for signature in signatures if signature is not None)


def _packs(found: Iterable[Entry]) -> set[str]:
    return {blob.pack for entry in found if entry.snapshot for blob in entry.snapshot.blobs}


def _forget(store: Store, chosen: Sequence[Entry]) -> tuple[int, str | None]:
    """Forget, then prune; return the bytes freed, and why not if they could not be."""
    for entry in chosen:
        store.forget(entry.id)
    try:
        pruned = prune(store)
    except RescueError as error:
        return 0, str(error)
    if pruned is None:
        return 0, "a kernel is writing to the store right now; the next snapshot or forget frees them."
    return pruned.bytes, None


def _document(
    store: Store, chosen: Sequence[Entry], *, dry_run: bool, freed: int, why_not: str | None
) -> dict[str, Any]:
    return {
        "store": str(store.root),
        "dry_run": dry_run,
        "forgotten": [summary(entry) for entry in chosen],
        "freed_bytes": freed,
        "not_freed_because": why_not,
    }


def _write(chosen: Sequence[Entry], *, dry_run: bool, freed: int) -> None:
    for entry in chosen:
        of = f" of {entry.snapshot.notebook}" if entry.snapshot else f" ({entry.state})"
        write(printable(f"{'Would forget' if dry_run else 'Forgot'} {entry.id[:8]}{of}"))
    write(f"{'Would free' if dry_run else 'Freed'} {format_size(freed)}")
