"""Views to BlobRefs and back: hashing, deduplication, proof. Knows packs, but no manifests and no signatures.

Deduplication never trusts rotten bytes. A blob found in a pack is used again only if this process wrote or read it
while the pack had its present signature; any other is read and hashed first, and written anew when it is bad.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from blake3 import blake3

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.manifest import BLOB_SIZE_BYTES, BlobRef
from ipyrescue.store import atomic, layout
from ipyrescue.store.pack import PackReader, PackWriter, Signature, signature

HASHERS = 2
READERS = 4
"""More than there are cores: they wait for the disk most of the time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Put:
    """Where the bytes given to `Store.put` stand now, in the same order, and how many of them were new."""

    refs: tuple[BlobRef, ...]
    new_bytes: int


class Proofs:
    """What this process knows about bytes on disk: written by itself, or read back and found right.

    No lock, which another thread could hold across a fork: threads that race may lose a proof, never invent one.
    """

    def __init__(self) -> None:
        self._packs: dict[str, tuple[Signature, dict[tuple[str, int], float | None]]] = {}
        self._news: set[str] = set()
        self._withdrawn: set[tuple[str, str, int]] = set()

    def add(self, blob: BlobRef, pack: Signature, *, read: bool) -> None:
        """Note that *blob* is good in a pack of this signature. What was known of an older signature is void."""
        known = self._packs.get(blob.pack)
        if known is None or known[0] != pack:
            known = self._packs[blob.pack] = (pack, {})
        place = (blob.hash, blob.offset)
        known[1][place] = time.time() if read else known[1].get(place)
        self._withdrawn.discard((blob.pack, *place))
        self._news.add(blob.pack)

    def withdraw(self, blob: BlobRef) -> None:
        """*blob* was found to be bad after all: what was known of it is void, also to a child that still works."""
        self._withdrawn.add((blob.pack, blob.hash, blob.offset))
        known = self._packs.get(blob.pack)
        if known is not None:
            known[1].pop((blob.hash, blob.offset), None)

    def has(self, blob: BlobRef, pack: Signature | None) -> bool:
        """Whether *blob* is known to be good, written by this process or read back."""
        known = self._packs.get(blob.pack)
        return known is not None and known[0] == pack and (blob.hash, blob.offset) in known[1]

    def read_at(self, blob: BlobRef, pack: Signature | None) -> float | None:
        """When *blob* was read back last, in seconds since the epoch; None if it was not while its pack was as now."""
        known = self._packs.get(blob.pack)
        return known[1].get((blob.hash, blob.offset)) if known is not None and known[0] == pack else None

    def know(self, pack: str) -> bool:
        """Whether anything is known of a pack, or was before it changed."""
        return pack in self._packs

    def forget_news(self) -> None:
        """From here on all that is learned is news: in a child, what its parent does not know."""
        self._news.clear()

    def news(self) -> list[Any]:
        """What was learned since `forget_news`, as plain JSON."""
        packs = ((pack, self._packs[pack]) for pack in sorted(self._news))
        return [
            [pack, list(found), [[digest, offset, at] for (digest, offset), at in proofs.items()]]
            for pack, (found, proofs) in packs
        ]

    def learn(self, news: list[Any]) -> None:
        """Take over the `news` of a child."""
        for pack, found, proofs in news:
            known = {(d, offset): at for d, offset, at in proofs if (pack, d, offset) not in self._withdrawn}
            self._packs[pack] = (tuple(found), known)


class Known(Protocol):
    """Where blobs stand that manifests name, by hash: as a mapping has it."""

    def get(self, digest: str, /) -> BlobRef | None: ...  # noqa: D102


def put(root: Path, views: Sequence[memoryview], known: Known, proofs: Proofs) -> Put:
    """Append what is not in *known* to one new pack, durably. Raises StoreError; then nothing became visible.

    Hashing runs ahead in threads of its own while this one copies and a third writes.
    """
    flat = [_flat(view) for view in views]
    expected_bytes = sum(len(view) for view in flat)
    with (
        PackReader(root, direct=True) as reader,
        atomic.explained("write to", layout.packs(root), needed_bytes=expected_bytes),
    ):
        return _Putting(root, known, proofs, reader, expected_bytes).run(flat)


