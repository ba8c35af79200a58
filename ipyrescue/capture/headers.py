"""The loops of code: which of them enclose a line, and whether control is at the header of one again.

Turns the source text of a code object into its `for`, `while` and `async for` loops. Knows no frames and no tracing. A
jump backwards does not end an iteration: the end of a `with` block and the last line of a call over several lines jump
back too. What ends it is the arrival at the header from a line of the loop's body, before `next()` or the test.
"""

from __future__ import annotations

import ast
import dis
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import NamedTuple

Statement = ast.For | ast.AsyncFor | ast.While
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NEXT = {"FOR_ITER", "GET_ANEXT", "SETUP_FINALLY"}  # where `for` and `async for` ask for the next value
_NOT_OF_A_WHILE = {"FOR_ITER", "GET_ANEXT", "SEND"}  # what else is jumped back to: comprehensions, awaiting
_INLINED = sys.version_info >= (3, 12)  # comprehensions run in the frame that they stand in (PEP 709)


class Position(NamedTuple):
    """Where control stands in a frame: its line, and the offset of its instruction (`f_lasti`)."""

    line: int
    offset: int


def in_linecache(code: CodeType) -> str | None:
    """Return the text of the file that *code* was compiled from, as far as tracebacks would show it."""
    return "".join(linecache.getlines(code.co_filename)) or None


class Syntax:
    """Syntax trees and instructions of code objects, kept until `forget`.

    *source* returns the text of the whole file or cell of a code object, or nothing.
    """

    def __init__(self, source: Callable[[CodeType], str | None] = in_linecache) -> None:
        self._source = source
        self._trees: dict[str, ast.Module] = {}
        self._known: dict[int, tuple[CodeType, list[Loop]]] = {}  # by id: the hash of a code object reads all of it

    def forget(self) -> None:
        """Drop what is known: the same file name may stand for another text later."""
        self._trees.clear()
        self._known.clear()

    def tree(self, code: CodeType) -> ast.Module:
        """Return the tree of the file of *code*; an empty one where there is no text or it does not parse."""
        text = self._source(code) or ""
        if text not in self._trees:
            self._trees[text] = _parse(text)
        return self._trees[text]

    def loops(self, code: CodeType) -> list[Loop]:
        """Return the loops of *code* itself, not of functions inside it, each before those that it encloses."""
        known = self._known.get(id(code))
        if known is None:
            known = self._known[id(code)] = code, list(_loops_of(self.tree(code), code))
        return known[1]

    def around(self, code: CodeType, line: int) -> list[Loop]:
        """Return the loops of *code* whose bodies enclose *line*, innermost first."""
        return [loop for loop in reversed(self.loops(code)) if loop.encloses(line)]


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop of *code*. The lines of its body are those of an iteration; `else:` is not among them."""

    code: CodeType
    statement: Statement

    @property
    def header(self) -> range:
        """The lines of the header, from `for` or `while` on."""
        end = self.statement.test if isinstance(self.statement, ast.While) else self.statement.iter
        return range(self.statement.lineno, _last_line(end) + 1)

    @property
    def body(self) -> range:
        """The lines of the body."""
        return _lines(self.statement.body)

    def encloses(self, line: int) -> bool:
        """Whether *line* is one of the body's."""
        return line in self.body

    def holds(self, line: int) -> bool:
        """Whether control is still in this loop at *line*: in its header or in its body."""
        return line in self.header or line in self.body

    def reached(self, before: Position, now: Position) -> bool:
        """Whether control came from the body, at *before*, to the header, at *now*: an iteration is complete."""
        if not self.encloses(before.line):
            return False
        if self.body.start in self.header:
            return now.line in self.header and self._again(before, now)
        return now.line in self.header or self._begins_again(before, now)

    def _again(self, before: Position, now: Position) -> bool:
        """Header and body share a line, so that the line says nothing: the instruction does."""
        instruction = instruction_at(self.code, now.offset)
        if instruction is None:
            return False
        jump = "BACKWARD" in instruction.opname
        if jump:  # 3.13 reports such a line where it is left, the others where it is entered again
            instruction = instruction_at(self.code, instruction.argval)
        if instruction is None:
            return False
        if not isinstance(self.statement, ast.While):
            return instruction.opname in _NEXT and self._is_own(instruction)
        return instruction.opname not in _NOT_OF_A_WHILE and (jump or now.offset <= before.offset)

    def _is_own(self, instruction: dis.Instruction) -> bool:
        """Whether this `FOR_ITER` is the loop's, and not that of a comprehension on its line."""
        if not _INLINED or isinstance(self.statement, ast.While):
            return True
        positions = span_at(self.code, instruction.offset)
        return positions in (_span(self.statement), _span(self.statement.iter), _span(self.statement.target))

    def _begins_again(self, before: Position, now: Position) -> bool:
        """`while True:` has nothing at its header; its iteration ends where the next one begins.

        Not where an inner `while` begins the body and jumps to the same instruction.
        """
        inner = _leading_while(self.statement.body)
        return now.offset == self._first_offset() and not (inner and before.line in _lines(inner.body))

    def _first_offset(self) -> int | None:
        return next((start for start, _, line in self.code.co_lines() if line in self.body), None)


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what ran may be a transformation of this text
        return ast.Module([], [])


def _loops_of(tree: ast.Module, code: CodeType) -> Iterator[Loop]:
    scope = _scope(tree, code)
    for node in _walk(scope.body) if scope else ():
        if isinstance(node, _LOOPS):
            yield Loop(code, node)


def _scope(tree: ast.Module, code: CodeType) -> ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the node that *code* was compiled from, where loops can stand in it."""
    if is_top_level(code):
        return tree
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return node
    return None


def is_top_level(code: CodeType) -> bool:
    """Whether *code* is a module's, a cell's or a statement's, and no function's or class's."""
    return code.co_name == "<module>" or code.co_name.startswith("<cell line")  # the latter is IPython 8.0's


def _first_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _walk(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of one scope, each before what it contains, in the order of the text."""
    waiting: list[ast.AST] = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _leading_while(body: list[ast.stmt]) -> ast.While | None:
    first = body[0]
    while isinstance(first, ast.Try):
        first = first.body[0]
    return first if isinstance(first, ast.While) else None


def _lines(body: list[ast.stmt]) -> range:
    decorators = getattr(body[0], "decorator_list", [])
    return range(min([body[0].lineno, *(decorator.lineno for decorator in decorators)]), _last_line(body[-1]) + 1)


def _last_line(node: ast.stmt | ast.expr) -> int:
    return node.end_lineno or node.lineno


def _span(node: ast.stmt | ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def span_at(code: CodeType, offset: int) -> tuple[int | None, ...] | None:
    """Return the span of text of the instruction at *offset*; nothing before 3.11."""
    spans: Callable[[], Iterator[tuple[int | None, ...]]] | None = getattr(code, "co_positions", None)
    return next(islice(spans(), offset // 2, None), None) if spans else None


def instruction_at(code: CodeType, offset: int) -> dis.Instruction | None:
    """Return the instruction at *offset*, or the one whose inline cache that is."""
    last = None
    for instruction in dis.get_instructions(code):
        if instruction.offset > offset:
            break
        last = instruction
    return last
