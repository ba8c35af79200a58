"""`ipyrescue forget`: drop snapshots, then free the bytes that nobody references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from ipyrescue.cli import thinning
from ipyrescue.cli.entries import Entry, choose, entries, open_store, summary
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.thinning import free_bytes, freeable_bytes
from ipyrescue.cli.verb import JsonOption, StoreOption, finish
from ipyrescue.errors import StoreError
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.retention import Policy

KeepLastOption = Annotated[
    int, typer.Option("--keep-last", metavar="N", min=0, show_default=False, help="Keep the last N.")
]
KeepHourlyOption = Annotated[
    int,
    typer.Option(
        "--keep-hourly", metavar="N", min=0, show_default=False, help="Keep the newest of each of the last N hours."
    ),
]
KeepDailyOption = Annotated[
    int,
    typer.Option(
        "--keep-daily", metavar="N", min=0, show_default=False, help="Keep the newest of each of the last N days."
    ),
]
KeepLabelOption = Annotated[
    bool, typer.Option("--keep-label", help="Keep what has a label; labels stay anyway, so alone it means only these.")
]


def forget(
    snapshots: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Ids or their beginnings, or labels.")
    ] = None,
    keep_last: KeepLastOption = 0,
    keep_hourly: KeepHourlyOption = 0,
    keep_daily: KeepDailyOption = 0,
    keep_label: KeepLabelOption = False,
    notebook: Annotated[str | None, typer.Option("--notebook", help="With --keep-...: only of this one.")] = None,
    free: Annotated[bool, typer.Option("--prune", help="With --keep-...: also free their bytes now.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With ID: also the last good snapshot of a notebook.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget snapshots for good: those named, or of each notebook all but those to keep.

    With ID their bytes are freed, too; bytes that other snapshots need stay. The last good snapshot of a notebook goes
    only with --yes, one that is pinned only after ipyrescue pin ID --off.

    With --keep-last and the like whatever you say these stay: labels, pins, the newest good one of the notebook and of
    each kernel that was not restored yet, and all that does not have two newer ones whose every byte was read.

    Exit code 3 when they are forgotten but their bytes could not be freed yet.
    """
    opened = open_store(store, need_key=True)
    by_policy = bool(keep_last or keep_hourly or keep_daily or keep_label)
    if by_policy == bool(snapshots):
        raise typer.BadParameter("Say either ids, or what to keep: --keep-last 10 --keep-daily 7")
    if by_policy:
        policy = Policy(keep_last, keep_hourly, keep_daily)
        finish(thinning.forget_all_but(opened, policy, notebook, dry_run=dry_run, free=free, as_json=as_json))
    else:
        finish(_forget_named(opened, snapshots or [], dry_run=dry_run, yes=yes, as_json=as_json))


def _forget_named(opened: Store, specs: Sequence[str], *, dry_run: bool, yes: bool, as_json: bool) -> Exit:
    there = entries(opened)
    chosen = list({entry.id: entry for entry in (choose(opened, spec) for spec in specs)}.values())
    _refuse_the_pinned(chosen)
    if not yes:
        _refuse_the_last_good(there, chosen)
    estimate = freeable_bytes(opened, there, chosen)
    freed, why_not = (estimate, None) if dry_run else _forget(opened, chosen)
    if as_json:
        write_json(_document(opened, chosen, dry_run=dry_run, freed=freed, why_not=why_not))
    else:
        _write(chosen, dry_run=dry_run, freed=freed)
    if why_not:
        say(f"Their bytes are not free yet: {why_not}")
    return Exit.DAMAGED if why_not else Exit.OK


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


def _forget(store: Store, chosen: Sequence[Entry]) -> tuple[int, str | None]:
    """Forget, then prune; return the bytes freed, and why not if they could not be."""
    for entry in chosen:
        store.forget(entry.id)
    return free_bytes(store)


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
