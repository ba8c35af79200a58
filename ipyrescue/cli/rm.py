"""`ipyrescue rm`: the record and the log of a run go; its snapshots and its notebook stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli import runs
from ipyrescue.cli.output import write, write_json
from ipyrescue.cli.stop import stopped
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import CorruptError, RescueError, RunError
from ipyrescue.runs import holdings, registry
from ipyrescue.runs import record as records
from ipyrescue.runs.serving import LOCK_NAME
from ipyrescue.store import lock

_LOCK_PATIENCE_SECONDS = 2.0


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Runs, as ipyrescue ps names them.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Also runs that live: they are ended first.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove runs from the list, with their logs. Snapshots and the notebooks of outputs stay.

    A run that lives is refused, or with --force ended at once. A run whose record is damaged goes too.

    \b
    --json prints {"removed": [names]}
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    folders = list(dict.fromkeys(registry.find(name, store) for name in names))
    for folder in folders:
        _end(folder, force=force)
    for folder in folders:
        _remove(folder)
        if not as_json:
            write(f"Removed {folder.name}")
    if as_json:
        write_json({"removed": [folder.name for folder in folders]})


def _end(folder: Path, *, force: bool) -> None:
    """Have no runner in *folder*, and nothing pinned by one. Raises RunError, StoreError."""
    try:
        shown = runs.look(folder)
    except CorruptError:
        return
    if shown.lives and force:
        shown = stopped(folder, now=True)
    if shown.lives:
        raise RunError(
            f"Nothing was removed: {folder.name} is {shown.record.state}. Stop it first: ipyrescue stop {folder.name} "
            f"(or all at once: ipyrescue rm --force {folder.name})"
        )
    holdings.let_go(records.store_of(folder), shown.record)


def _remove(folder: Path) -> None:
    """Remove a run's files. Raises RunError, OSError."""
    if folder.is_symlink():
        folder.unlink()
    else:
        try:
            with lock.alone(folder / LOCK_NAME, _LOCK_PATIENCE_SECONDS):
                shutil.rmtree(folder)
        except RescueError as error:
            raise RunError(f"{folder.name} was not removed: {error}") from error
    registry.forget(folder)
