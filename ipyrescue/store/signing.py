"""Manifest bytes to a signed file, and key files to a `Key`. Knows no manifest's contents, unpickles nothing.

The MAC covers the store's id, the file's name and the exact body, with zero bytes between: a manifest cannot be
changed, renamed to a newer number or carried into another store. The key never stands in the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ipyrescue import settings
from ipyrescue.errors import CorruptError, UntrustedError
from ipyrescue.store import keeping, keyring
from ipyrescue.store.keyring import KEY_BYTES

_MAGIC = b"ipyrescue-manifest-v1"
_LINE = re.compile(rb"ipyrescue-manifest-v1 ([0-9a-f]{8}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Key:
    """The secret that signs manifests, and the *older* ones whose manifests count as ours too."""

    secret: bytes = field(repr=False)
    older: tuple[Key, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Eight hex digits that tell keys apart and may be shown."""
        return keyring.fingerprint(self.secret)

    def knows(self, fingerprint: str) -> bool:
        """Whether this key or an older one has that fingerprint."""
        return any(one.fingerprint == fingerprint for one in (self, *self.older))


def nobodys_key() -> Key:
    """One that has signed nothing, for reading without a key: no empty one, with which anybody could sign."""
    return Key(secrets.token_bytes(KEY_BYTES))


@dataclass(frozen=True)
class Signed:
    """A manifest file taken apart; whether *mac* fits is `verify`'s business."""

    fingerprint: str
    mac: str
    body: bytes


def sign(key: Key, store_id: str, file_name: str, body: bytes) -> str:
    """The MAC in hex."""
    message = b"\0".join((_MAGIC, store_id.encode("ascii"), file_name.encode("ascii"), body))
    return hmac.new(key.secret, message, hashlib.sha256).hexdigest()


def verify(key: Key, store_id: str, file_name: str, signed: Signed) -> bool:
    """Whether *signed* was made with *key* or an older one, for this store and this name, and not changed since."""
    return any(_made_with(one, store_id, file_name, signed) for one in (key, *key.older))


def _made_with(key: Key, store_id: str, file_name: str, signed: Signed) -> bool:
    if signed.fingerprint != key.fingerprint:
        return False
    return hmac.compare_digest(sign(key, store_id, file_name, signed.body), signed.mac)


def frame(key: Key, store_id: str, file_name: str, body: bytes) -> bytes:
    """The manifest file: one MAC line, then *body*."""
    line = f"{_MAGIC.decode('ascii')} {key.fingerprint} {sign(key, store_id, file_name, body)}\n"
    return line.encode("ascii") + body


def unframe(raw: bytes) -> Signed:
    """Take a manifest file apart. Raises CorruptError when its first line is not a MAC line."""
    line, newline, body = raw.partition(b"\n")
    match = _LINE.fullmatch(line)
    if not match or not newline:
        raise CorruptError("A manifest does not begin with a MAC line: it is damaged or was not made by ipyrescue.")
    return Signed(match[1].decode("ascii"), match[2].decode("ascii"), body)


def key_path() -> Path:
    """Where the key stands: IPYRESCUE_KEY_FILE, else Jupyter's data directory. Raises RescueError for no such path."""
    named = settings.named_key_file(os.environ)
    if named is not None:
        return named
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "ipyrescue" / "key"


def load_key(path: Path | None = None, *, create: bool = False) -> Key:
    """Read the key and those beside it, or make it once where *create*.

    Raises UntrustedError for a key that others could know, StoreError for one that cannot be made.
    """
    path = path or key_path()
    try:
        return _read_key(path)
    except FileNotFoundError:
        if not create:
            raise UntrustedError(
                f"There is no key at {path}, so no snapshot can be checked. If the snapshots were made elsewhere, take "
                "their key over (ipyrescue key import FILE), set IPYRESCUE_KEY_FILE to it, or make your own and "
                "re-sign: %restore_vars from=ID --trust"
            ) from None
    keyring.create(path, secrets.token_bytes(KEY_BYTES))
    return _read_key(path)


def put_back(key: Key, path: Path) -> None:
    """Make *key* durable at *path*, unless a key is there. Raises StoreError."""
    keyring.create(path, key.secret)


def _read_key(path: Path) -> Key:
    secret = keyring.read(path)
    older = (one.secret for one in keyring.older(path) if one.secret not in (None, secret))
    return Key(secret, tuple(Key(each) for each in older if each is not None))


def key_survives(store_root: Path, path: Path | None = None) -> str | None:
    """A sentence when the store may outlive the key, else None; the rule is `keeping.warning`'s."""
    return keeping.warning(path or key_path(), store_root)
