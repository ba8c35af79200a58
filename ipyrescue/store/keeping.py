"""Where the key stands and where the store does, to a warning when only the store would survive. Reads no key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Facts about two directories, gathered so that the rule of `warning` can be tested."""

    in_container: bool
    root_device: int
    key_device: int
    store_device: int
    key_file_system: str
    store_file_system: str


def warning(key: Path, store_root: Path) -> str | None:
    """A sentence when the store may outlive the key, else None.

    Two cases only, so that an ordinary machine with several partitions is left in peace. In a container: the key
    stands on the container's own layer and the store on something mounted. Elsewhere: the store's file system is
    of the network and the key's is not.
    """
    try:
        return advice(_place(key, store_root), key, store_root)
    except OSError:
        return None


def advice(place: Place, key: Path, store_root: Path) -> str | None:
    """The rule of `warning`, on facts."""
    mend = f"Keep a copy of the key beside the data's backups and set IPYRESCUE_KEY_FILE to it (now {key})."
    if place.key_device == place.store_device:
        return None
    if place.in_container and place.key_device == place.root_device:
        return (
            f"The store {store_root} is on a mounted volume, but the key that signs it dies with this container. "
            f"Mount a folder for it (docker run -v ipyrescue-key:/keys) and set "
            f"IPYRESCUE_KEY_FILE=/keys/key (now {key})."
        )
    if is_network(place.store_file_system) and not is_network(place.key_file_system) and not place.in_container:
        return f"The store {store_root} is on a network file system, but its key is on this machine only. {mend}"
    return None


_NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|ceph|glusterfs|lustre|beegfs|gpfs|afs|fuse\.(sshfs|glusterfs|ceph).*)"
)
_CONTAINER = re.compile(r"docker|kubepods|containerd|libpod|lxc")


def is_network(file_system: str) -> bool:
    """Whether a type of file system, as Linux names it, is one that other machines write to as well."""
    return _NETWORK.fullmatch(file_system) is not None


def _place(key: Path, store_root: Path) -> Place:
    key_folder, store_folder = _nearest(key.parent), _nearest(store_root)
    return Place(
        in_container=in_container(),
        root_device=os.stat("/").st_dev,
        key_device=os.stat(key_folder).st_dev,
        store_device=os.stat(store_folder).st_dev,
        key_file_system=_file_system(key_folder),
        store_file_system=_file_system(store_folder),
    )


def _nearest(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def in_container(root: Path = Path("/")) -> bool:
    """Whether this process lives in a container: Docker's and Podman's marks, or the first process's cgroup."""
    if (root / ".dockerenv").exists() or (root / "run" / ".containerenv").exists():
        return True
    try:
        return _CONTAINER.search((root / "proc" / "1" / "cgroup").read_text()) is not None
    except OSError:
        return False


def _file_system(path: Path) -> str:
    """The type of the file system that *path* is on, as Linux names it; empty elsewhere."""
    device = os.stat(path).st_dev
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number), "")
