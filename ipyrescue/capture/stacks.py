"""Who runs a frame of a cell: other code of cells, a library, or C code in the middle of something.

Turns a frame into a `Standing`. Knows no tracing. `lst.sort(key=mine)` calls `mine` from C, with no frame in between,
while `lst` looks empty; `optimizer.step(closure)` calls the closure with half of a step done. A stack is clean when
each frame from the cell's own down was called by name from the one above it.
"""

from __future__ import annotations

import ast
import dis
import enum
import inspect
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from ipyrescue.capture.headers import Syntax, instruction_at, is_top_level, span_at

_ANONYMOUS = {"<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
_COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}
_RESUMING = {"FOR_ITER", "SEND", "YIELD_FROM", "GET_ANEXT", "YIELD_VALUE", "RESUME", "END_ASYNC_FOR"}
_RESUMING_BY_NAME = {"next", "anext", "send", "asend", "__next__", "__anext__"}
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
_OPTIMIZERS = "torch.optim."
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_FOLDERS_OF_LIBRARIES = ("site-packages", "dist-packages")


class Standing(enum.IntEnum):
    """CLEAN: called by cells alone. CALLED: a library calls it back. SHUT: what calls it is half done."""

    CLEAN = 0
    CALLED = 1
    SHUT = 2


class Stacks:
    """Judges frames; *is_cell* says which code is the user's own."""

    def __init__(self, is_cell: Callable[[CodeType], bool], syntax: Syntax) -> None:
        self._is_cell = is_cell
        self._syntax = syntax
        self._links: dict[tuple[int, int, int], Standing] = {}

    def forget(self) -> None:
        """Drop what is known of calls."""
        self._links.clear()

    def cell_frames(self, frame: FrameType | None) -> list[FrameType]:
        """Return the frames of cells from *frame* outwards, innermost first."""
        return [each for each in outwards(frame) if self._is_cell(each.f_code)]

    def trainer(self, frame: FrameType) -> CodeType:
        """The code that trains, where a step is made at *frame*: the training is over when that has returned.

        The outermost of a file of the user's, else of a function of a cell, else the cell; never a library's, unless
        there is nothing else.
        """
        codes = [each.f_code for each in outwards(frame)]
        of_cells = [position for position, code in enumerate(codes) if self._is_cell(code)]
        codes = codes[: of_cells[-1] + 1] if of_cells else codes
        outside = [code for code in codes if not self._is_cell(code) and not _is_installed(code)]
        cells = [codes[position] for position in of_cells]
        functions = [code for code in cells if not is_top_level(code)]
        return (outside or functions or cells or codes)[-1]

    def standing(self, frame: FrameType) -> Standing:
        """Judge how the cell's frame *frame* came to run."""
        worst, child = Standing.CLEAN, frame
        while not self._is_root(child):
            caller = child.f_back
            if caller is None:
                return max(worst, Standing.CALLED)
            worst = max(worst, self._link(caller, child))
            child = caller
        return worst

    def is_statement(self, frame: FrameType) -> bool:
        """Whether *frame* runs statements: those of a cell or of a function, not of an expression or a class."""
        code = frame.f_code
        return is_top_level(code) or (code.co_name not in _ANONYMOUS and bool(code.co_flags & inspect.CO_NEWLOCALS))

    def _is_root(self, frame: FrameType) -> bool:
        code = frame.f_code
        if not self._is_cell(code):
            return False
        driven = code.co_flags & inspect.CO_COROUTINE and frame.f_back and not self._is_cell(frame.f_back.f_code)
        return is_top_level(code) or bool(driven)  # a coroutine that an event loop drives

    def _link(self, caller: FrameType, child: FrameType) -> Standing:
        if not self._is_cell(caller.f_code):
            inside = str(caller.f_globals.get("__name__", "")).startswith(_OPTIMIZERS)
            return Standing.SHUT if inside else Standing.CALLED
        if not self._is_cell(child.f_code):
            return Standing.CLEAN  # judged where the library calls back
        key = id(caller.f_code), caller.f_lasti, id(child.f_code)
        if key not in self._links:
            self._links[key] = self._judge(caller, child)
        return self._links[key]

    def _judge(self, caller: FrameType, child: FrameType) -> Standing:
        name, generator = child.f_code.co_name, child.f_code.co_flags & _GENERATORS
        instruction = instruction_at(caller.f_code, caller.f_lasti)
        if name in _COMPREHENSIONS or (generator and instruction and instruction.opname in _RESUMING):
            return Standing.CLEAN
        calls = list(_running(self._syntax.tree(caller.f_code), caller, instruction))
        if any(_callee_name(call) == "sort" for call in calls):
            return Standing.SHUT
        if any(_mentions(call, name) for call in calls if len(calls) > 1):
            return Standing.CALLED
        named = any(_is_called(call, caller, child) for call in calls)
        resumed = generator and any(_callee_name(call) in _RESUMING_BY_NAME for call in calls)
        return Standing.CLEAN if named or resumed else Standing.CALLED


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """*frame*, and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_installed(code: CodeType) -> bool:
    """Whether *code* is a library's, or stands in no file."""
    file = code.co_filename
    return file.startswith(("<", _STANDARD_LIBRARY)) or any(name in file for name in _FOLDERS_OF_LIBRARIES)


def _running(tree: ast.Module, frame: FrameType, instruction: dis.Instruction | None) -> Iterable[ast.Call]:
    """Return the call that *frame* is in the middle of; before 3.11, which keeps lines only, those of its line."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    if not hasattr(CodeType, "co_positions"):
        return [call for call in calls if call.lineno <= frame.f_lineno <= (call.end_lineno or call.lineno)]
    span = span_at(frame.f_code, frame.f_lasti)
    if span is None or instruction is None or "CALL" not in instruction.opname:
        return []
    return [call for call in calls if (call.end_lineno, call.end_col_offset) == (span[1], span[3])]


def _callee_name(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def _mentions(call: ast.Call, name: str) -> bool:
    """Whether something called *name* is handed over by *call*, to be called by somebody else."""
    handed = [*call.args, *(keyword.value for keyword in call.keywords)]
    names = {node.id if isinstance(node, ast.Name) else getattr(node, "attr", None) for node in handed}
    return name in names or any(isinstance(node, ast.Lambda) for node in handed)


def _is_called(call: ast.Call, caller: FrameType, child: FrameType) -> bool:
    """Whether *call* calls the function that *child* runs: by its own name, or by one that stands for it."""
    code = child.f_code
    if _callee_name(call) == code.co_name:
        return True
    callee = _value(call.func, caller)
    if isinstance(callee, type):
        return code.co_name in ("__init__", "__new__")
    functions = (_plain(callee), inspect.getattr_static(type(callee), "__call__", None))
    return any(isinstance(function, FunctionType) and function.__code__ is code for function in functions)


def _plain(callee: Any) -> Any:
    return callee.__func__ if isinstance(callee, (MethodType, staticmethod, classmethod)) else callee


def _value(node: ast.expr, frame: FrameType) -> Any:
    """Return what a name or a chain of attributes stands for in *frame*, without running code of the user's."""
    match node:
        case ast.Name(id=name):
            code = frame.f_code
            local = name in code.co_varnames or name in code.co_cellvars or name in code.co_freevars
            return frame.f_locals.get(name) if local else frame.f_globals.get(name)
        case ast.Attribute(value=ast.Call(func=maker), attr=name):
            made = _value(maker, frame)
            return inspect.getattr_static(made, name, None) if isinstance(made, type) else None
        case ast.Attribute(value=owner, attr=name):
            return inspect.getattr_static(_value(owner, frame), name, None)
    return None
