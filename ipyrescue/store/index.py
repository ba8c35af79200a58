"""What lists say of manifests, remembered in one file, so that thousands need not be read to be listed. Derived data.

A record says: the file of this name, as long as it is this very file with these times, carried our MAC and says this.
Each record is a line of its own with a MAC of its own, under a key that is good for nothing else. Writers append;
readers only read. A line that does not fit (torn, rotten, another key's, of another store) is as good as none:
its manifest is read instead. Nothing is restored from here.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, layout
from ipyrescue.store.brief import Said
from ipyrescue.store.signing import Key

File = tuple[int, ...]
"""A `Signature` without the device, whose number changes where a disk is mounted anew."""

LIMIT_BYTES = 512 << 20
_DOMAIN = b"ipyrescue-index-v1"
_MAC_DIGITS = 64
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | atomic.SAFE_FLAGS | getattr(os, "O_NONBLOCK", 0)
_SLACK = 64
"""So many lines more than twice those that are needed may stand in the file before it is written anew."""


@dataclass(frozen=True)
class Record:
    """What is said of a manifest as long as its *file* is this one: inode, size, mtime and ctime in ns."""

    file: File
    said: Said


def derived_key(key: Key, store_id: str, domain: bytes) -> bytes:
    """The key of derived data of one kind, in one store. What it signs passes for nothing else.

    It is another one as soon as other keys count as ours: what one of them signed may be somebody else's then.
    """
    fingerprints = (one.fingerprint.encode("ascii") for one in _ours(key))
    message = b"\0".join((domain, store_id.encode("ascii"), *fingerprints))
    return hmac.digest(key.secret, message, "sha256")


class Index:
    """The records of one store, as the holder of one key sees them."""

    def __init__(self, root: Path, store_id: str, key: Key) -> None:
        self._path = layout.index_path(root, "snapshots")
        self._key = derived_key(key, store_id, _DOMAIN) if key.secret else None
        self._lines = 0

    def read(self) -> dict[str, Record]:
        """Every record that is ours, the last one of each manifest. Raises nothing: what cannot be read is missing."""
        self._lines = 0
        with contextlib.suppress(StoreError, FileNotFoundError):
            lines = atomic.read_file(self._path, LIMIT_BYTES).split(b"\n")
            self._lines = len(lines)
            return _records([line[_MAC_DIGITS:] for line in filter(self._is_ours, lines)])
        return {}

    def add(self, records: Mapping[str, Record]) -> None:
        """Append *records*. Needs the shared lock. Raises nothing: what is not remembered is read again."""
        if self._key is None or not records:
            return
        with contextlib.suppress(OSError):
            fd = os.open(self._path, _APPEND_FLAGS, 0o600)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    # What stands before may be torn. One write, so that two writers do not mix.
                    os.write(fd, b"\n" + b"".join(self._line(*item) for item in records.items()))
            finally:
                atomic.close_read(fd)
            self._lines += len(records)

    def is_wasteful(self, needed: int) -> bool:
        """Whether far more lines stand in the file that was read than the *needed* ones."""
        return self._lines > 2 * needed + _SLACK

    def rewrite(self, records: Mapping[str, Record]) -> None:
        """Let the file have these records only. Needs the exclusive lock. Raises nothing."""
        if self._key is None:
            return
        with contextlib.suppress(OSError):
            atomic.replace(self._path, b"".join(self._line(*item) for item in records.items()))
            self._lines = len(records)

    def _line(self, name: str, record: Record) -> bytes:
        assert self._key is not None, "who has no key adds nothing"
        body = json.dumps([name, record.file, record.said], separators=(",", ":")).encode("ascii")
        return self._mac(body) + body + b"\n"

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key or b"", body, "sha256").hex().encode("ascii")

    def _is_ours(self, line: bytes) -> bool:
        return (
            self._key is not None
            and len(line) > _MAC_DIGITS
            and hmac.compare_digest(self._mac(line[_MAC_DIGITS:]), line[:_MAC_DIGITS])
        )


def _ours(key: Key) -> tuple[Key, ...]:
    """The keys whose manifests count as ours."""
    return (key, *key.older)


def _records(bodies: Iterable[bytes]) -> dict[str, Record]:
    """Parse lines whose MACs were checked, all in one go."""
    lines = json.loads(b"[" + b",".join(bodies) + b"]")
    return {name: Record(tuple(file), said) for name, file, said in lines}
