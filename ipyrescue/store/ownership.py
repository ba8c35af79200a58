"""Owners and modes to a sentence why a key is not used, or why nothing is written to a folder. Opens no file.

A key that others could know proves nothing, so reading it is strict. Who holds the key may read a store, whoever owns
that: its owners and modes decide only whether something is written there. The rules are those of ssh for key files and
of git's `safe.directory` for folders (root may use what belongs to who called sudo), with groups that share on purpose.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import keeping

SHARED_MARK = "shared"
"""A file in a store: its owner lets the members of its group write there."""

SHARED_FOLDER, SHARED_KEY_FOLDER, SHARED_KEY = 0o2770, 0o2750, 0o640
"""The modes of what a group shares: folders of a store, the folder of a key, a key."""


@dataclass(frozen=True)
class Reader:
    """Who wants to use a key: its effective uid, and the uids whose keys it may use beside its own."""

    uid: int
    vouched: frozenset[int] = frozenset()
    everyone: bool = False

    @classmethod
    def me(cls, environ: Mapping[str, str] = os.environ) -> Reader:
        """This process. Root may use the key of who called sudo, and in a container that of the host's user."""
        if sys.platform == "win32" or os.geteuid() != 0:
            return cls(0 if sys.platform == "win32" else os.geteuid())
        caller = environ.get("SUDO_UID", "")
        return cls(0, frozenset({int(caller)} if caller.isdecimal() else ()), keeping.in_container())

    def trusts(self, uid: int) -> bool:
        """Whether a key of this owner may be used: root could read and write every other one as well."""
        return self.everyone or uid in {self.uid, 0, *self.vouched}


def key_refusal(file: os.stat_result, folder: os.stat_result, reader: Reader) -> str | None:
    """Why a key file in *folder* is not used, as the end of a sentence; None where it is."""
    if sys.platform == "win32":
        return None
    mode = stat.S_IMODE(file.st_mode)
    shared = is_shared_key(file, folder)
    if mode & 0o037 or (mode & 0o040 and not shared and not _given_by_root(file, reader)):
        return f"can be read or written by others (mode {mode:03o}; `chmod 600` it)"
    if not shared and not reader.trusts(file.st_uid):
        return f"belongs to uid {file.st_uid}, not to you (uid {reader.uid})"
    return None


def is_shared_key(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a group shares the key on purpose: its folder, of the same owner and group, is closed to all others.

    Nobody gets a folder with set-group-ID and mode 2750 by accident, as `ipyrescue key new --shared-group` makes it.
    """
    closed = stat.S_IMODE(folder.st_mode) & 0o7027 == stat.S_ISGID
    ours = folder.st_gid == file.st_gid and folder.st_uid in (file.st_uid, 0)
    return bool(file.st_mode & stat.S_IRGRP) and closed and ours


def _given_by_root(file: os.stat_result, reader: Reader) -> bool:
    """A secret that root mounted for the reader's group (Docker: `mode: 0440`), which is how others can have it."""
    return file.st_uid == 0 != reader.uid


def ring_refusal(folder: os.stat_result, reader: Reader) -> str | None:
    """Why no key of a folder of keys is used; None where they may be."""
    if not stat.S_ISDIR(folder.st_mode):
        return "is not a folder"
    if sys.platform == "win32":
        return None
    if folder.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(folder.st_mode):03o}; `chmod 700` it)"
    # A group shares the folder of its creator: what stands in it is judged file by file.
    shared = folder.st_mode & stat.S_ISGID
    return None if shared or reader.trusts(folder.st_uid) else f"belongs to uid {folder.st_uid}, not to you"


def shared_gid(root: Path) -> int | None:
    """The group that shares the store at *root*, as its owner marked it; None where nobody but the owner writes.

    The mark counts where the owner of the folder made it, and nobody else could.
    """
    if sys.platform == "win32":
        return None
    try:
        mark, folder = os.lstat(root / SHARED_MARK), os.lstat(root)
    except OSError:
        return None
    plain = stat.S_ISREG(mark.st_mode) and not mark.st_mode & 0o022
    return mark.st_gid if plain and mark.st_uid == folder.st_uid and mark.st_gid == folder.st_gid else None


def folder_refusal(path: Path, gid: int | None) -> str | None:
    """Why nothing is written to a folder of a store that the group *gid* shares, or nobody; None where it is."""
    if sys.platform == "win32":
        return None
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    return _refusal_of_others(status) if gid is None else _refusal_of_a_group(status, gid)


def _refusal_of_others(status: os.stat_result) -> str | None:
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to you (uid {os.geteuid()})"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):03o})"
    return None


def _refusal_of_a_group(status: os.stat_result, gid: int) -> str | None:
    if status.st_gid != gid:
        return f"belongs to group {status.st_gid}, not to group {gid}, which shares the store"
    if status.st_mode & 0o002:
        return f"can be written by everybody (mode {stat.S_IMODE(status.st_mode):03o})"
    if os.geteuid() not in (0, status.st_uid) and gid not in {os.getegid(), *os.getgroups()}:
        return f"is shared with group {gid}, of which you (uid {os.geteuid()}) are no member"
    return None
