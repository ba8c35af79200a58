"""Where control stands, in terms of the source: which loop a line belongs to, and which `for` asked for an item.

Turns frames and lines into loop statements by the syntax tree of the code's own source. Knows no notebook, and cannot
tell anything of code whose source nobody kept (`exec` of a string): then a header is known by its line alone.
"""

from __future__ import annotations

import ast
import linecache
import opcode
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import CodeType, FrameType

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_FOR_ITER = opcode.opmap["FOR_ITER"]
_GENERATOR = 0x20 | 0x200  # inspect.CO_GENERATOR, CO_ASYNC_GENERATOR
_FUNCTION = 0x2  # inspect.CO_NEWLOCALS: a module, and so a cell, has not got it

Place = tuple[int, CodeType, int]
"""A frame (its id, and its code, since ids are used again) and the line in it."""


class CellRun:
    """One run of a cell, a script or a function. Holds its code, so that no other code can have the same identity."""

    def __init__(self, frame: FrameType) -> None:
        self._frame_id = id(frame)
        self._code = frame.f_code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CellRun) and self._frame_id == other._frame_id and self._code is other._code

    def __hash__(self) -> int:
        return hash((self._frame_id, id(self._code)))


def cell_run_of(frame: FrameType) -> CellRun:
    """The run of a cell that *frame* is part of."""
    at = frame
    while at.f_code.co_flags & _FUNCTION and at.f_back is not None:
        at = at.f_back
    return CellRun(at)


def source_of(code: CodeType) -> str:
    """The text that *code* was compiled from, with all of its cell or file; empty if nobody kept it."""
    return "".join(linecache.getlines(code.co_filename))


def stands_at_for(frame: FrameType) -> bool:
    """Whether *frame* is just asking an iterator of its `for` (or comprehension) for the next item."""
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _FOR_ITER


def places_asking(frame: FrameType) -> tuple[tuple[Place, ...], bool]:
    """The places that wait for an item asked for in *frame*, outwards to the `for` that gets it; and if one does.

    Generators (tqdm is one) and functions that call `next()` hand an item on, so what called them is asking too. The
    walk ends at a `for` of a function or a cell, or else with the cell.
    """
    places: list[Place] = []
    at: FrameType | None = frame
    while at is not None:
        places.append((id(at), at.f_code, at.f_lineno))
        flags = at.f_code.co_flags
        if not flags & _GENERATOR and stands_at_for(at):
            return tuple(places), True
        if not flags & _FUNCTION:
            break
        at = at.f_back
    return tuple(places), False


def is_generator(frame: FrameType) -> bool:
    """Whether *frame* hands items on, as tqdm's does."""
    return bool(frame.f_code.co_flags & _GENERATOR)


def handed_to(frame: FrameType) -> FrameType | None:
    """Whoever waits for what the generator of *frame* hands on, through other generators."""
    at: FrameType | None = frame
    while at is not None and is_generator(at):
        at = at.f_back
    return at


def iterated_by(frame: FrameType) -> ast.expr | None:
    """What the `for` statement is over that *frame* is at; None elsewhere."""
    if not stands_at_for(frame):
        return None
    loops = (node for node in _loops(source_of(frame.f_code)) if frame.f_lineno in header_lines(node))
    return next((node.iter for node in loops if isinstance(node, ast.For)), None)


def lines_of_loop(code: CodeType, header: int) -> range:
    """The lines of the loop whose header has the line *header*; that line alone if there is no source."""
    for node in _loops(source_of(code)):
        if header in header_lines(node):
            return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(header, header + 1)


def is_within(frame: FrameType, line: int, places: Sequence[Place]) -> bool:
    """Whether *line* of *frame* lies in a loop that one of *places* asks for."""
    return any(
        place == id(frame) and code is frame.f_code and line in lines_of_loop(code, asking)
        for place, code, asking in places
    )


def repeats_by_while(frame: FrameType) -> bool:
    """Whether the cell that *frame* is part of is in a `while` loop just now, and in no `for` loop within it."""
    at = frame
    while at.f_code.co_flags & _FUNCTION and at.f_back is not None:
        at = at.f_back
    around = next((node for node in _loops(source_of(at.f_code)) if _spans(node.body, at.f_lineno)), None)
    return isinstance(around, ast.While)


def is_on_stack(places: Sequence[Place]) -> bool:
    """Whether the frame of one of *places* is still running in this thread."""
    runs = {(place, id(code)) for place, code, _ in places}
    at: FrameType | None = sys._getframe(1)
    while at is not None:
        if (id(at), id(at.f_code)) in runs:
            return True
        at = at.f_back
    return False


def header_of_tail(frame: FrameType) -> int | None:
    """The header line of the loop that *frame* is about to reach, if nothing but that is left of the iteration.

    For a call in the last statement of a loop's body, also within its last `if` or `match`, and before a `continue`
    or `pass`. Whatever follows within `with` or `try` is not looked into: then the answer is None.
    """
    for node in _loops(source_of(frame.f_code)):
        if _spans(node.body, frame.f_lineno):
            return node.lineno if _at_tail(node.body, frame) else None
    return None


def header_lines(node: ast.For | ast.AsyncFor | ast.While) -> range:
    """The lines between a loop's keyword and its body; its one line if it has no more."""
    return range(node.lineno, max(node.lineno + 1, node.body[0].lineno))


@lru_cache(maxsize=64)
def _loops(source: str) -> tuple[ast.For | ast.AsyncFor | ast.While, ...]:
    """All loop statements of *source*, inner ones before those around them."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # a file that is no longer what was compiled
        return ()
    found = [node for node in ast.walk(tree) if isinstance(node, _LOOPS)]
    return tuple(sorted(found, key=lambda node: (node.lineno, -(node.end_lineno or 0)), reverse=True))


def _at_tail(statements: Sequence[ast.stmt], frame: FrameType) -> bool:
    """Whether nothing but `continue` or `pass` follows the statement of these that *frame* is at."""
    here = [index for index, node in enumerate(statements) if _spans([node], frame.f_lineno)]
    at = here[0] if len(here) == 1 else _by_column(statements, here, frame)
    if at is None or not all(isinstance(node, (ast.Continue, ast.Pass)) for node in statements[at + 1 :]):
        return False
    node = statements[at]
    branches = list(_branches(node))
    if not branches:
        return isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign))
    return any(_spans(branch, frame.f_lineno) and _at_tail(branch, frame) for branch in branches)


def _by_column(statements: Sequence[ast.stmt], here: Sequence[int], frame: FrameType) -> int | None:
    """Of several statements on one line the one that *frame* is at; Python 3.10 cannot tell."""
    positions = getattr(frame.f_code, "co_positions", None)
    if not here or positions is None:
        return None
    column = list(positions())[frame.f_lasti // 2][2]
    before = [index for index in here if column is not None and statements[index].col_offset <= column]
    return max(before, default=None)


def _branches(node: ast.stmt) -> Iterator[Sequence[ast.stmt]]:
    if isinstance(node, ast.If):
        yield from (branch for branch in (node.body, node.orelse) if branch)
    elif isinstance(node, ast.Match):
        yield from (case.body for case in node.cases)
    elif not isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign, ast.Continue, ast.Pass)):
        yield ()  # whatever it has inside, something of it may still follow


def _spans(statements: Sequence[ast.stmt], line: int) -> bool:
    return bool(statements) and statements[0].lineno <= line <= (statements[-1].end_lineno or statements[-1].lineno)
