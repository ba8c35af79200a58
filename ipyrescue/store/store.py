"""One directory that holds snapshots: bytes and Snapshots in, bytes and Snapshots out. Knows no Python objects.

put makes bytes durable, commit makes them a snapshot; find chooses one, get brings its bytes back, checked;
pin keeps one until it is unpinned, forget drops one.
Reading creates, locks and writes nothing, so a read-only store restores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ipyrescue import cells
from ipyrescue.cells import Cell
from ipyrescue.errors import CorruptError, RescueError, SnapshotNotFoundError, StoreError
from ipyrescue.manifest import BlobRef, Snapshot
from ipyrescue.store import atomic, blobs, layout, lock, meant, pins, trust
from ipyrescue.store import verify as verifying
from ipyrescue.store.blobs import Proofs, Put
from ipyrescue.store.catalog import Catalog, Foreign, Unreadable
from ipyrescue.store.signing import Key
from ipyrescue.store.verify import Damage

LOCK_TIMEOUT_SECONDS = 60.0


class Store:
    """A store that is open: what was read or written is remembered, no file stays open, no lock is held."""

    def __init__(self, root: Path, store_id: str, key: Key) -> None:
        self.root = root
        self.id = store_id
        self.key = key
        self.proofs = Proofs()
        self.catalog = Catalog(root, store_id, key)
        self._locked = threading.local()

    @classmethod
    def open(cls, root: Path, key: Key, *, create: bool = False) -> Store:
        """Open the store at *root*; without *create* nothing is created, locked or written. Raises StoreError."""
        root = Path(root).absolute()
        store_id = layout.create(root) if create else layout.read_store_id(root)
        return cls(root, store_id, key)

    def use(self, key: Key) -> None:
        """Sign with *key* and check with it and its older ones from now on; what was proved of bytes stays proved."""
        if key != self.key:
            # Replaced, never changed in place: another thread may be reading.
            self.key, self.catalog = key, Catalog(self.root, self.id, key)

    def next_sequence(self) -> int:
        """One more than the highest number in `snapshots/`, of whatever notebook and key.

        Where there is no higher one, since anybody can give a file the highest: one more than the highest of ours.
        """
        following = 1 + int(self.catalog.newest_name()[:10])
        if following > layout.MAX_SEQUENCE:
            following = 1 + max((snapshot.sequence for snapshot in self.catalog.snapshots()), default=0)
        return following

    @contextlib.contextmanager
    def writing(self, timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> Iterator[None]:
        """Keep prune away: put and commit of one snapshot stand in one such block. May raise StoreBusyError."""
        with atomic.explained("write to", self.root):
            layout.check_writable(self.root)
        with lock.shared(self.root, timeout_seconds):
            before = self._holder()
            self._locked.pid = os.getpid()
            try:
                yield
            finally:
                self._locked.pid = before

    def put(self, views: Sequence[memoryview]) -> Put:
        """Make bytes durable: new ones in one new pack, the others where they stand already. Raises StoreError."""
        self._require_lock("put")
        return blobs.put(self.root, views, self.catalog.known_blobs(), self.proofs)

    def commit(self, snapshot: Snapshot) -> None:
        """Publish *snapshot*: from here it exists, before it never did. Raises StoreError."""
        self._require_lock("commit")
        for pack in snapshot.packs:
            if blobs.pack_signature(self.root, pack) is None:
                raise StoreError(f"Snapshot {snapshot.id[:8]} needs pack {pack}, which is gone. It was not saved.")
        self.catalog.publish(snapshot)

    def snapshots(self, notebook: str | None = None) -> list[Snapshot]:
        """Those that carry our MAC, newest first; of one notebook, or of all.

        What lists do not say of one is read from its manifest when it is asked for, and may then raise StoreError.
        """
        return self.catalog.snapshots(notebook)

    def unreadable(self) -> list[Unreadable]:
        """The manifests that cannot be used: damaged, signed by another key, or newer than this ipyrescue."""
        return self.catalog.unreadable()

    def everything(self) -> tuple[list[Snapshot], list[Unreadable]]:
        """What `snapshots` and `unreadable` return, by one look at the store."""
        return self.catalog.everything()

    def whole(self, snapshots: Iterable[Snapshot]) -> Iterator[Snapshot]:
        """Each of *snapshots* with all that its manifest says; those that are damaged are left out."""
        for snapshot in snapshots:
            with contextlib.suppress(CorruptError):
                yield dataclasses.replace(snapshot)

    def read_all(self) -> None:
        """Read and check every manifest now, whatever is remembered of it. Raises StoreError."""
        self.catalog.read_all()

    def load(self, name_or_id: str) -> Snapshot:
        """The snapshot with this file name or full id. Raises SnapshotNotFoundError, or its own error."""
        names = self.catalog.names_of(name_or_id.removesuffix(".json")[-16:])
        if not names:
            raise SnapshotNotFoundError(
                f"There is no snapshot {name_or_id}. Type %snapshots or `ipyrescue ls` to see all."
            )
        for name in names[:-1]:  # more than one bears the id only where somebody copied one under another number
            with contextlib.suppress(RescueError):
                return self.catalog.whole(name)
        return self.catalog.whole(names[-1])

    def find(self, spec: str, notebook: str | None = None) -> Snapshot:
        """The snapshot meant by an id prefix, a label, `latest` or `latest~N`. Raises SnapshotNotFoundError."""
        while True:
            found = meant.find(spec, self.snapshots(notebook), self.snapshots(), self.unreadable())
            with contextlib.suppress(CorruptError, SnapshotNotFoundError):
                # One whose manifest is damaged or gone is in no list from here on.
                return self.catalog.whole(layout.snapshot_name(found.sequence, found.id))

    def get(self, refs: Sequence[BlobRef], into: Sequence[memoryview]) -> None:
        """Read each blob into its view and check those very bytes. Raises CorruptError, StoreError."""
        blobs.get(self.root, refs, into, self.proofs)

    def cells(self, snapshot: Snapshot) -> tuple[Cell, ...]:
        """The cells that the session of *snapshot* had run, oldest first; text. Raises CorruptError, StoreError."""
        refs = [snapshot.blobs[index] for index in snapshot.cells]
        parts = [bytearray(ref.size_bytes) for ref in refs]
        self.get(refs, [memoryview(part) for part in parts])
        return cells.from_bytes(b"".join(parts))

    def forget(self, snapshot_id: str) -> None:
        """Remove a snapshot's manifest, also an unreadable one's; its bytes stay until prune. Raises StoreError."""
        for name in self._names_of(snapshot_id, "forget"):
            self.catalog.forget(name, lambda: self._refuse_pinned(snapshot_id))

    def _refuse_pinned(self, snapshot_id: str) -> None:
        if snapshot_id in self.pins():
            raise StoreError(
                f"Snapshot {snapshot_id[:8]} is pinned, so it was not forgotten. Unpin it first: "
                f"%snapshots unpin {snapshot_id[:8]}, or `ipyrescue pin {snapshot_id[:8]} --off`"
            )

    def pins(self) -> frozenset[str]:
        """The ids of the snapshots that are pinned: they go only by hand, once they are unpinned."""
        return pins.read(self.root)

    def pin(self, snapshot_id: str) -> None:
        """Keep a snapshot, also an unreadable one, until it is unpinned. Raises SnapshotNotFoundError, StoreError."""
        with self.writing():
            self._names_of(snapshot_id, "pin")
            pins.add(self.root, snapshot_id)
            # Retention may have let it go meanwhile; prune removes the pin of what is gone.
            self._names_of(snapshot_id, "pin")

    def unpin(self, snapshot_id: str) -> None:
        """Let retention decide about a snapshot again; one that is not pinned stays so. Raises StoreError."""
        pins.remove(self.root, [snapshot_id])

    def verify(self, snapshot: Snapshot) -> list[Damage]:
        """Read every blob of *snapshot* and say what is damaged."""
        return verifying.verify(self, snapshot)

    def verified(self, snapshot: Snapshot) -> bool:
        """Whether this process has read every blob of *snapshot*, and no pack of it changed since."""
        return self.verified_at(snapshot) is not None

    def verified_at(self, snapshot: Snapshot) -> float | None:
        """Since when every blob of *snapshot* has been read by this process, in seconds since the epoch; None: not all.

        It is the moment at which the blob that was read longest ago was read last.
        """
        if not all(map(self.proofs.know, snapshot.packs)):
            return None
        packs = {pack: blobs.pack_signature(self.root, pack) for pack in snapshot.packs}
        oldest = time.time()
        with contextlib.suppress(CorruptError):
            for blob in filter(_has_bytes, snapshot.blobs):
                at = self.proofs.read_at(blob, packs[blob.pack])
                if at is None:
                    return None
                oldest = min(oldest, at)
            return oldest
        return None

    def foreign(self) -> list[Foreign]:
        """The snapshots that another key signed, as they describe themselves, oldest first: for showing."""
        return trust.foreign(self.catalog)

    def untrusted(self, id_prefix: str) -> Foreign:
        """A snapshot that another key signed, for showing. Raises SnapshotNotFoundError, CorruptError, StoreError."""
        return trust.untrusted(self.catalog, id_prefix)

    def trust(self, shown: Foreign) -> Snapshot:
        """Sign another key's snapshot with ours, once every blob of it proved right; a pin goes with it.

        *shown* is what `untrusted` said of it. Raises UntrustedError where it changed since, StoreError.
        """
        ours = trust.trust(self, shown)
        if shown.snapshot.id in self.pins():
            self.pin(ours.id)
            self.unpin(shown.snapshot.id)
        return ours

    def _names_of(self, snapshot_id: str, verb: str) -> list[str]:
        """The manifests of a snapshot, whoever signed them. Raises SnapshotNotFoundError."""
        names = self.catalog.names_of(snapshot_id)
        if not names:
            raise SnapshotNotFoundError(f"There is no snapshot {snapshot_id} to {verb}. `ipyrescue ls` lists all.")
        return names

    def _holder(self) -> int | None:
        holder: int | None = getattr(self._locked, "pid", None)
        return holder

    def _require_lock(self, verb: str) -> None:
        # A forked child inherits this thread's mark, but shares the lock with a parent that may release it.
        if self._holder() != os.getpid():
            raise StoreError(f"{verb} needs the store's lock: `with store.writing(): ...` around put and commit.")


def _has_bytes(blob: BlobRef) -> bool:
    return blob.size_bytes > 0
