"""Facts about a place into what may go wrong there: for each a sentence that says what happens, and what to type.

Pure. A `warning` is about work that will be lost or a run that will be stopped; a `note` is good to know. What every
machine has (no swap, little memory) is neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ipyrescue.runs.containers import Facts
from ipyrescue.runs.inspected import DEFAULT_STOP_SECONDS
from ipyrescue.runs.logins import Fate
from ipyrescue.settings import format_duration, format_size
from ipyrescue.store.keeping import is_network

Level = Literal["warning", "note"]

FAREWELL_SECONDS = 8.0
"""How long an armed kernel takes at most for a last snapshot at SIGTERM."""
SMALL_SHM_BYTES = 1 << 30
"""Docker gives 64 MB; each worker of a DataLoader puts batches there, and dies with a bus error when it is full."""
LITTLE_DISK_BYTES = 1_000_000_000

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
    """What the newest snapshot was: its size, and how long it took from the cut until it was durable."""

    size_bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class Place:
    """Where the work of one notebook stands: absolute paths, links followed. None: not known.

    *notebook* is its file, and None where a whole folder is meant. *key_alone* is the sentence of
    `ipyrescue.store.keeping` about a key that other machines lack.
    """

    folder: str
    store: str
    key: str
    notebook: str | None = None
    free_bytes: int | None = None
    last: Last | None = None
    at_logout: Fate | None = None
    key_alone: str | None = None


def judge(facts: Facts, place: Place) -> list[Finding]:
    """Everything that *facts* say may go wrong, what loses work first; none where nothing does."""
    inside = _in_container(facts, place) if facts.dies else _on_machine(facts, place)
    found = [*inside, *_of_disk(facts, place)]
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


# --- disks --------------------------------------------------------------------------------------------------------


def _of_disk(facts: Facts, place: Place) -> Iterator[Finding]:
    size_bytes = place.last.size_bytes if place.last else 0
    if place.free_bytes is not None and place.free_bytes < max(2 * size_bytes, LITTLE_DISK_BYTES):
        last = f", and the last snapshot has {format_size(size_bytes)}" if size_bytes else ""
        yield Finding(
            "little_disk",
            "warning",
            f"The disk of the store {place.store} is almost full: {format_size(place.free_bytes)} are free{last}.",
            "free some, drop snapshots with ipyrescue forget, or set IPYRESCUE_STORE to a folder on another disk",
        )
    mount = facts.mount_of(place.store)
    if mount is not None and is_network(mount.file_system):
        yield Finding(
            "store_on_network",
            "note",
            f"The store {place.store} is on a network file system ({mount.file_system}), whose locks may hold on one "
            "machine only.",
            "let one machine at a time write to it, or set IPYRESCUE_STORE to a folder on a disk of this machine",
        )
