"""Facts about a place into what may go wrong there: for each a sentence that says what happens, and what to type.

Pure. A `warning` is about work that will be lost or a run that will be stopped; a `note` is good to know. What every
machine has (no swap, little memory) is neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ipyrescue.places.containers import Facts
from ipyrescue.places.inspected import DEFAULT_STOP_SECONDS
from ipyrescue.places.logins import Fate
from ipyrescue.settings import format_duration, format_size
from ipyrescue.store.filesystems import FileSystem
from ipyrescue.store.lives import ALIVE_SECONDS
from ipyrescue.store.probe import Probed

Level = Literal["warning", "note"]

FAREWELL_SECONDS = 8.0
"""How long an armed kernel takes at most for a last snapshot at SIGTERM."""
SMALL_SHM_BYTES = 1 << 30
"""Docker gives 64 MB; each worker of a DataLoader puts batches there, and dies with a bus error when it is full."""
LITTLE_DISK_BYTES = 1_000_000_000
FEW_FILES = 1000
"""A snapshot makes a handful of files, a run some dozens."""
SKEW_SECONDS = 2.0

_BELOW = "the whole command line stands below"


@dataclass(frozen=True)
class Finding:
    """One thing that may go wrong: *kind* for programs, *text* what happens, *type* what to type or to do."""

    kind: str
    level: Level
    text: str
    type: str


@dataclass(frozen=True)
class Last:
    """What the newest snapshot was: its size, and how long it took from the cut until it was durable.

    *biggest_bytes* is the size of the biggest one in the store, of whatever notebook.
    """

    size_bytes: int
    seconds: float | None = None
    biggest_bytes: int = 0


@dataclass(frozen=True)
class Place:
    """Where the work of one notebook stands: absolute paths, links followed. None: not known.

    *notebook* is its file, and None where a whole folder is meant. *key_refusal* is why the key that is there is not
    used, *key_alone* the sentence of `ipyrescue.store.keeping` about a key that other machines lack. *file_system* is
    the store's, *probed* what came of trying it out.
    """

    folder: str
    store: str
    key: str
    notebook: str | None = None
    free_bytes: int | None = None
    last: Last | None = None
    at_logout: Fate | None = None
    key_refusal: str | None = None
    key_alone: str | None = None
    file_system: FileSystem | None = None
    probed: Probed | None = None


def judge(facts: Facts, place: Place) -> list[Finding]:
    """Everything that *facts* say may go wrong, what loses work first; none where nothing does."""
    inside = _in_container(facts, place) if facts.dies else _on_machine(facts, place)
    found = [*inside, *_of_key(place), *_of_disk(facts, place), *_of_file_system(facts, place), *_of_probe(place)]
    return sorted(found, key=lambda finding: finding.level != "warning")


# --- containers ---------------------------------------------------------------------------------------------------


def _in_container(facts: Facts, place: Place) -> Iterator[Finding]:
    yield from _shell(facts)
    yield from _removal(facts, place)
    yield from _layer(facts, place)
    yield from _key(facts, place)
    yield from _stop(facts, place)
    yield from _gpu(facts)
    yield from _shared_memory(facts)
    yield from _first_process(facts)


def _subject(facts: Facts) -> str:
    return f"The container {facts.name}" if facts.inspected and facts.name else "This container"


def _shell(facts: Facts) -> Iterator[Finding]:
    if not (facts.main_is_shell and facts.terminal):
        return
    shell = facts.program[-1]
    yield Finding(
        "main_is_shell",
        "note" if facts.attached is False else "warning",
        f"{_subject(facts)} lives as long as a shell at a terminal does ({shell}, as from docker run -it): when that "
        "shell ends, by exit or Ctrl-D, everything in the container is killed at once, without a last snapshot.",
        f"give it a main process that stays, and docker exec into it: {_BELOW}",
    )


def _removal(facts: Facts, place: Place) -> Iterator[Finding]:
    lost = [what for what, path in _work(place) if not is_kept(facts, path)]
    if facts.removed and lost:
        yield Finding(
            "removed",
            "warning",
            f"{_subject(facts)} was started with --rm: when it stops, it is removed with all that is on no volume, "
            f"{' and '.join(lost)} among it.",
            f"leave --rm out, or put all that matters on volumes: {_BELOW}",
        )


def _work(place: Place) -> list[tuple[str, str]]:
    notebook = [("the notebook", place.notebook)] if place.notebook else []
    return [*notebook, ("the store", place.store), ("the key", place.key)]


def is_kept(facts: Facts, path: str) -> bool:
    """Whether *path* in a container stands on something that outlives it."""
    mount = facts.mount_of(path)
    return mount is not None and mount.kept


def _layer(facts: Facts, place: Place) -> Iterator[Finding]:
    if not is_kept(facts, place.store):
        where = _where(facts, place.store)
        yield Finding(
            "store_not_kept",
            "warning",
            f"The store {place.store} is on no volume but {where}: its snapshots go when the container is removed.",
            f"mount a folder of the host there, after docker cp has taken out what is in it: {_BELOW}",
        )
    if place.notebook and not is_kept(facts, place.notebook):
        yield Finding(
            "notebook_not_kept",
            "warning",
            f"{place.notebook} is on no volume: the notebook, with its outputs, is gone when the container is removed.",
            f"mount a folder of the host there, after docker cp has taken it out: {_BELOW}",
        )


def _where(facts: Facts, path: str) -> str:
    mount = facts.mount_of(path)
    if mount is None:
        return "on the container's own layer"
    return "in memory" if mount.file_system in ("tmpfs", "ramfs") else "on one that ends with the container"


def _key(facts: Facts, place: Place) -> Iterator[Finding]:
    """A key that goes together with its store is no finding: there is nothing left that it could not check."""
    if is_kept(facts, place.store) and not is_kept(facts, place.key):
        yield Finding(
            "key_not_kept",
            "warning",
            f"The key {place.key}, which signs the snapshots, dies with the container and the store does not: they "
            "could not be checked any more, and would be refused.",
            f"mount a volume for the key, and name it with IPYRESCUE_KEY_FILE: {_BELOW}",
        )


def _stop(facts: Facts, place: Place) -> Iterator[Finding]:
    granted = facts.stop_seconds if facts.inspected else DEFAULT_STOP_SECONDS
    if granted is None:
        return
    took = place.last.seconds if place.last else None
    if took is not None and granted < took:
        happens = f"the last snapshot took {format_duration(took)}: the one at the end would be cut off"
    elif facts.inspected and granted < FAREWELL_SECONDS:
        happens = f"a kernel may take {format_duration(FAREWELL_SECONDS)} for its last snapshot"
    else:
        return
    unless = "" if facts.inspected else ", if --stop-timeout did not say more"
    yield Finding(
        "stop_too_short",
        "warning",
        f"docker stop kills after {format_duration(granted)}{unless}, and {happens}.",
        f"--stop-timeout {stop_timeout_seconds(place)} (stop_grace_period: {stop_timeout_seconds(place)}s in a "
        f"compose file): {_BELOW}",
    )


def stop_timeout_seconds(place: Place) -> int:
    """A stop timeout with room for the last snapshot three times over, at least a minute."""
    took = place.last.seconds if place.last and place.last.seconds else 0.0
    return max(60, 10 * math.ceil(took * 3 / 10))


def _gpu(facts: Facts) -> Iterator[Finding]:
    if facts.has_gpu or facts.asks_gpu is None:
        return
    seen = facts.asks_gpu == "driver"
    why = "the host has an NVIDIA driver" if seen else "its image is made for NVIDIA GPUs"
    yield Finding(
        "no_gpu",
        "warning" if seen else "note",
        f"{_subject(facts)} was given no GPU, and {why}: torch.cuda.is_available() is False in it.",
        f"--gpus all{'' if seen else ', if the host has one'}: {_BELOW}",
    )


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    if facts.shm_bytes is not None and facts.shm_bytes < SMALL_SHM_BYTES:
        yield Finding(
            "small_shm",
            "warning",
            f"Shared memory (/dev/shm) has {format_size(facts.shm_bytes)}: workers of a DataLoader put their batches "
            "there, and die with a bus error when it is full.",
            f"--shm-size 8g, which takes no memory until it is used: {_BELOW}",
        )


def _first_process(facts: Facts) -> Iterator[Finding]:
    if facts.main and not facts.forwards_signals and not {"ipyrescue", "run"} <= {*facts.program}:
        yield Finding(
            "stop_unheard",
            "note",
            f"docker stop tells the main process only ({_program(facts)}): detached runs, and kernels of others, are "
            "killed without a last snapshot.",
            "ipyrescue stop NAME before docker stop; or make docker/entrypoint.py of ipyrescue's source the main "
            "process, which tells every kernel and run",
        )
    if facts.main and facts.reaps is False:
        yield Finding(
            "no_init",
            "note",
            f"The main process ({_program(facts)}) reaps no orphans: processes that ended stay as zombies.",
            f"--init: {_BELOW}",
        )


def _program(facts: Facts) -> str:
    return " ".join(facts.program or facts.main)[:60]


# --- machines -----------------------------------------------------------------------------------------------------


def _on_machine(facts: Facts, place: Place) -> Iterator[Finding]:
    yield from _logout(place)
    mount = facts.mount_of(place.store)
    if mount is not None and not mount.kept:
        yield Finding(
            "store_in_memory",
            "warning",
            f"The store {place.store} is in memory ({mount.file_system}): its snapshots are gone at the next boot.",
            "set IPYRESCUE_STORE to a folder on a disk, or move the notebook to one",
        )
    if place.key_alone is not None:
        yield Finding("key_not_kept", "warning", place.key_alone, "set IPYRESCUE_KEY_FILE")


def _logout(place: Place) -> Iterator[Finding]:
    scope = "systemd-run --user --scope ipyrescue run NOTEBOOK --detach"
    if place.at_logout == "session":
        yield Finding(
            "killed_at_logout",
            "warning",
            "systemd-logind kills what you started when you log out (KillUserProcesses=yes), detached runs too.",
            f"loginctl enable-linger && {scope}",
        )
    elif place.at_logout == "manager":
        yield Finding(
            "killed_at_logout",
            "warning",
            "This terminal belongs to your user manager of systemd, which ends, with all that it started, when your "
            "last session does.",
            "loginctl enable-linger",
        )


# --- keys ---------------------------------------------------------------------------------------------------------


def _of_key(place: Place) -> Iterator[Finding]:
    if place.key_refusal is not None:
        yield Finding(
            "key_not_used",
            "warning",
            f"The key {place.key} {place.key_refusal}, so no snapshot is signed or checked with it: nothing is saved, "
            "nothing comes back.",
            "ipyrescue key show; mend or remove it, or set IPYRESCUE_KEY_FILE to another",
        )


# --- disks --------------------------------------------------------------------------------------------------------


def _of_disk(facts: Facts, place: Place) -> Iterator[Finding]:
    size_bytes = max(place.last.size_bytes, place.last.biggest_bytes) if place.last else 0
    if place.free_bytes is not None and place.free_bytes < max(2 * size_bytes, LITTLE_DISK_BYTES):
        last = f", and the biggest snapshot has {format_size(size_bytes)}" if size_bytes else ""
        yield Finding(
            "little_disk",
            "warning",
            f"The disk of the store {place.store} is almost full: {format_size(place.free_bytes)} are free{last}.",
            "free some, drop snapshots with ipyrescue forget, or set IPYRESCUE_STORE to a folder on another disk",
        )
    free_files = place.probed.free_files if place.probed else None
    if free_files is not None and free_files < FEW_FILES:
        yield Finding(
            "few_files",
            "warning",
            f"The file system of the store {place.store} has room for {free_files} more files only (inodes), whatever "
            "space is free.",
            "delete files that are not needed there, or set IPYRESCUE_STORE to a folder on another disk",
        )


# --- file systems -------------------------------------------------------------------------------------------------


def _of_file_system(facts: Facts, place: Place) -> Iterator[Finding]:
    """What nobody can find out by trying; of the store's own kind only."""
    mount = facts.mount_of(place.store)
    found = place.file_system or (FileSystem(mount.file_system) if mount is not None else None)
    if found is None:
        return
    on_disk = "set IPYRESCUE_STORE to a folder on a disk of this machine"
    if found.kind == "network":
        holding = "hold on this machine only" if found.locks_are_local else "may hold on one machine only"
        yield Finding(
            "store_on_network",
            "note",
            f"The store {place.store} is on a network file system ({found.type}), whose locks {holding}.",
            f"let one machine at a time write to it, or {on_disk}",
        )
    elif found.kind == "host":
        yield Finding(
            "store_on_host",
            "note",
            f"The store {place.store} is in a folder that this machine shares with its host ({found.name}): neither "
            "sees the locks of the other, and whether a file is safe from a power cut the host decides.",
            f"let one of the two at a time write to it, or {on_disk}",
        )
    elif found.kind == "bucket":
        yield Finding(
            "store_in_bucket",
            "warning",
            f"The store {place.store} is in a bucket or a drive far away ({found.name}), which only looks like a "
            "folder: a file is renamed by copying it, locks hold on this machine only, and each snapshot waits for an "
            "upload.",
            f"{on_disk}, and copy the store to the bucket from there",
        )
    elif found.kind == "overlay" and not facts.dies:
        yield Finding(
            "store_on_overlay",
            "note",
            f"The store {place.store} is on an overlay ({found.name}), as containers and live systems have it: if this "
            "is one, its snapshots go when it does.",
            "set IPYRESCUE_STORE to a folder on a volume or a disk",
        )


