"""What a store holds of a notebook, into JSON: snapshots, variables by name and type, deaths. Never a value.

Reads manifests and life records only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ipyrescue.errors import SnapshotNotFoundError, UntrustedError
from ipyrescue.incarnations.deaths import deaths
from ipyrescue.incarnations.offer import diagnosed
from ipyrescue.manifest import Snapshot
from ipyrescue.server.offers import cause_as_json, moment, offered
from ipyrescue.store import Store, layout, scrub
from ipyrescue.store.catalog import Unreadable
from ipyrescue.store.verify import incomplete, lengths
from ipyrescue.wording import clean

MOST_DEATHS = 10
LARGEST_SHOWN = 5

_FIELDS = ("created", "label", "trigger", "cut", "cell", "size_bytes", "new_bytes")


def listed(store: Store, keys: Collection[str]) -> list[dict[str, Any]]:
    """Every snapshot of a notebook, newest first, and what cannot be read and so may be one of its."""
    pinned, packs, found = store.pins(), lengths(store.root), scrub.read(store.root).damaged
    ours, others = store.everything()
    rows = [((s.sequence, s.id), _row(store, s, pinned, packs, found)) for s in ours if s.notebook in keys]
    rows += [(layout.parse_snapshot_name(item.name) or (0, ""), _unreadable(item)) for item in others]
    return [row for _, row in sorted(rows, key=lambda row: row[0], reverse=True)]


def _row(
    store: Store, snapshot: Snapshot, pinned: Collection[str], packs: Mapping[str, int], found: Collection[str]
) -> dict[str, Any]:
    damaged = snapshot.id in found or incomplete(store.root, snapshot, packs)
    return summary(snapshot, pinned) | ({"mark": "damaged"} if damaged else {})


def summary(snapshot: Snapshot, pinned: Collection[str]) -> dict[str, Any]:
    """One row of the list."""
    return {
        "id": snapshot.id,
        **{name: getattr(snapshot, name) for name in _FIELDS},
        "variables": snapshot.variable_count,
        "pinned": snapshot.id in pinned,
        "mark": "" if snapshot.consistent else "interrupted",
    }


def _unreadable(item: Unreadable) -> dict[str, Any]:
    mark = "foreign" if isinstance(item.error, UntrustedError) else "damaged"
    unknown = dict.fromkeys((*_FIELDS, "variables", "pinned"))
    return {"id": item.name[11:27], **unknown, "mark": mark}


def snapshot_of(store: Store, keys: Collection[str], identifier: str) -> Snapshot:
    """A snapshot of this notebook. Raises `SnapshotNotFoundError`, or why it cannot be read."""
    found = store.load(identifier)
    if found.notebook not in keys:
        raise no_snapshot(identifier)
    return found


def require(store: Store, keys: Collection[str], identifier: str) -> None:
    """Refuse what is not of this notebook; what cannot be read may be of any. Raises `SnapshotNotFoundError`."""
    if not any(row["id"] == identifier for row in listed(store, keys)):
        raise no_snapshot(identifier)


def no_snapshot(identifier: str) -> SnapshotNotFoundError:
    """The refusal."""
    return SnapshotNotFoundError(f"This notebook has no snapshot {identifier[:8]} any more. Load the list again.")


def described(snapshot: Snapshot, pinned: Collection[str]) -> dict[str, Any]:
    """A snapshot with its variables, by name, type and size."""
    return {
        "snapshot": summary(snapshot, pinned),
        "variables": [
            {"name": clean(v.name), "type": clean(v.type), "size_bytes": v.size_bytes, "cell": v.cell}
            for v in snapshot.variables
        ],
        "skipped": [
            {"name": clean(s.name), "type": clean(s.type), "reason": clean(s.reason), "cell": s.cell}
            for s in snapshot.skipped
        ],
    }


def largest(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The variables of a snapshot that take the most."""
    by_size = sorted(snapshot.variables, key=lambda v: v.size_bytes, reverse=True)[:LARGEST_SHOWN]
    return [{"name": clean(v.name), "type": clean(v.type), "size_bytes": v.size_bytes} for v in by_size]


def last_deaths(root: Path, keys: Collection[str], snapshots: Collection[Snapshot]) -> list[dict[str, Any]]:
    """How the kernels of a notebook died, newest first. *snapshots* are newest first."""
    return [
        {
            "id": death.life.incarnation,
            "died_at": moment(death),
            "cell": death.life.cell if death.life.cell_running else None,
            "cell_source": clean(death.life.cell_source or "") or None,
            "cause": cause_as_json(diagnosed(root, death.life)),
            "peak_rss_bytes": death.life.memory and death.life.memory.peak_rss_bytes,
            "limit_bytes": death.life.memory and death.life.memory.limit_bytes,
            "snapshot": offered(
                next((s for s in snapshots if s.incarnation == death.life.incarnation and s.consistent), None)
            ),
        }
        for death in deaths(root, keys)[:MOST_DEATHS]
    ]
