"""The place where a notebook runs: files, the store and the environment into facts, findings and command lines.

Reads only. Of snapshots it takes the size, and how long the newest one took: from its cut until its manifest stood
there.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ipyrescue import gpus
from ipyrescue.errors import RescueError
from ipyrescue.identity import STORE_NAME
from ipyrescue.places import command_lines, containers, logins
from ipyrescue.places.containers import MACHINE, Facts
from ipyrescue.places.findings import Finding, Last, Place, judge
from ipyrescue.store import Store, filesystems, keeping, keyring, layout, signing
from ipyrescue.store.probe import Probed
from ipyrescue.wording import seconds_of

_LONGEST_SECONDS = 3600.0
"""A manifest that is so much younger than its snapshot was copied, not written."""


@dataclass(frozen=True)
class Examination:
    """What was found; *commands* are the lines that start the container as it should be, None where none would help."""

    facts: Facts
    place: Place
    findings: tuple[Finding, ...]
    commands: str | None

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is wrong, beside what is good to know."""
        return tuple(finding for finding in self.findings if finding.level == "warning")


def examine(
    notebook: Path | None,
    store_root: Path,
    *,
    inspected: Facts | None = None,
    probed: Probed | None = None,
    machine: Path = MACHINE,
    environ: Mapping[str, str] = os.environ,
) -> Examination:
    """Examine the place of *notebook*, or of a whole folder, whose store is *store_root*.

    With *inspected* it is that container's: inside of one, it is this one; on a host, *notebook* names a file in it.
    *probed* is what came of trying out the file system here (`ipyrescue.places.trying`).
    """
    here = containers.look(machine, environ)
    if inspected is None:
        facts, place = here, _here(here, notebook, store_root, machine, probed)
    elif here.dies:
        facts, place = inspected, _here(here, notebook, store_root, machine, probed)
    else:
        facts, place = _as_the_host_knows(inspected, machine), _in_container(inspected, notebook)
    found = tuple(judge(facts, place))
    mendable = any(finding.level == "warning" and "below" in finding.type for finding in found)
    return Examination(facts, place, found, command_lines.again(facts, place) if mendable else None)


def at_start(notebook_path: Path, store_root: Path) -> list[str]:
    """What a person should know before a run of a notebook or script starts here, in sentences; often none.

    The last one holds the corrected command lines where it is the container that is wrong.
    """
    found = examine(notebook_path, store_root)
    told = [f"{finding.text} Type: {finding.type}" for finding in found.warnings]
    return [*told, *([f"On the host:\n{found.commands}"] if found.commands else [])]


def _here(facts: Facts, notebook: Path | None, store_root: Path, machine: Path, probed: Probed | None) -> Place:
    key = signing.key_path()
    return Place(
        folder=os.path.realpath(notebook.parent if notebook is not None else store_root.parent),
        store=os.path.realpath(store_root),
        key=os.path.realpath(key),
        notebook=os.path.realpath(notebook) if notebook is not None else None,
        free_bytes=_free_bytes(store_root),
        last=last_snapshot(store_root),
        at_logout=logins.fate_at_logout(machine),
        key_refusal=_key_refusal(key),
        key_alone=None if facts.kind else keeping.warning(key, store_root),
        file_system=filesystems.of(store_root, machine / "proc/self/mountinfo"),
        probed=probed,
    )


def _key_refusal(key: Path) -> str | None:
    """Why the key that is there is not used, as the end of a sentence."""
    with suppress(FileNotFoundError):
        return keyring.look(key).refusal
    return None


def _as_the_host_knows(inspected: Facts, machine: Path) -> Facts:
    """The host's driver speaks for a GPU louder than an image does."""
    driver = gpus.driver_version(machine)
    return dataclasses.replace(inspected, asks_gpu="driver") if driver else inspected


def _in_container(inspected: Facts, notebook: Path | None) -> Place:
    """Where the work of a container stands by its own environment; of its store what the host can see of a mount."""
    environ = dict(inspected.environ)
    work = PurePosixPath(inspected.working_folder)
    file = work / notebook.as_posix() if notebook is not None else None
    folder = file.parent if file is not None else work
    store = str(folder / (environ.get("IPYRESCUE_STORE") or STORE_NAME))
    home = PurePosixPath(environ.get("HOME") or "/root")
    data = PurePosixPath(environ.get("JUPYTER_DATA_DIR") or home / ".local/share/jupyter")
    root = _on_host(inspected, store)
    return Place(
        folder=str(folder),
        store=store,
        key=environ.get("IPYRESCUE_KEY_FILE") or str(data / "ipyrescue/key"),
        notebook=str(file) if file is not None else None,
        free_bytes=_free_bytes(root) if root is not None else None,
        last=last_snapshot(root) if root is not None else None,
    )


def _on_host(inspected: Facts, path: str) -> Path | None:
    """Where the host has a *path* of the container, if it stands on a folder of the host."""
    mount = inspected.mount_of(path)
    if mount is None or not mount.source.startswith("/"):
        return None
    return Path(mount.source) / PurePosixPath(path).relative_to(mount.point)


def _free_bytes(path: Path) -> int | None:
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def last_snapshot(root: Path) -> Last | None:
    """The size of the newest snapshot that is ours, and how long it took; None where there is none."""
    try:
        snapshots = Store.open(root, signing.load_key()).snapshots()
        if not snapshots:
            return None
        newest = snapshots[0]
        path = layout.snapshots(root) / layout.snapshot_name(newest.sequence, newest.id)
        took = path.stat().st_mtime - (seconds_of(newest.created) or 0.0)
    except (RescueError, OSError):
        return None
    biggest_bytes = max(snapshot.size_bytes for snapshot in snapshots)
    return Last(newest.size_bytes, took if 0 <= took <= _LONGEST_SECONDS else None, biggest_bytes)
