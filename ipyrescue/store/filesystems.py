"""A path to the file system that it stands on, as Linux names it, and what is known of that kind. Writes nothing.

What a file system can do, `ipyrescue.store.probe` finds out; here is what nobody can find out from one machine: whether
another one sees the same locks, and whether what stands there outlives the machine.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipyrescue.store.keeping import is_network

Kind = Literal["disk", "memory", "overlay", "network", "host", "bucket"]
"""`host`: a folder that a virtual machine shares with its host; `overlay`: mostly a container's own layer."""

MOUNTS = Path("/proc/self/mountinfo")

_MEMORY = {"tmpfs", "ramfs"}
_OVERLAYS = {"overlay", "aufs", "fuse-overlayfs"}
_HOSTS = {
    "9p", "drvfs", "virtiofs", "vboxsf", "vmhgfs", "vmhgfs-fuse", "prl_fs", "prl_fsd", "osxfs", "grpcfuse", "fakeowner",
}  # fmt: skip
_BUCKETS = {
    "gcsfuse", "s3fs", "goofys", "geesefs", "mountpoint-s3", "ossfs", "ossfs2", "cosfs", "obsfs", "blobfuse",
    "blobfuse2", "rclone", "drive", "hdfs",
}  # fmt: skip
_LOCAL_LOCKS = {"local_lock=all", "local_lock=flock", "nolock", "nobrl"}


@dataclass(frozen=True)
class FileSystem:
    """One mount: its *type* (`ext4`, `nfs4`, `fuse.s3fs`), what is mounted, where, and with which options."""

    type: str
    source: str = ""
    point: str = "/"
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The type without `fuse.`; where FUSE says no more than that, what is mounted, as of Mountpoint for S3."""
        return self.source if self.type == "fuse" else self.type.removeprefix("fuse.")

    @property
    def kind(self) -> Kind:
        """What it is, by its name; a disk unless something else is known."""
        kinds: dict[Kind, set[str]] = {"memory": _MEMORY, "overlay": _OVERLAYS, "host": _HOSTS, "bucket": _BUCKETS}
        known = next((kind for kind, names in kinds.items() if self.name in names), None)
        return known or ("network" if is_network(self.type) else "disk")

    @property
    def locks_are_local(self) -> bool:
        """Whether another machine that uses the same files surely sees none of our locks.

        Linux carries flock to the server of NFS and SMB unless it was mounted otherwise (nfs(5), mount.cifs(8)).
        """
        if self.kind == "network":
            return self.type == "fuse.sshfs" or not _LOCAL_LOCKS.isdisjoint(self.options)
        return self.kind in ("host", "bucket")


def of(path: Path, mounts: Path = MOUNTS) -> FileSystem | None:
    """The file system of *path*, or where it will be; None where the system does not say, as outside of Linux."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    known = [found for found in map(_parsed, lines) if found is not None and _is_under(real, found.point)]
    return max(reversed(known), key=lambda found: len(found.point), default=None)


def warning(root: Path) -> str | None:
    """A sentence where a store at *root* would be lost or harmed by what it stands on, else None."""
    system = of(root)
    return advice(system, root) if system is not None else None


def advice(system: FileSystem, root: Path) -> str | None:
    """The rule of `warning`. Who works in the folder for temporary files knows that it is one."""
    mend = "Set IPYRESCUE_STORE to a folder on a disk; ipyrescue doctor says more."
    if system.kind == "memory" and not _is_under(os.path.realpath(root), os.path.realpath(tempfile.gettempdir())):
        return f"The store {root} is in memory ({system.name}): its snapshots are gone when this machine stops. {mend}"
    if system.kind == "bucket":
        return f"The store {root} is in a bucket ({system.name}), which only looks like a folder. {mend}"
    if system.kind == "network" and system.locks_are_local:
        return (
            f"The store {root} is on a network file system ({system.name}) whose locks hold on this machine only: let "
            "one machine at a time write to it."
        )
    return None


def _parsed(line: str) -> FileSystem | None:
    """One line of proc_pid_mountinfo(5): a mount's options stand before ` - `, its file system's at the end."""
    before, _, after = line.partition(" - ")
    fields, last = before.split(" "), after.split(" ")
    if len(fields) < 6 or len(last) < 2:
        return None
    options = {*fields[5].split(","), *(last[2] if len(last) > 2 else "").split(",")}
    return FileSystem(last[0], _unescaped(last[1]), _unescaped(fields[4]), tuple(sorted(options - {""})))


def _is_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(field: str) -> str:
    r"""Undo the kernel's escapes of spaces and the like: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
