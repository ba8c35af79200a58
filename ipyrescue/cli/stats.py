"""`ipyrescue stats`: what takes the space in a store, and what would free some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import open_store
from ipyrescue.cli.output import Column, printable, say, write, write_json, write_table
from ipyrescue.cli.prune import DEFAULT_MAX_UNUSED
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import StoreError
from ipyrescue.settings import format_size
from ipyrescue.store import Store, inventory
from ipyrescue.store.inventory import Held, Holding
from ipyrescue.store.prune import plan
from ipyrescue.store.usage import PackUse, packs

_NOTEBOOKS = (
    Column("NOTEBOOK", fold=True),
    Column("SNAPSHOTS", right=True),
    Column("LOGICAL", right=True),
    Column("STORED", right=True),
    Column("ITS OWN", right=True),
)
_NAMES = (
    Column("LARGEST", fold=True),
    Column("NOTEBOOK", fold=True),
    Column("STORED", right=True),
    Column("CONTENTS", right=True),
)


@dataclass(frozen=True)
class Freeable:
    """What `prune` and `prune --max-unused 0%` would free, or why they would refuse."""

    by_prune: int | None
    by_repack: int | None
    why_not: str | None


def stats(
    most: Annotated[int, typer.Option("--largest", metavar="N", min=0, help="So many of the largest names.")] = 10,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what takes the space: per notebook, per variable, and on disk.

    LOGICAL is what restores of all snapshots would read, STORED what is kept of it once, ITS OWN what no other notebook
    needs. CONTENTS is how many different ones of a variable there are. Reads manifests only.
    """
    opened = open_store(store, need_key=True)
    snapshots = list(opened.whole(opened.snapshots()))
    uses = packs(opened.root, snapshots)
    freeable = _freeable(opened)
    notebooks, whole = inventory.by_notebook(snapshots), inventory.in_all(snapshots)
    largest = inventory.largest(snapshots)[:most]
    manifests = _manifest_bytes(opened)
    if as_json:
        write_json(_document(opened, notebooks, whole, uses, freeable, largest, manifests))
    else:
        _write(notebooks, whole, uses, freeable, largest, manifests)


def _freeable(store: Store) -> Freeable:
    try:
        return Freeable(plan(store, max_dead=DEFAULT_MAX_UNUSED).bytes, plan(store, max_dead=0.0).bytes, None)
    except StoreError as error:
        return Freeable(None, None, str(error))


def _manifest_bytes(store: Store) -> int:
    return sum(store.catalog.path(name).lstat().st_size for name in store.catalog.names())


def _document(
    store: Store,
    notebooks: dict[str, Holding],
    whole: Holding,
    uses: Sequence[PackUse],
    freeable: Freeable,
    largest: Sequence[Held],
    manifests: int,
) -> dict[str, Any]:
    return {
        "store": str(store.root),
        **_of_holding(whole),
        "packs": len(uses),
        "disk_bytes": sum(use.disk_bytes for use in uses),
        "manifest_bytes": manifests,
        "prune_frees_bytes": freeable.by_prune,
        "repack_frees_bytes": freeable.by_repack,
        "prune_refuses_because": freeable.why_not,
        "notebooks": [{"notebook": name, **_of_holding(holding)} for name, holding in notebooks.items()],
        "largest": [asdict(held) for held in largest],
    }


def _of_holding(holding: Holding) -> dict[str, int]:
    return {**asdict(holding), "shared_bytes": holding.shared_bytes}


def _write(
    notebooks: dict[str, Holding],
    whole: Holding,
    uses: Sequence[PackUse],
    freeable: Freeable,
    largest: Sequence[Held],
    manifests: int,
) -> None:
    if not notebooks:
        say("There are no snapshots of yours in it.")
    else:
        write_table(_NOTEBOOKS, [_row(name, holding) for name, holding in notebooks.items()])
        write("")
        if largest:
            write_table(_NAMES, [(h.name, h.notebook, format_size(h.stored_bytes), str(h.contents)) for h in largest])
            write("")
    share = f" ({whole.shared_bytes / whole.logical_bytes:.0%} less)" if whole.logical_bytes else ""
    disk = sum(use.disk_bytes for use in uses)
    facts = {
        "logical": format_size(whole.logical_bytes),
        "stored": f"{format_size(whole.stored_bytes)}{share}",
        "on disk": f"{format_size(disk)} in {len(uses)} pack{'s' * (len(uses) != 1)}, {format_size(manifests)} of "
        "manifests",
        "dead": _dead(freeable),
    }
    for title, fact in facts.items():
        write(f"{title:<9}{printable(fact)}")


def _row(name: str, holding: Holding) -> tuple[str, ...]:
    sizes = (holding.logical_bytes, holding.stored_bytes, holding.own_bytes)
    return name, str(holding.snapshots), *map(format_size, sizes)


def _dead(freeable: Freeable) -> str:
    if freeable.by_prune is None or freeable.by_repack is None:
        return f"unknown. {freeable.why_not}"
    if not freeable.by_repack:
        return "nothing"
    within = freeable.by_repack - freeable.by_prune
    return (
        f"{format_size(freeable.by_prune)}, freed by ipyrescue prune; {format_size(within)} more inside packs, "
        "freed by ipyrescue prune --max-unused 0%"
    )