class _Putting:
    """One call of `put`: the pack is begun by the first new blob."""

    def __init__(self, root: Path, known: Known, proofs: Proofs, reader: PackReader, expected_bytes: int) -> None:
        self._root, self._known, self._proofs, self._reader = root, known, proofs, reader
        self._expected_bytes = expected_bytes
        self._writer: PackWriter | None = None
        self._fresh: dict[str, BlobRef] = {}

    def run(self, views: list[memoryview]) -> Put:
        looked_up = in_order(self._look_up, views, HASHERS)
        try:
            refs = tuple(
                found or self._append(view, digest) for view, (digest, found) in zip(views, looked_up, strict=True)
            )
            self._finish()
        finally:
            looked_up.close()
            if self._writer is not None:
                self._writer.__exit__()
        return Put(refs, sum(blob.size_bytes for blob in self._fresh.values()))

    def _look_up(self, view: memoryview) -> tuple[str, BlobRef | None]:
        digest = blake3(view).hexdigest()
        if not view:
            return digest, BlobRef(digest, layout.EMPTY_PACK, 0, 0)
        blob = self._known.get(digest)
        if blob is not None and blob.size_bytes == len(view) and _good(blob, self._reader, self._proofs):
            return digest, blob
        return digest, None

    def _append(self, view: memoryview, digest: str) -> BlobRef:
        if digest not in self._fresh:
            if self._writer is None:
                self._writer = PackWriter(self._root, self._expected_bytes)
            offset = self._writer.add(view)
            self._fresh[digest] = BlobRef(digest, self._writer.pack, offset, len(view))
        return self._fresh[digest]

    def _finish(self) -> None:
        if self._writer is not None:
            written = signature(self._writer.finish())
            for blob in self._fresh.values():
                self._proofs.add(blob, written, read=False)


def named(views: Sequence[memoryview]) -> tuple[BlobRef, ...]:
    """What bytes would be called: their hashes and sizes, in no pack. Nothing is kept."""
    flat = [_flat(view) for view in views]
    digests = in_order(lambda view: blake3(view).hexdigest(), flat, HASHERS)
    return tuple(BlobRef(digest, layout.EMPTY_PACK, 0, len(view)) for view, digest in zip(flat, digests, strict=True))


def get(root: Path, blobs: Sequence[BlobRef], into: Sequence[memoryview], proofs: Proofs) -> None:
    """Read each blob into its view and check those very bytes. Raises CorruptError, StoreError."""
    pairs = [(blob, _flat(view)) for blob, view in zip(blobs, into, strict=True)]
    with PackReader(root, direct=False) as reader:
        for _ in in_order(lambda pair: read_checked(reader, pair[0], pair[1], proofs), pairs, READERS):
            pass


def read_checked(reader: PackReader, blob: BlobRef, view: memoryview, proofs: Proofs) -> None:
    """Read *blob* into *view* and hash what stands there then. Raises CorruptError, StoreError."""
    if len(view) != blob.size_bytes:
        raise ValueError(f"a view of {len(view)} bytes for a blob of {blob.size_bytes}")
    if blob.size_bytes:
        reader.read_into(blob, view)
    if blake3(view).hexdigest() != blob.hash:
        proofs.withdraw(blob)
        raise CorruptError(
            f"Blob {blob.hash[:12]} in pack {blob.pack} is damaged on disk. "
            "`ipyrescue verify` lists the snapshots and variables that need it."
        )
    if blob.size_bytes:
        proofs.add(blob, reader.signature(blob.pack), read=True)


def check(reader: PackReader, blob: BlobRef, proofs: Proofs) -> None:
    """Read *blob* and throw its bytes away. Raises CorruptError, StoreError."""
    if blob.size_bytes > BLOB_SIZE_BYTES:
        raise CorruptError(f"Blob {blob.hash[:12]} claims {blob.size_bytes} bytes; no blob has that many.")
    read_checked(reader, blob, reader.scratch(blob.size_bytes), proofs)


def pack_signature(root: Path, pack: str) -> Signature | None:
    """The present signature of a pack; None when it is gone."""
    try:
        return signature(os.lstat(layout.pack_path(root, pack)))
    except OSError:
        return None


def in_order(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Generator[Result, None, None]:
    """Map in a few threads, yield in order; in this thread for little work, or where threads cannot start (at exit)."""
    if len(items) <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ipyrescue-blobs")
    try:
        try:
            results = pool.map(function, items)
        except RuntimeError:
            results = map(function, items)
        yield from results
    finally:
        # Wait: when this returns, no thread touches the caller's memory any more.
        pool.shutdown(wait=True, cancel_futures=True)


def _good(blob: BlobRef, reader: PackReader, proofs: Proofs) -> bool:
    try:
        if not proofs.has(blob, reader.signature(blob.pack)):
            check(reader, blob, proofs)
    except StoreError:
        return False
    return True


def _flat(view: memoryview) -> memoryview:
    if not view.c_contiguous:
        raise ValueError("a blob's view must be contiguous")
    return view.cast("B") if view.nbytes else memoryview(b"")
