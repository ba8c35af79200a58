"""`ipyrescue stop`: a run ends after a snapshot, or at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli import runs
from ipyrescue.cli.output import console, say, write, write_json
from ipyrescue.cli.runs import Shown
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RunError
from ipyrescue.runs import registry, spawn, stopping

_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 0.1


def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run, as ipyrescue ps names it.")],
    now: Annotated[bool, typer.Option("--now", help="End it at once, without a snapshot.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a run: it makes a snapshot, also in the middle of a cell, and ends. ipyrescue resume goes on from there.

    Waits until it has ended; Ctrl-C ends the waiting only. The request is a file in the store, so it reaches a run in
    another container too. A run that has ended already is left as it is.

    \b
    --json prints {"run": {...}}, as in `ipyrescue run --json`

    Exit code 1 when it was to end --now and is still there, 4 when there is no such run.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    folder = registry.find(name, store)
    shown = stopped(folder, now=now)
    if as_json:
        write_json({"run": runs.document(shown)})
    else:
        write(runs.ending(shown))


def stopped(folder: Path, *, now: bool) -> Shown:
    """The run in *folder*, once it has ended. Raises RunError where that cannot be had, StoreError."""
    shown = runs.look(folder)
    if not shown.lives:
        return shown
    stopping.request(folder, now=now)
    asked = f"Asked {folder.name} to {'end' if now else 'make a snapshot and end'}"
    if not sys.stderr.isatty():
        say(f"{asked}.")
        return _ended(folder, now=now)
    with console(sys.stderr).status(f"{asked} ..."):
        return _ended(folder, now=now)


def _ended(folder: Path, *, now: bool) -> Shown:
    if not now:
        return runs.wait(folder)
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        shown = runs.look(folder)
        if not shown.lives:
            return shown
        time.sleep(_LOOK_SECONDS)
    return _killed(folder)


def _killed(folder: Path) -> Shown:
    """End the processes of a run whose runner does not answer. Raises RunError where they cannot be seen from here."""
    record = runs.look(folder).record
    if not (spawn.end_process(record.runner) and spawn.end_process(record.kernel)):
        host = record.runner.host if record.runner is not None else "another machine"
        raise RunError(
            f"The runner of {folder.name} does not answer, and its process, on {host}, cannot be seen from here. "
            "The request stays: it ends as soon as it looks."
        )
    return runs.look(folder)
