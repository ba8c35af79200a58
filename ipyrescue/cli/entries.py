"""A store to what stands in it: snapshots, and manifests that are none. Damage is an entry, never a gap."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ipyrescue.cli.exits import Exit, NoStoreError
from ipyrescue.cli.output import say
from ipyrescue.errors import (
    CorruptError,
    RescueError,
    SnapshotNotFoundError,
    StoreError,
    StoreFormatError,
    UntrustedError,
)
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_age
from ipyrescue.store import Store, layout, scrub, signing
from ipyrescue.store.catalog import Foreign, Unreadable
from ipyrescue.store.verify import incomplete, lengths

DEFAULT_FOLDER = ".ipyrescue"

State = Literal["ok", "damaged", "untrusted", "newer"]
"""*untrusted*: another key signed it, so all that is shown of it is hearsay; *newer*: a newer ipyrescue wrote it."""


@dataclass(frozen=True)
class Entry:
    """One manifest of a store: what it says, where that can be read; what is wrong with it; whether it is pinned.

    *verified_at* is since when all of it was read back, as the scrub of a kernel says, in seconds since the epoch.
    *foreign* says whose it is where another key signed it.
    """

    sequence: int
    id: str
    state: State
    error: RescueError | None
    snapshot: Snapshot | None
    pinned: bool
    verified_at: float | None = None
    foreign: Foreign | None = None

    @property
    def good(self) -> bool:
        """Whether a restore would choose it."""
        return self.state == "ok" and self.snapshot is not None and self.snapshot.consistent


EXITS: dict[State, Exit] = {
    "ok": Exit.OK,
    "damaged": Exit.DAMAGED,
    "untrusted": Exit.UNTRUSTED,
    "newer": Exit.FAILED,
}


def open_store(path: Path | None, *, need_key: bool) -> Store:
    """Open the store at *path*, or ./.ipyrescue. Without *need_key* a missing key makes all snapshots untrusted.

    Raises NoStoreError, StoreError, UntrustedError.
    """
    root = (path or Path(DEFAULT_FOLDER)).absolute()
    _require_store(root)
    try:
        key = signing.load_key()
    except UntrustedError as error:
        if need_key:
            raise
        say(f"No signature could be checked. {error}")
        key = signing.nobodys_key()
    return Store.open(root, key)


def _require_store(root: Path) -> None:
    if layout.is_store(root):
        return
    inside = root / DEFAULT_FOLDER
    if (inside / "format.json").exists():
        raise NoStoreError(f"{root} is no ipyrescue store, but {inside} is: --store {inside}")
    if layout.snapshots(root).is_dir() and layout.packs(root).is_dir():
        raise CorruptError(f"{root} has lost its format.json, without which no signature can be checked.")
    raise NoStoreError(
        f"There is no ipyrescue store at {root}. Say where it is: --store PATH, or set IPYRESCUE_STORE. "
        "In a notebook %checkpoint_vars makes one."
    )


def age(snapshot: Snapshot) -> str:
    """How long ago it was made, by its own clock; that clock's words where they name no moment."""
    try:
        made = datetime.fromisoformat(snapshot.created.replace("Z", "+00:00"))
        made = made if made.tzinfo else made.replace(tzinfo=timezone.utc)
        return format_age((datetime.now(timezone.utc) - made).total_seconds())
    except (ValueError, OverflowError):
        return snapshot.created


