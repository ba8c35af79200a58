"""The cells that a session ran: kept as text within a bound, to lines of JSON and back. Pure; knows no notebook.

What they print, and the notebook's cells that were never run, are no part of it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipyrescue.errors import CorruptError

MAX_BYTES = 1 << 20
"""So much of a session's cells a snapshot holds at most; the newest stay."""

BLOB_BYTES = 64 << 10
"""They are cut into blobs of this size, so that those which were full are in the store already."""

_KEPT_BYTES = MAX_BYTES * 3 // 4
"""What stays when the bound is reached: not all of it, or else every later snapshot would begin with other bytes."""

_MAX_CHARACTERS = 100_000

_IMPORT = re.compile(
    r"(?:^|;)[ \t]*(?:import[ \t]+(?P<modules>[^#\n;]+)"
    r"|from[ \t]+(?P<package>[\w.]+)[ \t]+import[ \t]*(?:\((?P<several>[^)]*)\)|(?P<names>[^#\n;(]+)))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Cell:
    """One cell that was run: its execution count, and its text without credentials."""

    number: int
    source: str


class History:
    """The cells of one session, oldest first; beyond `MAX_BYTES` the oldest go."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size_bytes = 0

    def add(self, cells: Iterable[Cell]) -> None:
        """Add cells that have been run."""
        self._extend([_line(cell) for cell in cells])

    def begin_with(self, cells: Iterable[Cell]) -> None:
        """Put the cells of the session that this one goes on with in front."""
        mine, self._lines, self._size_bytes = self._lines, [], 0
        self._extend([*(_line(cell) for cell in cells), *mine])

    def to_bytes(self) -> bytes:
        """One line of JSON for each cell."""
        return b"".join(self._lines)

    def _extend(self, lines: Sequence[bytes]) -> None:
        self._lines.extend(lines)
        self._size_bytes += sum(map(len, lines))
        if self._size_bytes > MAX_BYTES:
            while self._size_bytes > _KEPT_BYTES:
                self._size_bytes -= len(self._lines.pop(0))


def from_bytes(raw: bytes) -> tuple[Cell, ...]:
    """Read what `History.to_bytes` wrote; raise `CorruptError` for everything else."""
    return tuple(_cell(line) for line in raw.splitlines())


def imported(cells: Iterable[Cell]) -> frozenset[str]:
    """The dotted names after `import` and `from`, as the lines tell: cells with magics are no Python to parse.

    Of `from a.b import c` these are `a.b` and `a.b.c`, which need not be a module.
    """
    found: set[str] = set()
    for cell in cells:
        for line in _IMPORT.finditer(cell.source) if "import" in cell.source else ():
            found.update(_dotted(line))
    return frozenset(found)


def _dotted(line: re.Match[str]) -> Iterator[str]:
    package = line["package"]
    if package is not None:
        yield package
    for part in (line["modules"] or line["several"] or line["names"] or "").split(","):
        for name in part.split()[:1]:
            yield name if package is None else f"{package}.{name}"


def source_of(cells: Sequence[Cell], number: int | None, name: str) -> str | None:
    """The statements of cell *number* that bind *name*, of the newest such cell; the whole cell if it cannot be read.

    Two kernels may both have had a cell of that number: one that does not know the name is not meant.
    """
    for cell in reversed(cells):
        if cell.number == number and name in cell.source:
            found = [_text(cell.source, statement) for statement in _statements(cell.source) if _binds(statement, name)]
            return "\n".join(found) or cell.source
    return None


def class_source(cells: Sequence[Cell], number: int | None, name: str) -> str | None:
    """The definition of a class in cell *number*: for classes without methods, whose code tells no place."""
    for cell in reversed(cells):
        for statement in _statements(cell.source) if cell.number == number and name in cell.source else ():
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return _text(cell.source, statement)
    return None


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return []


def _text(source: str, statement: ast.stmt) -> str:
    """A statement as it was typed, its decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    if decorators:
        first = min(decorator.lineno for decorator in decorators)
        return "\n".join(source.splitlines()[first - 1 : statement.end_lineno])
    return ast.get_source_segment(source, statement) or ""


def _binds(statement: ast.stmt, name: str) -> bool:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == name:
            return True
    return False


def _line(cell: Cell) -> bytes:
    source = cell.source
    if len(source) > _MAX_CHARACTERS:
        source = f"{source[:_MAX_CHARACTERS]}\n# ... {len(source) - _MAX_CHARACTERS} more characters"
    text = json.dumps({"cell": cell.number, "source": source}, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _cell(line: bytes) -> Cell:
    try:
        fields = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"A snapshot's cells are not readable as JSON: {error}") from error
    if type(fields) is not dict or fields.keys() != {"cell", "source"}:
        raise CorruptError("A snapshot's cells have missing or unknown fields.")
    number, source = fields["cell"], fields["source"]
    if type(number) is not int or type(source) is not str:
        raise CorruptError("A snapshot's cells have fields of the wrong type.")
    return Cell(number, source)
