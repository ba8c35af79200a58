"""All that kernels and people do with a store, done to one that was attacked; what went wrong, in words.

Whatever the attack was: everything ends, errors are sentences, nothing outside is touched, nothing that was changed is
unpickled, and no text of the store moves a terminal's cursor.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from namespaces import Life
from typer.main import get_command

from attacks.nest import KERNEL, RUN, Attack, Nest, deadline, inventory
from ipyrescue.cli.app import app
from ipyrescue.errors import RescueError
from ipyrescue.incarnations import deaths
from ipyrescue.runs import record, segments, stopping
from ipyrescue.store import Store, layout, lives, prune, requests
from ipyrescue.store.retention import Retention
from ipyrescue.store.upkeep import tidy

COMMANDS = (
    ("ls",),
    ("ls", "--json"),
    ("show", "latest"),
    ("verify",),
    ("stats",),
    ("ps", "-a"),
    ("why", "train.ipynb"),
)


@dataclass(frozen=True)
class Case:
    """*attack*, and what must be true then: which value a plain restore brings, and whether a snapshot can be made.

    *restores* None: nothing can be restored. *writes* None: either is right. *sings*: the canary itself is as it was.
    """

    name: str
    attack: Attack
    restores: str | None = "newer"
    writes: bool | None = True
    sings: bool = False


def problems(case: Case, nest: Nest) -> list[str]:
    """What is wrong after the attack."""
    with deadline():
        case.attack(nest)
        outside = inventory(nest.outside)
        found = [*_restoring(case, nest), *_looking(nest), *_asking(nest), *_writing(case, nest)]
    return found + ["something outside of the store was changed"] * (inventory(nest.outside) != outside)


def _restoring(case: Case, nest: Nest) -> Iterator[str]:
    kept = _restored(nest)
    expected = case.restores and case.restores * 2000
    if kept != expected:
        yield f"a restore brought {str(kept)[:40]!r}, not {case.restores!r}"
    if nest.song.exists() and case.restores != "newer" and not case.sings:
        yield "the canary sang"


def _restored(nest: Nest) -> object:
    try:
        after = Life(nest.store())
        after.restore()
    except RescueError:
        return None
    if hasattr(after.names.get("canary"), "close"):
        after.names["canary"].close()
    return after.names.get("kept")


def _looking(nest: Nest) -> Iterator[str]:
    for words in COMMANDS:
        said = typed(*words, "--store", str(nest.root))
        if not inert(said):
            yield f"{words} printed {said[:60]!r}"


def typed(*words: str) -> str:
    """What a command prints, stdout and stderr together. Raises what it should have told in a sentence."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        _command().main([*words], standalone_mode=False)
    return said.getvalue()


@cache
def _command() -> Any:
    return get_command(app)  # most of the time that a command takes


def inert(text: str) -> bool:
    """Whether a terminal shows *text* as it is."""
    return all(character.isprintable() or character == "\n" for character in text)


def _asking(nest: Nest) -> Iterator[str]:
    """What a kernel, its successor, a server and a runner ask all the time."""
    lived = lives.read_all(nest.root)
    deaths.deaths(nest.root, {"train.ipynb"})
    record.read_all(nest.root)
    stopping.requested(layout.run_folder(nest.root, RUN))
    requests.answered(nest.root, KERNEL)
    with contextlib.suppress(RescueError, OSError):
        printed = segments.open_after(layout.run_folder(nest.root, RUN), 0)
        if printed is not None:
            printed[1].close()
    with contextlib.suppress(RescueError):
        lives.touch(nest.root, KERNEL)
    with contextlib.suppress(RescueError):
        record.touch(layout.run_folder(nest.root, RUN))
    for life in lived:
        lives.last_seen(nest.root, life)
        with contextlib.suppress(RescueError):
            lives.annotate(nest.root, life, dismissed=True)
    pending = requests.pending(nest.root, KERNEL)
    if pending is not None:
        with contextlib.suppress(RescueError):
            requests.answer(nest.root, KERNEL, pending, refusal="not now")
    yield from ()


def _writing(case: Case, nest: Nest) -> Iterator[str]:
    before = inventory(nest.root)
    if case.writes is False:
        yield from _taking_away(nest)
    said = _saved(nest)
    if case.writes is False and inventory(nest.root) != before:
        yield "it was written to"
    if case.writes is not None and (said is None) != case.writes:
        yield f"a snapshot was refused: {said}" if said else "a snapshot was made"
    with contextlib.suppress(RescueError):
        prune.prune(nest.store(), max_dead=0.0)


def _taking_away(nest: Nest) -> Iterator[str]:
    """Forget and unpin, which take away what cannot be had again."""
    verbs = (("forget", nest.newer), ("unpin", nest.older))
    for verb, snapshot in verbs:
        there = [path for path in (nest.manifest(snapshot), layout.pin_path(nest.root, snapshot.id)) if path.exists()]
        with contextlib.suppress(RescueError):
            getattr(nest.store(), verb)(snapshot.id)
        if not all(path.exists() for path in there):
            yield f"{verb} took something away"


def _saved(nest: Nest) -> str | None:
    """Save and tidy up as a kernel does after a cell; why that was refused."""
    try:
        life = Life(Store.open(nest.root, nest.key, create=True))
        life.run("kept = 'next' * 2000")
        life.checkpoint()
    except RescueError as error:
        return str(error)
    with contextlib.suppress(RescueError):
        tidy(life.store, life.notebook, Retention(keep=1, hourly=0, daily=0), current=life.incarnation)
    brought = _restored(nest)
    return None if brought == "next" * 2000 else f"a restore brought {str(brought)[:40]!r}"
