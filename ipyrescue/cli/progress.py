"""A run in the foreground, cell by cell, on stderr: a line that turns where a person looks, else plain lines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ipyrescue.cli.output import console, printable, say
from ipyrescue.cli.unread import let_go
from ipyrescue.runs import plan
from ipyrescue.runs.record import ENDED, Record
from ipyrescue.settings import format_duration
from ipyrescue.wording import shortened

_SOURCE_CHARACTERS = 60
_PROGRESS_CHARACTERS = 60
_LARGEST_BYTES = 64 << 20


class Progress:
    """Hears of every change of a run's record; tells of cells that ended, of deaths, and what runs now."""

    def __init__(self, folder: Path, turn: Callable[[str], None] | None = None) -> None:
        self._folder = folder
        self._turn = turn
        self._lines: list[str] | None = None
        self._cell: int | None = None
        self._since = time.monotonic()
        self._deaths = 0
        self._reason: str | None = None

    def __call__(self, record: Record) -> None:
        """Take in a change. Raises nothing that is not the terminal's."""
        self._tell_deaths(record)
        if record.cell != self._cell or record.state in ENDED:
            self._tell_cell(record)
        if record.state == "waiting" and record.reason not in (None, self._reason):
            say(f"  {record.reason}")
        self._reason = record.reason
        if self._turn is not None:
            self._turn(self._now(record))

    def known_deaths(self, record: Record) -> None:
        """Take what a resumed run says of its past as told."""
        self._deaths = len(record.deaths)

    def _tell_deaths(self, record: Record) -> None:
        for death in record.deaths[self._deaths :]:
            cell = f"  cell {death.cell}: " if death.cell is not None else "  "
            say(f"{cell}the {_process(record)} {death.text}")
        self._deaths = len(record.deaths)

    def _tell_cell(self, record: Record) -> None:
        """Say that the cell before is over, and where nothing turns, that the next one begins."""
        if self._cell is not None and record.state not in ("failed", "died", "dead"):
            say(f"{self._title(record, self._cell)}   {format_duration(time.monotonic() - self._since)}")
        # A run that goes on behind its last cell names that one, and runs nothing of it.
        runs = record.state not in ENDED and record.cell not in {done.cell for done in record.done}
        self._cell = record.cell if runs else None
        self._since = time.monotonic()
        if self._cell is not None and self._turn is None:
            say(f"{self._title(record, self._cell)} ...")

    def _now(self, record: Record) -> str:
        if self._cell is None:
            return f"{record.name}: {record.state}"
        took = format_duration(time.monotonic() - self._since)
        progress = f"   {shortened(record.progress, _PROGRESS_CHARACTERS)}" if record.progress else ""
        return printable(f"{self._title(record, self._cell)}   {took}{progress}")

    def _title(self, record: Record, cell: int) -> str:
        of = str(record.cells or "?")
        if self._lines is None:
            self._lines = first_lines(self._folder / "notebook.ipynb") or first_lines(Path(record.source))
        line = self._lines[cell - 1] if 0 < cell <= len(self._lines) else ""
        return f"[{cell:>{len(of)}}/{of}] {shortened(line, _SOURCE_CHARACTERS)}".rstrip()


def first_lines(notebook: Path) -> list[str]:
    """The first line of every code cell that runs; none where the file cannot be read as a notebook."""
    try:
        if notebook.stat().st_size > _LARGEST_BYTES:
            return []
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        known = [(_text(cell["source"]), _tags(cell)) for cell in cells if cell["cell_type"] == "code"]
        return [source.strip().splitlines()[0] for source, tags in known if plan.runs(source, tags)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


@contextlib.contextmanager
def told(folder: Path, *, turning: bool = True) -> Iterator[Progress]:
    """What to tell of the changes of the run in *folder* while it runs in this process.

    Nothing turns where *turning* is False: the run itself prints.
    """
    if not (turning and sys.stderr.isatty()):
        yield Progress(folder)
        return
    status = console(sys.stderr).status(f"{folder.name} ...")
    status.start()
    try:
        yield Progress(folder, status.update)
    finally:
        try:
            status.stop()
        except OSError:
            let_go(sys.stderr)


def _text(source: Any) -> str:
    return source if type(source) is str else "".join(source)


def _tags(cell: Any) -> Any:
    return cell.get("metadata", {}).get("tags", ())


def _process(record: Record) -> str:
    return "kernel" if record.kind == "notebook" else "script"
