"""Manifest bytes to a signed file, and a key file to a `Key`. Knows no manifest's contents, unpickles nothing.

The MAC covers the store's id, the file's name and the exact body, with zero bytes between: a manifest cannot be
changed, renamed to a newer number or carried into another store. The key never stands in the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ipyrescue.errors import CorruptError, UntrustedError
from ipyrescue.store import atomic, keeping

KEY_BYTES = 32
_MAGIC = b"ipyrescue-manifest-v1"
_LINE = re.compile(rb"ipyrescue-manifest-v1 ([0-9a-f]{8}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Key:
    """The secret that signs manifests. Its *fingerprint* may be shown."""

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell keys apart."""
        return hmac.new(self.secret, b"ipyrescue-fingerprint", hashlib.sha256).hexdigest()[:8]


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
    """Whether *signed* was made with *key*, for this store and this name, and not changed since."""
    fits = hmac.compare_digest(sign(key, store_id, file_name, signed.body), signed.mac)
    return fits and signed.fingerprint == key.fingerprint


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
    """Where the key stands: IPYRESCUE_KEY_FILE, else Jupyter's data directory."""
    from_environment = os.environ.get("IPYRESCUE_KEY_FILE")
    if from_environment:
        return Path(from_environment)
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "ipyrescue" / "key"


def load_key(path: Path | None = None, *, create: bool = False) -> Key:
    """Read the key, or make it once where *create*. Raises UntrustedError for a key that others could know."""
    path = path or key_path()
    try:
        return _read_key(path)
    except FileNotFoundError:
        if not create:
            raise UntrustedError(
                f"There is no key at {path}, so no snapshot can be checked. If the snapshots were made elsewhere, "
                "set IPYRESCUE_KEY_FILE to their key, or make your own and re-sign: %restore_vars from=ID --trust"
            ) from None
    put_back(Key(secrets.token_bytes(KEY_BYTES)), path)
    return _read_key(path)


def put_back(key: Key, path: Path) -> None:
    """Make *key* durable at *path*, unless a key is there. Raises StoreError."""
    if path.exists():
        return
    with atomic.explained("create the key", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            atomic.publish(path.parent, path, key.secret, mode=0o600)
        except FileExistsError:
            return  # another kernel was quicker: its key is ours


def _read_key(path: Path) -> Key:
    try:
        fd, status = atomic.open_regular(path)
    except CorruptError as error:
        raise UntrustedError(_refusal(path, "is a link or not a plain file")) from error
    with os.fdopen(fd, "rb") as file:
        reason = _unsafe(status)
        secret = file.read(KEY_BYTES + 1)
    if not reason and len(secret) != KEY_BYTES:
        reason = f"does not have {KEY_BYTES} bytes"
    if reason:
        raise UntrustedError(_refusal(path, reason))
    return Key(secret)


def _unsafe(status: os.stat_result) -> str | None:
    if sys.platform == "win32":
        return None
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to you (uid {os.geteuid()})"
    if status.st_mode & 0o077:
        return f"can be read or written by others (mode {stat.S_IMODE(status.st_mode):03o}; `chmod 600` it)"
    return None


def _refusal(path: Path, reason: str) -> str:
    return f"The key {path} {reason}, so it is not used. Mend or remove it, or set IPYRESCUE_KEY_FILE to another."


def key_survives(store_root: Path, path: Path | None = None) -> str | None:
    """A sentence when the store may outlive the key, else None; the rule is `keeping.warning`'s."""
    return keeping.warning(path or key_path(), store_root)