def entries(store: Store, *, scrubbed: scrub.Record | None = None) -> list[Entry]:
    """Everything in the store, newest first; *scrubbed* is what is believed of damage, if not what the record says."""
    pins, packs, known = store.pins(), lengths(store.root), scrub.read(store.root) if scrubbed is None else scrubbed
    with _garbage_left():
        ours, others = store.everything()
        foreign = {item.snapshot.id: item for item in store.foreign()} if others else {}
        found = [
            *(_of_snapshot(store, snapshot, pins, known, packs) for snapshot in ours),
            *(_of_unreadable(item, pins, foreign) for item in others),
        ]
    return sorted(found, key=lambda entry: (entry.sequence, entry.id), reverse=True)


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    """Collect no garbage: of ten thousand new objects none is, and looking takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def choose(store: Store, spec: str, *, scrubbed: scrub.Record | None = None) -> Entry:
    """The entry that an id prefix, a label, `latest` or `latest~N` means; see `entries`.

    Raises SnapshotNotFoundError.
    """
    try:
        known = scrub.read(store.root) if scrubbed is None else scrubbed
        return _of_snapshot(store, store.find(spec), store.pins(), known)
    except SnapshotNotFoundError:
        raise
    except StoreError:
        # One unreadable manifest was meant, and nothing else.
        return next(entry for entry in entries(store) if entry.state != "ok" and entry.id.startswith(spec))


def _of_snapshot(
    store: Store,
    snapshot: Snapshot,
    pins: frozenset[str],
    scrubbed: scrub.Record,
    packs: Mapping[str, int] | None = None,
) -> Entry:
    """The entry of a snapshot of ours, damaged when its packs are not all there, or a scrub has found rot in them."""
    error = incomplete(store.root, snapshot, packs) or _found_damaged(scrubbed.damaged.get(snapshot.id))
    state: State = "damaged" if error else "ok"
    at = scrubbed.verified.get(snapshot.id) if error is None else None
    return Entry(snapshot.sequence, snapshot.id, state, error, snapshot, snapshot.id in pins, at)


def _found_damaged(found: scrub.Finding | None) -> CorruptError | None:
    if found is None:
        return None
    lost = f": {', '.join(found.names)} cannot be read" if found.names else ""
    return CorruptError(f"Pack {found.pack} was found damaged when it was read back{lost}.")


def _of_unreadable(item: Unreadable, pins: frozenset[str], foreign: Mapping[str, Foreign]) -> Entry:
    parsed = layout.parse_snapshot_name(item.name)
    assert parsed is not None, "the catalog lists only names that parse"
    sequence, identifier = parsed
    pinned = identifier in pins
    if isinstance(item.error, UntrustedError):
        whose = foreign.get(identifier)
        hearsay = whose.snapshot if whose else None
        return Entry(sequence, identifier, "untrusted", item.error, hearsay, pinned, foreign=whose)
    newer = isinstance(item.error, StoreFormatError)
    return Entry(sequence, identifier, "newer" if newer else "damaged", item.error, None, pinned)


def signer(foreign: Foreign) -> str:
    """Whose a snapshot is, as far as that shows."""
    return f"key {foreign.fingerprint}, file of {_user(foreign.owner_uid)}, made on {foreign.host}"


def _user(uid: int) -> str:
    with contextlib.suppress(ImportError, KeyError):
        pwd = importlib.import_module("pwd")
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    return f"uid {uid}"


def summary(entry: Entry) -> dict[str, Any]:
    """An entry as JSON: the same keys for every state, null for what cannot be known."""
    s = entry.snapshot
    return {
        "id": entry.id,
        "sequence": entry.sequence,
        "state": entry.state,
        "error": str(entry.error) if entry.error else None,
        "pinned": entry.pinned,
        "verified_at": entry.verified_at,
        "notebook": s and s.notebook,
        "incarnation": s and s.incarnation,
        "created": s and s.created,
        "label": s and s.label,
        "trigger": s and s.trigger,
        "cut": s and s.cut,
        "consistent": s and s.consistent,
        "reason": s and s.reason,
        "cell": s and s.cell,
        "host": s and s.host,
        "variable_count": s and s.variable_count,
        "import_count": s and s.import_count,
        "skipped_count": s and s.skipped_count,
        "size_bytes": s and s.size_bytes,
        "new_bytes": s and s.new_bytes,
        "pause_seconds": s and s.pause_seconds,
        "signed_by": entry.foreign and entry.foreign.fingerprint,
        "owner_uid": entry.foreign and entry.foreign.owner_uid,
    }
