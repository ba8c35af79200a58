"""Manifest files to Snapshots, and back. Knows signatures, but opens no pack.

Only what carries our MAC counts as a snapshot; everything else in `snapshots/` is `Unreadable`, with its error.
Results are kept by name and file status, so asking again is cheap.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.errors import CorruptError, RescueError, SnapshotNotFoundError, StoreError, UntrustedError
from ipyrescue.manifest import BlobRef, Snapshot
from ipyrescue.store import atomic, layout, signing
from ipyrescue.store.pack import Signature, signature
from ipyrescue.store.signing import Key, Signed

MANIFEST_LIMIT_BYTES = 256 << 20
_LATEST = re.compile(r"latest(?:~([0-9]{1,9}))?")
_PREFIX = re.compile(r"[0-9a-f]{1,16}")
_SHOWN = 8


@dataclass(frozen=True)
class Unreadable:
    """A manifest that cannot be used, and the error that using it would raise."""

    name: str
    path: Path
    error: RescueError


@dataclass(frozen=True)
class Foreign:
    """A snapshot that another key signed, read without checking: for showing, not for restoring."""

    snapshot: Snapshot
    path: Path
    owner_uid: int
    host: str
    fingerprint: str
    created: str


Entry = tuple[Signature, Snapshot | RescueError]


class Catalog:
    """The `snapshots/` folder of one store, as the holder of one key sees it."""

    def __init__(self, root: Path, store_id: str, key: Key) -> None:
        self._root, self._store_id, self._key = root, store_id, key
        self._entries: dict[str, Entry] = {}
        self._known: dict[str, BlobRef] = {}

    def path(self, name: str) -> Path:
        """Where the manifest of this name stands."""
        return layout.snapshots(self._root) / name

    def names(self) -> list[str]:
        """The manifests that are visible now, oldest first. Raises StoreError."""
        try:
            with atomic.explained("read", layout.snapshots(self._root)):
                return sorted(filter(layout.parse_snapshot_name, os.listdir(layout.snapshots(self._root))))
        except FileNotFoundError:
            return []

    def snapshots(self) -> list[Snapshot]:
        """All that carry our MAC, newest first."""
        found = [entry for _, entry in self._refresh().values() if isinstance(entry, Snapshot)]
        return sorted(found, key=lambda snapshot: (snapshot.sequence, snapshot.id), reverse=True)

    def unreadable(self) -> list[Unreadable]:
        """All others: damaged, signed by another key, written by a newer ipyrescue."""
        return [
            Unreadable(name, self.path(name), entry)
            for name, (_, entry) in self._refresh().items()
            if not isinstance(entry, Snapshot)
        ]

    def known_blobs(self) -> dict[str, BlobRef]:
        """Every blob that a snapshot of ours refers to, by hash."""
        self._refresh()
        return self._known

    def body(self, name: str) -> tuple[Signed, os.stat_result]:
        """A manifest taken apart, unchecked. Raises FileNotFoundError, StoreError."""
        with atomic.explained("read", self.path(name)):
            status = os.lstat(self.path(name))
        return signing.unframe(atomic.read_file(self.path(name), MANIFEST_LIMIT_BYTES)), status

    def publish(self, snapshot: Snapshot) -> None:
        """Sign and publish: the only commit point. Raises StoreError."""
        name = layout.snapshot_name(snapshot.sequence, snapshot.id)
        body = snapshot.to_bytes()
        readable = Snapshot.from_bytes(body)  # what could not be read back is refused while it is still invisible
        raw = signing.frame(self._key, self._store_id, name, body)
        with self._perhaps_saved(self.path(name)):
            self._write(self.path(name), raw)
            status = self._read_back(name, raw)
        self._entries = {**self._entries, name: (status, self._shared(readable))}
        self._known = {**self._known, **{blob.hash: blob for blob in readable.blobs}}

    def _write(self, path: Path, raw: bytes) -> None:
        with atomic.explained("write the manifest", path, needed_bytes=len(raw)):
            atomic.publish(layout.temporary(self._root), path, raw)

    def _read_back(self, name: str, raw: bytes) -> Signature:
        """The signature of the manifest that was just published. Raises StoreError."""
        path = self.path(name)
        with atomic.explained("read back", path):
            if atomic.read_file(path, MANIFEST_LIMIT_BYTES) != raw:
                raise CorruptError(f"{path} does not read back as it was written. Older snapshots are intact.")
            return signature(os.lstat(path))

    @contextlib.contextmanager
    def _perhaps_saved(self, path: Path) -> Iterator[None]:
        """Say so where an error leaves it open: the name is there, but perhaps not after a power cut."""
        try:
            yield
        except CorruptError:
            raise
        except StoreError as error:
            if not os.path.lexists(path):
                raise
            raise StoreError(f"{error} The snapshot may have been saved; %snapshots shows whether.") from error

    def forget(self, name: str) -> None:
        """Remove a manifest, durably; whether we or somebody else at the same time. Raises StoreError."""
        with atomic.explained("forget", self.path(name)):
            self.path(name).unlink(missing_ok=True)
            atomic.sync_folder(layout.snapshots(self._root))
        self._refresh()

    def _refresh(self) -> dict[str, Entry]:
        """Read what is new, drop what is gone; the rest stays as parsed."""
        before = self._entries
        found = {name: self._entry(name, before.get(name)) for name in self.names()}
        entries = {name: entry for name, entry in found.items() if entry is not None}
        # Replaced, never changed in place: another thread may be iterating, and a lock could be held across a fork.
        if all(entries.get(name) is entry for name, entry in before.items()):
            known, new = dict(self._known), [entries[name] for name in entries.keys() - before.keys()]
        else:
            known, new = {}, list(entries.values())
        if new or not known:
            known.update((blob.hash, blob) for _, entry in new if isinstance(entry, Snapshot) for blob in entry.blobs)
            self._known = known
        self._entries = entries
        return entries

    def _entry(self, name: str, before: Entry | None) -> Entry | None:
        """The manifest, or why it cannot be used; None when it was forgotten meanwhile."""
        try:
            with atomic.explained("read", self.path(name)):
                now = signature(os.lstat(self.path(name)))
            # A plain StoreError (EIO, EACCES) may be gone the next time.
            if before is not None and before[0] == now and type(before[1]) is not StoreError:
                return before
            return now, self._readable(name)
        except FileNotFoundError:
            return None

    def _readable(self, name: str) -> Snapshot | RescueError:
        try:
            return self._shared(self._verified(name))
        except RescueError as error:
            return error

    def _verified(self, name: str) -> Snapshot:
        signed, status = self.body(name)
        if not signing.verify(self._key, self._store_id, name, signed):
            raise self._distrust(name, signed, status)
        snapshot = Snapshot.from_bytes(signed.body)
        if layout.snapshot_name(snapshot.sequence, snapshot.id) != name:
            raise CorruptError(f"{self.path(name)} bears another snapshot's name.")
        return snapshot

    def _distrust(self, name: str, signed: Signed, status: os.stat_result) -> RescueError:
        identifier = name[11:19]
        if self._key.knows(signed.fingerprint):
            return CorruptError(
                f"Snapshot {identifier} does not fit its signature: {self.path(name)} was damaged, renamed or copied "
                f"from another store. Nothing of it was used. To be rid of it: ipyrescue forget {identifier}"
            )
        return UntrustedError(
            f"Snapshot {identifier} was signed with another key (fingerprint {signed.fingerprint}, yours is "
            f"{self._key.fingerprint}; file owned by uid {status.st_uid}). Nothing was unpickled. "
            f"Set IPYRESCUE_KEY_FILE to that key, or if you trust its maker: %restore_vars from={identifier} --trust"
        )

    def _shared(self, snapshot: Snapshot) -> Snapshot:
        """The same, each blob that is known already as one object: hundreds of manifests stay small in memory."""
        blobs = tuple(known if (known := self._known.get(b.hash)) == b else b for b in snapshot.blobs)
        return dataclasses.replace(snapshot, blobs=blobs)


def find(spec: str, mine: list[Snapshot], everyone: list[Snapshot], unreadable: list[Unreadable]) -> Snapshot:
    """The snapshot that *spec* means: `latest`, `latest~2` or a label among *mine*, else an id prefix.

    Raises SnapshotNotFoundError, listing the candidates; or the error of the unreadable one that was meant.
    """
    latest = _LATEST.fullmatch(spec)
    if latest:
        return _nth(int(latest[1] or 0), spec, mine)
    labelled = [snapshot for snapshot in mine if snapshot.label == spec]
    if labelled:
        return labelled[0]
    prefix = spec if _PREFIX.fullmatch(spec) else "-"
    broken = [item for item in unreadable if item.name[11:].startswith(prefix)]
    matches = _by_id(prefix, mine) or _by_id(prefix, everyone)
    if len(matches) == 1 and (not broken or len(prefix) == 16):
        return matches[0]
    if not matches and len(broken) == 1:
        raise broken[0].error
    candidates = [_described(snapshot) for snapshot in matches or mine] + [item.name[11:19] for item in broken]
    raise _not_found("is ambiguous" if matches or broken else "matches no snapshot", spec, candidates)


def _nth(index: int, spec: str, mine: list[Snapshot]) -> Snapshot:
    if index >= len(mine):
        raise _not_found(f"asks for more snapshots than there are ({len(mine)})", spec, [_described(s) for s in mine])
    return mine[index]


def _by_id(prefix: str, snapshots: list[Snapshot]) -> list[Snapshot]:
    return [snapshot for snapshot in snapshots if snapshot.id.startswith(prefix)]


def _described(snapshot: Snapshot) -> str:
    label = f" {snapshot.label!r}" if snapshot.label else ""
    return f"{snapshot.id[:8]}{label} ({snapshot.created[:16]})"


def _not_found(why: str, spec: str, candidates: list[str]) -> SnapshotNotFoundError:
    shown = ", ".join(candidates[:_SHOWN]) + (", ..." if len(candidates) > _SHOWN else "")
    there = f"There are: {shown}." if candidates else "There are none for this notebook."
    return SnapshotNotFoundError(f"{spec!r} {why}. {there} Type %snapshots or `ipyrescue ls` to see all.")
