"""Key files to secrets: the one that signs, and those beside it in `keys/` that only read. Knows no signatures.

A key in `keys/` is named by its fingerprint. One that may not be used costs what it signed and nothing else, so it
never stops the others. Whatever is interrupted, the key that signed until then can be found under one of its names.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ipyrescue.errors import CorruptError, StoreError, UntrustedError
from ipyrescue.store import atomic, lock, ownership
from ipyrescue.store.ownership import Reader

KEY_BYTES = 32
_NAME = re.compile(r"[0-9a-f]{8}")
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class KeyFile:
    """A key file as it stands: its *secret* where that may be used, else the *refusal* as the end of a sentence."""

    path: Path
    uid: int | None
    gid: int | None
    mode: int | None
    secret: bytes | None = field(repr=False)
    refusal: str | None = None
    shared: bool = False

    @property
    def fingerprint(self) -> str | None:
        """Eight hex digits that may be shown; None where the key is not used."""
        return fingerprint(self.secret) if self.secret is not None else None


def fingerprint(secret: bytes) -> str:
    """What tells keys apart and says nothing of them."""
    return hmac.new(secret, b"ipyrescue-fingerprint", hashlib.sha256).hexdigest()[:8]


def ring(path: Path) -> Path:
    """The folder of the keys that read beside the one at *path*."""
    return path.parent / "keys"


def look(path: Path) -> KeyFile:
    """The key file at *path*, usable or not. Raises FileNotFoundError."""
    try:
        fd, status = atomic.open_regular(path)
    except CorruptError:
        return KeyFile(path, None, None, None, None, "is a link or not a plain file")
    except StoreError as error:
        return KeyFile(path, None, None, None, None, f"cannot be read ({_cause(error)})")
    with os.fdopen(fd, "rb") as file:
        folder = os.stat(path.parent)
        refusal = ownership.key_refusal(status, folder, Reader.me())
        secret = file.read(KEY_BYTES + 1)
    if not refusal and len(secret) != KEY_BYTES:
        refusal = f"does not have {KEY_BYTES} bytes"
    usable = None if refusal else secret
    mode, shared = stat.S_IMODE(status.st_mode), ownership.is_shared_key(status, folder)
    return KeyFile(path, status.st_uid, status.st_gid, mode, usable, refusal, shared)


def is_there(path: Path) -> bool:
    """Whether a key stands at *path*, usable or not: one that nobody lets us look at is not missing."""
    try:
        os.stat(path)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return True


def read(path: Path) -> bytes:
    """The secret at *path*. Raises FileNotFoundError, and UntrustedError for one that others could know."""
    return _usable(look(path))


def older(path: Path) -> list[KeyFile]:
    """The keys that read beside the one at *path*, usable or not, by their names. Never raises."""
    folder = ring(path)
    try:
        status = os.lstat(folder)
        names = sorted(filter(_NAME.fullmatch, os.listdir(folder)))
    except OSError:
        return []
    refusal = ownership.ring_refusal(status, Reader.me())
    if refusal:
        why = f"stands in {folder}, which {refusal}"
        return [KeyFile(folder / name, None, None, None, None, why) for name in names]
    return [found for name in names if (found := _in_ring(folder / name)) is not None]


def _in_ring(path: Path) -> KeyFile | None:
    """A key under the name that it should bear; None when it is gone by now."""
    try:
        found = look(path)
    except FileNotFoundError:
        return None
    if found.fingerprint in (None, path.name):
        return found
    return KeyFile(path, found.uid, found.gid, found.mode, None, f"is another key ({found.fingerprint}) by its bytes")


def create(path: Path, secret: bytes) -> None:
    """Make *secret* durable at *path*, unless something is there. Raises StoreError."""
    if os.path.lexists(path):
        return
    with _explained("create the key", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another kernel was quicker: its key is ours
            atomic.publish(path.parent, path, secret, mode=_mode_in(path.parent))


def renew(path: Path) -> KeyFile:
    """Sign with a new key from now on; the one that signed until now reads on. Raises StoreError, UntrustedError."""
    return put_first(path, secrets.token_bytes(KEY_BYTES))


def put_first(path: Path, secret: bytes) -> KeyFile:
    """Sign with *secret* from now on; the key that signed until now reads on. Raises StoreError, UntrustedError."""
    create(path, secret)
    with _changing(path):
        before = _ours(path)
        if before.secret is not None and before.secret != secret:
            _keep(path, before.secret, 0o640 if before.shared else 0o600)
            with _explained("change the key", path):
                atomic.replace(path, secret, durable=True, mode=_mode_in(path.parent))
    return look(path)


def add(path: Path, secret: bytes) -> Path:
    """Read with *secret* too, beside the key at *path*; return where it stands. Raises StoreError, UntrustedError."""
    with _changing(path):
        return _keep(path, secret, _mode_in(path.parent))


def share(path: Path, gid: int) -> KeyFile:
    """Make a key at *path* for the members of the group *gid*, in a folder of its own; one that they share stays.

    A private key that signed until now reads on, for its owner only. Raises StoreError, UntrustedError.
    """
    _refuse_other_things(path)
    with _explained("share the key", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in filter(Path.exists, (path.parent, ring(path))):
            os.chown(folder, -1, gid)
            os.chmod(folder, ownership.SHARED_KEY_FOLDER)
    create(path, secrets.token_bytes(KEY_BYTES))
    there = look(path)
    return there if there.shared and there.gid == gid else renew(path)


def _refuse_other_things(path: Path) -> None:
    """The folder of a shared key is opened to a group: it must hold keys only, and be ours."""
    try:
        status, names = os.lstat(path.parent), os.listdir(path.parent)
    except FileNotFoundError:
        return
    strange = sorted({*names} - {path.name, ring(path).name})
    if strange or status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        reason = f"holds {strange[0]!r} too" if strange else "is a link or not yours"
        raise StoreError(
            f"{path.parent} {reason}, so it was not opened to a group. "
            "Set IPYRESCUE_KEY_FILE to a file in a folder for the key alone."
        )


def _ours(path: Path) -> KeyFile:
    """The key at *path*, which is ours to change. Raises StoreError, UntrustedError."""
    found = look(path)
    _usable(found)
    if hasattr(os, "geteuid") and found.uid != os.geteuid():
        raise StoreError(
            f"The key {path} belongs to uid {found.uid}, not to you (uid {os.geteuid()}), so nothing beside it was "
            "changed. Type it as that user, or set IPYRESCUE_KEY_FILE to a key of your own."
        )
    return found


def _usable(found: KeyFile) -> bytes:
    if found.secret is None:
        raise UntrustedError(
            f"The key {found.path} {found.refusal}, so it is not used. "
            "Mend or remove it, or set IPYRESCUE_KEY_FILE to another."
        )
    return found.secret


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Have the ring alone, made if it is not there: two who change it at once would lose one of three keys."""
    _ours(path)
    folder = ring(path)
    with _explained("make a folder for older keys beside", path):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if _mode_in(path.parent) != 0o600:
                os.chmod(folder, ownership.SHARED_KEY_FOLDER)
            atomic.sync_folder(folder.parent)
        status = os.lstat(folder)
    refusal = ownership.ring_refusal(status, Reader.me())
    if refusal:
        raise UntrustedError(f"{folder} {refusal}, so no key was put there. Mend or remove it.")
    with lock.alone(folder / "lock", _LOCK_SECONDS):
        yield


def _keep(path: Path, secret: bytes, mode: int) -> Path:
    """Put a key into the ring, durably, under its fingerprint. Raises StoreError."""
    final = ring(path) / fingerprint(secret)
    with _explained("keep the key", final), contextlib.suppress(FileExistsError):
        atomic.publish(final.parent, final, secret, mode=mode)
    if _in_ring(final) is None or read(final) != secret:
        raise StoreError(f"{final} is in the way of the key with that fingerprint. Move it away, and type it again.")
    return final


def _mode_in(folder: Path) -> int:
    """The mode of a new key in *folder*: for its owner only, unless a group shares the folder."""
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    return ownership.SHARED_KEY if mode == ownership.SHARED_KEY_FOLDER else 0o600


@contextlib.contextmanager
def _explained(verb: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError about keys. Nothing was signed with what could not be made durable."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Could not {verb} {path}: {error.strerror or error}. No key was changed. Set IPYRESCUE_KEY_FILE to a "
            "file in a folder that you may write to and that has space."
        ) from error


def _cause(error: StoreError) -> str:
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error)
