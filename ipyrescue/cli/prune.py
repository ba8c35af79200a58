"""`ipyrescue prune`: free the bytes that no snapshot references."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import open_store
from ipyrescue.cli.output import console, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import StoreBusyError
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.prune import Plan, Pruned, hindrance, plan
from ipyrescue.store.prune import prune as free

PATIENCE_SECONDS = 30.0
"""Less than a writer waits: one that queues up behind a prune that waits in vain must not fail."""
DEFAULT_MAX_UNUSED = 0.5
_WORTH_A_BAR_BYTES = 500 * 10**6


def _share(text: str) -> float:
    """A share of 0 to 1 from `10%`."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no percentage; write 10% or 50%.")
    return share


MaxUnusedOption = Annotated[
    float | None,
    typer.Option("--max-unused", metavar="N%", parser=_share, help="Repack what is more than N% dead, not 50%."),
]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
    repack: Annotated[
        bool, typer.Option("--repack/--no-repack", help="Free dead bytes of packs more than half dead, too.")
    ] = True,
    max_unused: MaxUnusedOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where locks hold on one machine only and another's kernel may write.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Free the bytes that no snapshot references: whole packs, and what killed kernels left unfinished.

    Of packs that still hold living bytes but are mostly dead, the dead ones are freed too: they become holes in the
    file, nothing is copied or moved, so that no space is needed to free some (Linux; not on every file system). Waits
    half a minute for kernels that are writing, and frees nothing while a manifest cannot be read, or where locks hold
    on one machine only (some NFS, SMB, buckets) and a kernel of another one lives, unless --force.
    """
    if max_unused is not None and not repack:
        raise typer.BadParameter("--max-unused needs repacking; leave --no-repack out.")
    opened = open_store(store, need_key=True)
    max_dead = (DEFAULT_MAX_UNUSED if max_unused is None else max_unused) if repack else None
    planned = plan(opened, max_dead)
    freed = _of_plan(planned) if dry_run else _free(opened, max_dead, planned.bytes, force=force)
    if as_json:
        write_json(_document(opened, freed, dry_run=dry_run))
    else:
        _write(freed, dry_run=dry_run)


def _of_plan(planned: Plan) -> Pruned:
    return Pruned(len(planned.dead), planned.bytes, len(planned.sparse))


def _free(store: Store, max_dead: float | None, expected_bytes: int, *, force: bool) -> Pruned:
    """Free it, with a progress bar where a person waits for it. Raises StoreError."""
    from rich.progress import Progress

    hidden = expected_bytes < _WORTH_A_BAR_BYTES or not sys.stderr.isatty()
    with Progress(console=console(sys.stderr), transient=True, disable=hidden) as progress:
        task = progress.add_task("Freeing", total=expected_bytes)
        pruned = free(
            store,
            max_dead=max_dead,
            wait_seconds=PATIENCE_SECONDS,
            force=force,
            advance=lambda freed_bytes: progress.advance(task, freed_bytes),
        )
    reason = hindrance(store.root) if pruned is None and not force else None
    if reason is not None:
        raise StoreBusyError(f"Nothing was freed: {reason} If nobody else writes there: ipyrescue prune --force")
    if pruned is None:
        raise StoreBusyError(
            f"Nothing was freed: {store.root} could not be locked for {PATIENCE_SECONDS:.0f} s. A kernel is writing a "
            "large snapshot, or the file system knows no locks. Try again later."
        )
    return pruned


def _document(store: Store, pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "store": str(store.root),
        "dry_run": dry_run,
        "freed_bytes": pruned.bytes,
        "packs_removed": pruned.packs,
        "packs_repacked": pruned.repacked,
        "packs_left": pruned.left,
    }


def _write(pruned: Pruned, *, dry_run: bool) -> None:
    packs = f"{pruned.packs} whole pack{'s' * (pruned.packs != 1)}"
    repacked = f", dead bytes of {pruned.repacked} more" if pruned.repacked else ""
    write(f"{'Would free' if dry_run else 'Freed'} {format_size(pruned.bytes)}: {packs}{repacked}")
    for reason, count in pruned.left.items():
        say(f"{count} pack{'s keep their' if count != 1 else ' keeps its'} dead bytes: it {reason}.")
