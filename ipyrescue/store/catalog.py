"""Manifest files to Snapshots, and back. Knows signatures, but opens no pack.

Only what carries our MAC counts as a snapshot; everything else in `snapshots/` is `Unreadable`, with its error.
What lists say is kept by name and file status, so asking again is cheap; what was read whole is kept for the last few.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from ipyrescue.errors import CorruptError, RescueError, SnapshotNotFoundError, StoreError, UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import atomic, layout, signing
from ipyrescue.store.brief import Said, brief, said_of
from ipyrescue.store.index import Index, Record, derived_key
from ipyrescue.store.known import KnownBlobs
from ipyrescue.store.pack import Signature, signature
from ipyrescue.store.signing import Key, Signed

MANIFEST_LIMIT_BYTES = 256 << 20


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


Entry = tuple[Signature, Said | RescueError]
"""The file as it was, and what a list says of it, or why it cannot be used."""

_KEPT_WHOLE = 8
_CHECKED = 3
_FEW = 8
"""So many new manifests are read rather than looked up in the index, which is read whole."""


class Catalog:
    """The `snapshots/` folder of one store, as the holder of one key sees it."""

    def __init__(self, root: Path, store_id: str, key: Key) -> None:
        self._root, self._store_id, self._key = root, store_id, key
        self._index = Index(root, store_id, key)
        self._entries: dict[str, Entry] | None = None
        self._newest: tuple[Signature | None, str] | None = None
        self._owed: frozenset[str] = frozenset()
        self._whole: dict[str, tuple[Signature, Snapshot]] = {}
        secret = derived_key(key, store_id, b"ipyrescue-known-blobs-v1") if key.secret else None
        self._known = KnownBlobs(layout.index_path(root, "blobs"), secret, self._body_of_ours)

    def path(self, name: str) -> Path:
        """Where the manifest of this name stands."""
        return layout.snapshots(self._root) / name

    def names(self) -> list[str]:
        """The manifests that are visible now, oldest first. Raises StoreError."""
        return sorted(filter(layout.parse_snapshot_name, self._listed()))

    def _listed(self) -> list[str]:
        folder, names = self._folder(), []
        with contextlib.suppress(FileNotFoundError), atomic.explained("read", layout.snapshots(self._root)):
            names = os.listdir(layout.snapshots(self._root))
        self._newest = folder, max(names, default="")
        return names

    def names_of(self, snapshot_id: str) -> list[str]:
        """The manifests of one snapshot, whoever signed them: one, or none. Raises StoreError."""
        ending = f"-{snapshot_id}.json"
        return [name for name in self._listed() if name.endswith(ending) and layout.parse_snapshot_name(name)]

    def newest_name(self) -> str:
        """The name of the newest manifest; of none, a name with the number 0. Raises StoreError.

        A cell waits for this, so the folder is not read again while its times say that it is as it was.
        """
        if self._newest is None or self._newest[0] != self._folder():
            self._listed()
        newest = self._newest[1] if self._newest else ""
        return newest if layout.parse_snapshot_name(newest) else (self.names() or ["0"])[-1]

    def _folder(self) -> Signature | None:
        try:
            return signature(os.lstat(layout.snapshots(self._root)))
        except OSError:
            return None

    def snapshots(self, notebook: str | None = None) -> list[Snapshot]:
        """All that carry our MAC, newest first; of one notebook, or of all. They read their manifests when needed."""
        return self._briefs(self._refresh(), notebook)

    def unreadable(self) -> list[Unreadable]:
        """All others: damaged, signed by another key, written by a newer ipyrescue."""
        return self._unreadable(self._refresh())

    def everything(self) -> tuple[list[Snapshot], list[Unreadable]]:
        """Both, by one look."""
        entries = self._refresh()
        return self._briefs(entries), self._unreadable(entries)

    def _briefs(self, entries: Mapping[str, Entry], notebook: str | None = None) -> list[Snapshot]:
        return [
            brief(said, partial(self._as_listed, name, file))
            for name, (file, said) in sorted(entries.items(), reverse=True, key=itemgetter(0))
            if not isinstance(said, RescueError) and notebook in (None, said["notebook"])
        ]

    def _unreadable(self, entries: Mapping[str, Entry]) -> list[Unreadable]:
        found = ((name, said) for name, (_, said) in entries.items() if isinstance(said, RescueError))
        return [Unreadable(name, self.path(name), error) for name, error in found]

    def whole(self, name: str) -> Snapshot:
        """The snapshot of this manifest, read and checked unless that was done lately. Raises StoreError."""
        try:
            with atomic.explained("read", self.path(name)):
                return self._as_listed(name, signature(os.lstat(self.path(name))))
        except FileNotFoundError:
            raise _forgotten(name) from None

    def read_all(self) -> None:
        """Believe nothing that was remembered: read and check every manifest. Raises StoreError."""
        self._whole, self._entries = {}, {}
        self._refresh(remembered={})

    def known_blobs(self) -> KnownBlobs:
        """Every blob that a snapshot of ours refers to, by hash."""
        entries = self._refresh().items()
        self._known.follow({name: said["packs"] for name, (_, said) in entries if not isinstance(said, RescueError)})
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
        said = said_of(readable)
        self._keep(name, status, readable)
        self._entries = {**(self._entries or {}), name: (status, said)}
        self.remember(name)

    def remember(self, *names: str) -> None:
        """Add to the index what it lacks, and *names*. Needs the shared lock. Raises nothing."""
        wanted, self._owed = self._owed.union(names), frozenset()
        self._index.add(self._records(wanted))
        self._known.remember()

    def compact(self) -> None:
        """Write the index anew where most of it is of snapshots that are gone. Needs the exclusive lock."""
        entries = self._entries or {}
        if self._owed or self._index.is_wasteful(len(entries)):
            self._owed = frozenset()
            self._index.rewrite(self._records(entries))

    def _records(self, names: Iterable[str]) -> dict[str, Record]:
        found = ((name, (self._entries or {}).get(name)) for name in names)
        return {
            name: Record(entry[0][1:], entry[1])
            for name, entry in found
            if entry is not None and not isinstance(entry[1], RescueError)
        }

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

    def forget(self, name: str, last_look: Callable[[], None] = lambda: None) -> None:
        """Remove a manifest, durably; whether we or somebody else at the same time. Raises StoreError.

        *last_look* is called right before that, and raises where it must stay.
        """
        with atomic.explained("forget", self.path(name)):
            layout.check_writable(self._root)
            last_look()
            atomic.unlink_below(self._root, self.path(name))
            atomic.sync_folder(layout.snapshots(self._root))
        if self._entries is not None:
            self._entries = {other: entry for other, entry in self._entries.items() if other != name}

    def _refresh(self, remembered: Mapping[str, Record] | None = None) -> dict[str, Entry]:
        """Read what is new, unless the index remembers it; drop what is gone; the rest stays as it was read."""
        before, files = self._entries or {}, self._files()
        # A plain StoreError (EIO, EACCES) may be gone the next time.
        same = {n for n, file in files.items() if n in before and _holds(before[n], file)}
        new = files.keys() - same
        if remembered is None and new and (self._entries is None or len(new) > _FEW):
            remembered = self._index.read()
            self._owed = frozenset(n for n in new if n not in remembered or remembered[n].file != files[n][1:])
        believed = self._believed({n: files[n] for n in new - before.keys()}, remembered or {})
        entries = {n: before[n] if n in same else believed.get(n) or self._entry(n, files[n]) for n in files}
        # Replaced, never changed in place: another thread may be iterating, and a lock could be held across a fork.
        self._entries = {name: entry for name, entry in entries.items() if entry is not None}
        return self._entries

    def _believed(self, files: Mapping[str, Signature], remembered: Mapping[str, Record]) -> dict[str, Entry]:
        """What the index says of these *files*. The newest of each notebook, which are wanted first, are checked."""
        found: dict[str, Entry] = {}
        checked: Counter[str] = Counter()
        for name in sorted(files.keys() & remembered.keys(), reverse=True):
            file, record = files[name], remembered[name]
            notebook = record.said["notebook"]
            checked[notebook] += 1
            if record.file == file[1:] and (checked[notebook] > _CHECKED or self._is_sound(name)):
                found[name] = file, record.said
        return found

    def _is_sound(self, name: str) -> bool:
        try:
            return bool(self._body_of_ours(name))
        except (RescueError, FileNotFoundError):
            return False

    def _files(self) -> dict[str, Signature]:
        """The manifests that are visible now, and their signatures. Raises StoreError."""
        found, folder, known = {}, layout.snapshots(self._root), self._entries or {}
        with contextlib.suppress(FileNotFoundError), atomic.explained("read", folder), os.scandir(folder) as files:
            for file in files:
                if file.name in known or layout.parse_snapshot_name(file.name):
                    with contextlib.suppress(FileNotFoundError):
                        found[file.name] = signature(file.stat(follow_symlinks=False))
        return found

    def _entry(self, name: str, file: Signature) -> Entry | None:
        """What a list says of a manifest, or why it cannot be used; None when it was forgotten meanwhile."""
        try:
            return file, said_of(self._verified(name))
        except FileNotFoundError:
            return None
        except RescueError as error:
            return file, error

    def _as_listed(self, name: str, file: Signature) -> Snapshot:
        """The snapshot of a manifest with this signature. Raises StoreError; a list will call it unreadable then."""
        known = self._whole.get(name)
        if known is not None and known[0] == file:
            return known[1]
        try:
            return self._keep(name, file, self._verified(name))
        except FileNotFoundError:
            # To whoever holds a list this is no other loss than that of the packs, which may go next.
            raise CorruptError(str(_forgotten(name))) from None
        except RescueError as error:
            self._entries = {**(self._entries or {}), name: (file, error)}
            raise

    def _keep(self, name: str, file: Signature, snapshot: Snapshot) -> Snapshot:
        kept = [item for item in self._whole.items() if item[0] != name]
        self._whole = dict([*kept[1 - _KEPT_WHOLE :], (name, (file, snapshot))])
        return snapshot

    def _body_of_ours(self, name: str) -> bytes:
        """The body of a manifest that carries our MAC. Raises FileNotFoundError, StoreError."""
        signed, status = self.body(name)
        if not signing.verify(self._key, self._store_id, name, signed):
            raise self._distrust(name, signed, status)
        return signed.body

    def _verified(self, name: str) -> Snapshot:
        snapshot = Snapshot.from_bytes(self._body_of_ours(name))
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


def _holds(entry: Entry, file: Signature) -> bool:
    return entry[0] == file and type(entry[1]) is not StoreError


def _forgotten(name: str) -> SnapshotNotFoundError:
    return SnapshotNotFoundError(f"Snapshot {name[11:19]} was forgotten meanwhile. `ipyrescue ls` lists what is there.")
