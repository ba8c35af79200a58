"""What a command prints: data on stdout, talk on stderr. Everything from outside is made harmless first.

Names, labels and paths were chosen by whoever wrote the store; a terminal must not obey them. Nothing printed here
is parsed as rich markup, and what cannot be seen is shown as an escape.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_WIDE_ENOUGH = 1_000_000
_FOLDED_WIDTH = 8


@dataclass(frozen=True)
class Column:
    """One column of a table; *fold* lets it break where a terminal is narrow, *right* is for numbers."""

    title: str
    right: bool = False
    fold: bool = False


def printable(text: str) -> str:
    """Show as escapes what would move a cursor, hide text or turn its direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def write(text: str) -> None:
    """Write lines of data to stdout, now, so that a closed pipe ends the command and not the interpreter's exit."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(document: dict[str, Any]) -> None:
    """Write the one JSON document of a command to stdout."""
    write(json.dumps(document, indent=2))


def say(text: str) -> None:
    """Write a sentence to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def console(file: TextIO) -> Any:
    """A rich Console that is as wide as it likes and plain where no person looks, and that obeys NO_COLOR."""
    from rich.console import Console

    return Console(
        file=file,
        width=None if file.isatty() else _WIDE_ENOUGH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        emoji=False,
        highlight=False,
    )


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, marked: Sequence[bool] = ()) -> None:
    """Write aligned rows to stdout; those *marked* stand out in red on a terminal with colours."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
            min_width=_FOLDED_WIDTH if column.fold else None,
        )
    for position, row in enumerate(rows):
        style = "red" if position < len(marked) and marked[position] else None
        table.add_row(*(Text(printable(cell)) for cell in row), style=style)
    screen = console(sys.stdout)
    with screen.capture() as captured:
        screen.print(table)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))