_LACKING: dict[str, tuple[Level, str]] = {
    "create exclusively": ("warning", "two processes may take one name, and one would lose what it saved"),
    "write, fsync, read back": ("warning", "nothing that is saved is sure to be there later"),
    "rename over a file": ("warning", "no store can be made, since nothing takes the place of a file at once"),
    "fsync of a folder": ("note", "a power cut may take a snapshot that was said to be saved"),
    "read what was unlinked": ("note", "a restore fails while somebody else forgets what it reads: try it again then"),
    "modes": ("warning", "others on this machine may read your snapshots, if its mount lets them"),
    "locks between processes": ("warning", "two writers go well, but nothing is ever freed: the store grows"),
}
"""What follows where something does not work; without links and holes there is another way that is as good."""


def _of_probe(place: Place) -> Iterator[Finding]:
    if place.probed is None:
        return
    if place.probed.failure is not None:
        yield Finding(
            "store_not_writable",
            "warning",
            _unwritten(place.store, place.probed.failure),
            "set IPYRESCUE_STORE to a folder that you may write to",
        )
    for name, seen in place.probed.lacking.items():
        if name in _LACKING:
            level, follows = _LACKING[name]
            yield Finding(
                f"lacks_{name.replace(',', '').replace(' ', '_')}",
                level,
                f"The file system of the store {place.store} failed to {_verb(name)} ({seen}): {follows}.",
                "set IPYRESCUE_STORE to a folder on a disk of this machine",
            )
    yield from _of_clock(place.store, place.probed.clock_ahead_seconds or 0.0)


def _unwritten(store: str, failure: str) -> str:
    """Why, as a sentence: the store's own, or one around what the system said."""
    if failure.endswith("."):
        return failure
    return f"Nothing could be written where the store is, {store}: {failure}. Restoring works all the same."


def _verb(name: str) -> str:
    nouns = {"fsync of a folder": "fsync a folder", "modes": "set modes", "locks between processes": "lock (flock)"}
    return nouns.get(name, name)


def _of_clock(store: str, ahead_seconds: float) -> Iterator[Finding]:
    if abs(ahead_seconds) < SKEW_SECONDS:
        return
    way = "ahead of" if ahead_seconds > 0 else "behind"
    yield Finding(
        "clock_skew",
        "warning" if abs(ahead_seconds) >= ALIVE_SECONDS else "note",
        f"The clock of the store's file system, {store}, is {format_duration(abs(ahead_seconds))} {way} this "
        "machine's: whether kernels of other machines live is judged by it, and may be judged wrongly.",
        "set both clocks (chronyc makestep, timedatectl set-ntp true)",
    )
