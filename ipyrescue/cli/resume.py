"""`ipyrescue resume`: a run that ended goes on where it can."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli.output import say
from ipyrescue.cli.run import go
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RunNotFoundError
from ipyrescue.runs import record as records
from ipyrescue.runs import registry, spawn
from ipyrescue.runs.record import Record


def resume(
    what: Annotated[str, typer.Argument(metavar="NAME|NOTEBOOK", help="A run, or the file whose last run is meant.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return at once, as ipyrescue run --detach.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was stopped, failed or died: restore, skip the cells that are done, run the rest.

    Its options are those that it was begun with. Cells that were edited meanwhile, and all behind them, run again; what
    runs again is said. Should a kernel of it still be there, it is ended first.

    \b
    --json prints {"run": {...}}, as `ipyrescue run --json` does

    Exit codes are those of ipyrescue run; 1 when the run lives, or has nothing to go on with.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    folder = _folder(what, store)
    record = spawn.prepare_resume(folder)
    if not as_json:
        say(f"Resuming {record.name} ({record.source}).")
    go(record, folder, detach=detach, as_json=as_json)


def _folder(what: str, store: Path | None) -> Path:
    """The folder of the run that is meant: by its name, or the youngest of a file's. Raises RunNotFoundError."""
    if not what.endswith((".ipynb", ".py")):
        return registry.find(what, store)
    path = Path(os.path.realpath(what))
    of_it = _runs_of(path, store)
    if not of_it:
        raise RunNotFoundError(f"There is no run of {what} to resume. Begin one: ipyrescue run {what}")
    return max(of_it, key=lambda found: found[0].created)[1]


def _runs_of(path: Path, store: Path | None) -> list[tuple[Record, Path]]:
    root = spawn.store_for(path, "script" if path.suffix == ".py" else "notebook", store)
    found = [(record, folder) for folder in registry.all_folders(root) if (record := records.read_good(folder))]
    return [(record, folder) for record, folder in found if os.path.realpath(record.source) == str(path)]
