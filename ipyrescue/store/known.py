"""Manifest bodies to where each blob stands that one of them names, in little memory: what deduplication asks.

A table of hints, 52 bytes for each blob, says in which pack a blob would be; it may be old, and may be remembered in
a file (derived data, see `ipyrescue.store.index`). What is answered was found in a manifest that is visible now.
Whether the bytes are good is asked elsewhere.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import struct
from binascii import unhexlify
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from blake3 import blake3

from ipyrescue.errors import RescueError
from ipyrescue.manifest import BLOB_SIZE_BYTES, BlobRef
from ipyrescue.store import atomic
from ipyrescue.store.brief import packs_of

LIMIT_BYTES = 1 << 30
MOST_AT_ONCE = 500_000
"""So many blobs of manifests that no hint knows are looked at before one snapshot; the newest manifests first."""

_BLOB = re.compile(
    rb'\{"hash":"([0-9a-f]{64})","offset":([0-9]{1,19}),"pack":"([0-9a-f]{16})","size_bytes":([0-9]{1,7})\}'
)
"""A blob in canonical JSON. No text of a user can look like it: every quote inside a text is escaped."""

_PLACE = struct.Struct(">8sQI")
_HASH_BYTES = 32
_PACK_BYTES = 8
_RECORD_BYTES = _HASH_BYTES + _PLACE.size
_MAC_BYTES = 32
_LENGTH = struct.Struct(">Q")
_MOST_FRESH = 1 << 17
_MOST_CONFIRMED = 1 << 20
_WORTH_WRITING = 1 << 15

Place = bytes
"""Pack, offset and size of a blob, packed."""


class Hints:
    """A sorted table of hashes with the places where their bytes stood, and the manifests that are in it."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.news = 0
        self._table: bytes | bytearray = b""
        self._fresh: dict[bytes, Place] = {}

    def __len__(self) -> int:
        return len(self._table) // _RECORD_BYTES + len(self._fresh)

    def add(self, name: str, places: Mapping[bytes, Place]) -> None:
        """Take in what a manifest names."""
        self.names.add(name)
        self.news += len(places)
        self._fresh.update(places)
        if len(self._fresh) > _MOST_FRESH:
            self._merge()

    def get(self, digest: bytes) -> Place | None:
        """Where the blob of this hash would be."""
        place = self._fresh.get(digest)
        if place is None:
            row = self._row(digest, 0)
            if self._digest(row) == digest:
                start = row * _RECORD_BYTES + _HASH_BYTES
                place = bytes(self._table[start : start + _PLACE.size])
        return place

    def to_bytes(self, key: bytes, packs: frozenset[bytes]) -> bytes:
        """The table as a file, signed with *key*; without what stands in none of these *packs*."""
        self._merge()
        rows = range(0, len(self._table), _RECORD_BYTES)
        living = [
            self._table[row : row + _RECORD_BYTES]
            for row in rows
            if bytes(self._table[row + _HASH_BYTES : row + _HASH_BYTES + _PACK_BYTES]) in packs
        ]
        self._table, self.news = b"".join(living), 0
        names = json.dumps(sorted(self.names)).encode("ascii")
        body = b"".join((_LENGTH.pack(len(names)), names, self._table))
        return _mac(key, body) + body

    @classmethod
    def from_bytes(cls, key: bytes, raw: bytes) -> Hints:
        """What `to_bytes` wrote; none where *raw* does not fit its signature."""
        hints, body = cls(), memoryview(raw)[_MAC_BYTES:]
        if len(body) >= _LENGTH.size and hmac.compare_digest(_mac(key, body), raw[:_MAC_BYTES]):
            (length,) = _LENGTH.unpack_from(body)
            hints.names = set(json.loads(bytes(body[_LENGTH.size : _LENGTH.size + length])))
            hints._table = bytes(body[_LENGTH.size + length :])
        return hints

    def _merge(self) -> None:
        """Put what is fresh into its places in the table. The parts between are copied as they are."""
        merged, before = bytearray(), 0
        for digest in sorted(self._fresh):
            row = self._row(digest, before)
            merged += self._table[before * _RECORD_BYTES : row * _RECORD_BYTES]
            merged += digest + self._fresh[digest]
            before = row + (self._digest(row) == digest)
        merged += self._table[before * _RECORD_BYTES :]
        self._table, self._fresh = merged, {}

    def _row(self, digest: bytes, first: int) -> int:
        return bisect_left(range(len(self._table) // _RECORD_BYTES), digest, lo=first, key=self._digest)

    def _digest(self, row: int) -> bytes:
        return bytes(self._table[row * _RECORD_BYTES : row * _RECORD_BYTES + _HASH_BYTES])


class KnownBlobs:
    """Where the blobs stand that the manifests of a store name: by hash, as a mapping has it."""

    def __init__(self, path: Path, key: bytes | None, body: Callable[[str], bytes]) -> None:
        """Remember hints at *path*, signed with *key*, if there is one; *body* reads a manifest, and checks its MAC."""
        self._path, self._key, self._body = path, key, body
        self._hints: Hints | None = None
        self._packs: dict[str, str] = {}
        self._newest_first: list[str] = []
        self._exhausted: set[bytes] = set()
        self._confirmed: dict[bytes, Place] = {}
        self._confirming: set[str] = set()

    def follow(self, packs: Mapping[str, str]) -> None:
        """Know the blobs of these manifests and of no other; *packs* is what lists say of those that each needs."""
        if not packs.keys() >= self._confirming:
            self._confirmed, self._confirming = {}, set()
        self._packs, self._newest_first, self._exhausted = dict(packs), sorted(packs, reverse=True), set()
        hints = self._hints = self._hints or self._remembered()
        seen = 0
        for name in (name for name in self._newest_first if name not in hints.names):
            if seen > MOST_AT_ONCE:
                break
            places = self._read(name)
            hints.add(name, places)
            if not seen:
                self._confirmed.update(places)
                self._confirming.add(name)
            seen += len(places)

    def get(self, digest: str) -> BlobRef | None:
        """Where the bytes of this hash stand, if a manifest names them."""
        raw = bytes.fromhex(digest)
        hint = self._hints.get(raw) if self._hints else None
        place = self._confirm(raw, hint) if hint is not None else None
        if place is None:
            return None
        pack, offset, size_bytes = _PLACE.unpack(place)
        return BlobRef(digest, pack.hex(), offset, size_bytes)

    def remember(self) -> None:
        """Write the hints where many are new. Needs a lock of the store. Raises nothing."""
        hints = self._hints
        if self._key is None or hints is None or hints.news < max(_WORTH_WRITING, len(hints) // 8):
            return
        hints.names &= self._packs.keys()
        packs = frozenset(map(bytes.fromhex, {pack for text in self._packs.values() for pack in packs_of(text)}))
        with contextlib.suppress(OSError):
            atomic.replace(self._path, hints.to_bytes(self._key, packs))

    def _remembered(self) -> Hints:
        with contextlib.suppress(RescueError, FileNotFoundError):
            if self._key is not None:
                return Hints.from_bytes(self._key, atomic.read_file(self._path, LIMIT_BYTES))
        return Hints()

    def _confirm(self, digest: bytes, hint: Place) -> Place | None:
        """Where a manifest names the blob, looking at those that need the pack of the *hint*, the newest first."""
        known = self._confirmed.get(digest)
        pack: bytes = _PLACE.unpack(hint)[0]
        if known is not None or pack in self._exhausted:
            return known
        for name in self._unread(pack.hex()):
            # In this order, for several threads ask at once: reading twice is better than not finding.
            self._confirmed.update(self._read(name))
            self._confirming.add(name)
            if digest in self._confirmed:
                return self._confirmed[digest]
        self._exhausted.add(pack)
        return self._confirmed.get(digest)

    def _unread(self, pack: str) -> Iterator[str]:
        for name in self._newest_first:
            if len(self._confirmed) < _MOST_CONFIRMED and name not in self._confirming and pack in self._packs[name]:
                yield name

    def _read(self, name: str) -> dict[bytes, Place]:
        """What a manifest names; nothing where it cannot be read any more."""
        try:
            found = _BLOB.findall(self._body(name))
        except (RescueError, FileNotFoundError):
            return {}
        packs = {pack: unhexlify(pack) for _, _, pack, _ in found}
        return {
            unhexlify(digest): _PLACE.pack(packs[pack], int(offset), size_bytes)
            for digest, offset, pack, digits in found
            if 0 < (size_bytes := int(digits)) <= BLOB_SIZE_BYTES
        }


def _mac(key: bytes, body: bytes | memoryview) -> bytes:
    return blake3(body, key=key).digest()
