"""Facts of a container into the command lines that start it as it should have been started. Pure; runs nothing.

Its slips of old are left behind: `exec` names the container that `run` named, the main process is one that stays, `-w`
is the folder that is mounted, there is no `--rm`, and the key has a volume beside the store.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from ipyrescue.runs.containers import Facts, Mount
from ipyrescue.runs.findings import Place, is_kept, stop_timeout_seconds

KEY_FOLDER, KEY_VOLUME = "/keys", "ipyrescue-key"
NEW_NAME = "trainer"
WORK_FOLDER = "/workspace"

_IDENTIFIER = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")
_ENGINES = {"docker": "docker", "podman": "podman", "libpod": "podman"}
_CONTINUED = " \\\n  "


def again(facts: Facts, place: Place) -> str | None:
    """The lines to type on the host: take out what would be lost, stop, start rightly, run; None without Docker."""
    engine = _ENGINES.get(facts.kind or "")
    if engine is None:
        return None
    old, new = _names(facts)
    return "\n".join([*_farewell(engine, facts, place, old), *_start(engine, facts, place, new)])


def _names(facts: Facts) -> tuple[str, str]:
    """What the container is called, and what it will be; its host name is its id, unless somebody gave it another."""
    if facts.inspected and facts.name:
        return facts.name, facts.name
    known = facts.name is not None and _IDENTIFIER.fullmatch(facts.name)
    return str(facts.name) if known else "OLD_NAME", NEW_NAME


def _farewell(engine: str, facts: Facts, place: Place, old: str) -> Iterator[str]:
    if facts.image is None:
        yield f"image=$({engine} inspect --format '{{{{.Config.Image}}}}' {old})"
    if place.notebook is not None and not is_kept(facts, place.notebook):
        yield f"{engine} cp {old}:{shlex.quote(place.notebook)} ."
    if _may_hold_snapshots(facts, place) and not is_kept(facts, place.store):
        yield f"{engine} cp {old}:{shlex.quote(place.store)} ."
    if _must_move_key(facts, place):
        yield f"{engine} cp {old}:{shlex.quote(place.key)} ipyrescue-key"
    yield f"{engine} stop {old}" + ("" if facts.removed else f" && {engine} rm {old}")


def _may_hold_snapshots(facts: Facts, place: Place) -> bool:
    """Inside of a container the store was looked into; from its host perhaps not."""
    return place.last is not None or facts.inspected


def _must_move_key(facts: Facts, place: Place) -> bool:
    return _may_hold_snapshots(facts, place) and not is_kept(facts, place.key)


def _start(engine: str, facts: Facts, place: Place, new: str) -> Iterator[str]:
    key_is_new = not is_kept(facts, place.key)
    words = [
        f"{engine} run -d --name {new} --init --stop-timeout {stop_timeout_seconds(place)} --shm-size 8g",
        *_gpus(engine, facts),
        *(f"-p {shlex.quote(port)}" for port in facts.ports),
        *_volumes(facts, place),
        _key(place.key, new=key_is_new),
        f"-w {shlex.quote(_folder(place))} {_process(facts)}",
    ]
    yield _CONTINUED.join(words)
    if _must_move_key(facts, place):
        yield f"{engine} cp ipyrescue-key {new}:{KEY_FOLDER}/key"
    notebook = PurePosixPath(place.notebook).name if place.notebook else "train.ipynb"
    yield f"{engine} exec {new} ipyrescue run {shlex.quote(notebook)} --detach"


def _gpus(engine: str, facts: Facts) -> list[str]:
    if not (facts.has_gpu or facts.asks_gpu):
        return []
    return ["--gpus all" if engine == "docker" else "--device nvidia.com/gpu=all"]


def _key(path: str, *, new: bool) -> str:
    if not new:
        return f"-e IPYRESCUE_KEY_FILE={shlex.quote(path)}"
    return f"-v {KEY_VOLUME}:{KEY_FOLDER} -e IPYRESCUE_KEY_FILE={KEY_FOLDER}/key"


def _folder(place: Place) -> str:
    """Where the work is to stand; nothing is mounted over the root or a home of root."""
    return place.folder if place.folder not in ("/", "/root") else WORK_FOLDER


def _volumes(facts: Facts, place: Place) -> list[str]:
    """Those that it has, as far as their sources are known, and one for the work where it has none."""
    work = facts.mount_of(place.folder)
    has_work = work is not None and work.kept
    kept = [mount for mount in facts.mounts if mount.kept and mount.source and mount is not work]
    ours = work.point if work is not None and has_work else _folder(place)
    source = shlex.quote(work.source) if work is not None and has_work and work.source else '"$PWD"'
    return [f"-v {source}:{shlex.quote(ours)}", *map(_volume, kept)]


def _volume(mount: Mount) -> str:
    return f"-v {shlex.quote(mount.source)}:{shlex.quote(mount.point)}"


def _process(facts: Facts) -> str:
    """The image, and a main process that stays: the one that it has, unless that is a shell."""
    image = shlex.quote(facts.image) if facts.image is not None else '"$image"'
    program, *arguments = ("sleep", "infinity") if facts.main_is_shell or not facts.program else facts.program
    return f"--entrypoint {shlex.quote(program)} {image} {shlex.join(arguments)}".rstrip()
