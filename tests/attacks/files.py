"""Files of a store that are something else: links, pipes, folders, sockets, other files."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attacks.nest import KERNEL, RUN, Nest
from attacks.visits import Case
from ipyrescue.runs.record import RECORD_NAME
from ipyrescue.store import layout


def _link(path: Path, nest: Nest) -> None:
    path.symlink_to(nest.treasure)


def _link_to_itself(path: Path, nest: Nest) -> None:
    """Moved away and linked to: the content is right."""
    path.with_name(f"{path.name}.aside").rename(nest.outside / path.name)
    path.symlink_to(nest.outside / path.name)


def _dangling(path: Path, nest: Nest) -> None:
    path.symlink_to(nest.outside / "nothing")


def _pipe(path: Path, nest: Nest) -> None:
    os.mkfifo(path)


def _folder(path: Path, nest: Nest) -> None:
    path.mkdir()
    shutil.copy(nest.treasure, path / "treasure")


def _socket(path: Path, nest: Nest) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _hard_link(path: Path, nest: Nest) -> None:
    os.link(nest.treasure, path)


def _device(path: Path, nest: Nest) -> None:
    path.symlink_to("/dev/zero")


KINDS = {
    "a link to a file of yours": _link,
    "a link to the right file": _link_to_itself,
    "a link to nothing": _dangling,
    "a pipe": _pipe,
    "a folder": _folder,
    "a socket": _socket,
    "a hard link to a file of yours": _hard_link,
    "a link to a device without end": _device,
}

Victims = Callable[[Nest], Sequence[Path]]

VICTIMS: dict[str, tuple[Victims, str | None, bool | None]] = {
    "the manifest": (lambda nest: [nest.manifest(nest.newer)], "older", True),
    "the pack": (lambda nest: [nest.pack(nest.newer)], "older", True),
    "format.json": (lambda nest: [nest.root / "format.json"], None, False),
    "the lock": (lambda nest: [layout.lock_file(nest.root), layout.gate_file(nest.root)], "newer", None),
    "each small file": (lambda nest: _small_files(nest), "newer", True),
}
"""Which files, what a restore brings when they are something else, and whether a snapshot can be made."""


def _small_files(nest: Nest) -> Sequence[Path]:
    """What is never trusted: a life record, mail, the record of a run, pins, unfinished work."""
    root, run = nest.root, layout.run_folder(nest.root, RUN)
    mail = layout.request_path(root, KERNEL), layout.answer_path(root, KERNEL)
    pins = layout.pin_path(root, nest.older.id), layout.pin_path(root, "0" * 16)
    drafts = layout.temporary(root) / "1-0123456789abcdef", layout.kernels(root) / ".draft"
    return (
        layout.life_path(root, KERNEL),
        layout.trace_path(root, KERNEL, "fault"),
        *mail,
        run / RECORD_NAME,
        run / "log",
        *pins,
        *drafts,
    )


def _replaced(places: Victims, kind: Callable[[Path, Nest], None], nest: Nest) -> None:
    for path in places(nest):
        aside = path.with_name(f"{path.name}.aside")
        if path.exists():
            path.rename(aside)
        else:
            aside.write_bytes(b"")
        kind(path, nest)
        aside.unlink(missing_ok=True)


REPLACED = tuple(
    Case(f"{victim} is {kind}", partial(_replaced, places, make), restores, writes)
    for victim, (places, restores, writes) in VICTIMS.items()
    for kind, make in KINDS.items()
)
