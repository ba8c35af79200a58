"""`ipyrescue forget --keep-last N`: what a policy keeps of each notebook and why, and the rest forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ipyrescue.cli.entries import Entry, age, entries, summary
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import Column, say, write, write_json, write_table
from ipyrescue.errors import RescueError, SnapshotNotFoundError
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.blobs import pack_signature
from ipyrescue.store.prune import hindrance, prune
from ipyrescue.store.retention import Policy
from ipyrescue.store.upkeep import sort_out

_COLUMNS = (
    Column("ID"),
    Column("NOTEBOOK", fold=True),
    Column("MADE"),
    Column("LABEL", fold=True),
    Column("SIZE", right=True),
    Column("STAYS BECAUSE", fold=True),
)


@dataclass(frozen=True)
class Sorted:
    """Every readable snapshot of the notebooks that were asked for, and why it stays; those without a reason go."""

    there: Sequence[Entry]
    entries: Sequence[Entry]
    reasons: Mapping[str, tuple[str, ...]]

    @property
    def going(self) -> list[Entry]:
        """What is forgotten."""
        return [entry for entry in self.entries if not self.reasons[entry.id]]


def forget_all_but(
    store: Store, policy: Policy, notebook: str | None, *, dry_run: bool, free: bool, as_json: bool
) -> Exit:
    """Forget all that neither *policy* nor a promise of the store keeps. Raises SnapshotNotFoundError, StoreError."""
    found = _sort_out(store, policy, notebook)
    freeable = freeable_bytes(store, found.there, found.going)
    freed, why_not = (freeable, None) if dry_run else _forget(store, found.going, free=free)
    if as_json:
        document = {"store": str(store.root), "dry_run": dry_run, "policy": asdict(policy), **_lists(found)}
        write_json({**document, "freed_bytes": freed, "freeable_bytes": freeable, "not_freed_because": why_not})
    else:
        write_table(_COLUMNS, [_row(entry, found.reasons[entry.id]) for entry in found.entries])
        write(_counted(found, dry_run=dry_run))
        _write_bytes(freeable, freed, dry_run=dry_run, free=free)
    if why_not:
        say(f"Their bytes are not free yet: {why_not}")
    return Exit.DAMAGED if why_not else Exit.OK


def free_bytes(store: Store) -> tuple[int, str | None]:
    """Prune; return the bytes freed, and why not if they could not be."""
    try:
        pruned = prune(store)
    except RescueError as error:
        return 0, str(error)
    if pruned is None:
        return 0, hindrance(store.root) or (
            "a kernel is writing to the store right now, or its file system has no locks; the next snapshot or forget "
            "tries again."
        )
    return pruned.bytes, None


def freeable_bytes(store: Store, there: Sequence[Entry], chosen: Sequence[Entry]) -> int:
    """The size of the packs that only *chosen* snapshots need."""
    going = {entry.id for entry in chosen}
    kept = _packs(entry for entry in there if entry.id not in going)
    signatures = [pack_signature(store.root, pack) for pack in _packs(chosen) - kept]
    return sum(signature[2] for signature in signatures if signature is not None)


def _packs(found: Iterable[Entry]) -> set[str]:
    return {pack for entry in found if entry.snapshot for pack in entry.snapshot.packs}


def _sort_out(store: Store, policy: Policy, notebook: str | None) -> Sorted:
    ours = store.snapshots(notebook)
    if notebook is not None and not ours:
        known = ", ".join(sorted({snapshot.notebook for snapshot in store.snapshots()})) or "none"
        raise SnapshotNotFoundError(f"There is no snapshot of {notebook}. There are snapshots of: {known}.")
    notebooks = dict.fromkeys(snapshot.notebook for snapshot in ours)
    reasons = {key: why for name in notebooks for key, why in sort_out(store, name, policy).items()}
    there = entries(store)
    return Sorted(there, [entry for entry in there if entry.id in reasons], reasons)


def _forget(store: Store, going: Sequence[Entry], *, free: bool) -> tuple[int, str | None]:
    for entry in going:
        store.forget(entry.id)
    return free_bytes(store) if free else (0, None)


def _lists(found: Sorted) -> dict[str, Any]:
    kept = [entry for entry in found.entries if found.reasons[entry.id]]
    return {
        "kept": [{**summary(entry), "kept_because": list(found.reasons[entry.id])} for entry in kept],
        "forgotten": [summary(entry) for entry in found.going],
    }


def _row(entry: Entry, reasons: tuple[str, ...]) -> tuple[str, ...]:
    s = entry.snapshot
    assert s is not None, "only what could be read is sorted out"
    return (entry.id[:8], s.notebook, age(s), s.label or "", format_size(s.size_bytes), ", ".join(reasons) or "(goes)")


def _counted(found: Sorted, *, dry_run: bool) -> str:
    going = len(found.going)
    return (
        f"{'Would forget' if dry_run else 'Forgot'} {going} of {len(found.entries)}, kept {len(found.entries) - going}"
    )


def _write_bytes(freeable: int, freed: int, *, dry_run: bool, free: bool) -> None:
    if dry_run:
        write(f"Would free {format_size(freeable)}")
    elif free:
        write(f"Freed {format_size(freed)}")
    elif freeable:
        say(f"{format_size(freeable)} can be freed now: ipyrescue prune")
