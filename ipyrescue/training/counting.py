"""Whether what asks a loop for its items keeps a count of its own, which would begin at zero when the loop goes on.

Turns the frame in which a pass begins into the word for that (`enumerate`, `zip`, ...), by the syntax tree of its
source and by what its names stand for. `enumerate(batches(loader))` asks for the iterator at a call. Within
`enumerate(tqdm(loop(x)))` a generator asks, so there the `for` is looked at that waits for it. Code whose source nobody
kept tells nothing.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import opcode
from functools import lru_cache
from types import FrameType, ModuleType
from typing import Any

from ipyrescue import stack
from ipyrescue.training import statements

_COUNTERS = {enumerate: "enumerate", zip: "zip", map: "map", itertools.islice: "islice"}
_ABSENT = object()


def counter_asking(frame: FrameType, ours: tuple[Any, ...]) -> str | None:
    """What counts for itself, and asks in *frame* for a loop's iterator; None for a `for`, `list()`, `iter()`.

    *ours* are the functions that make loops and the types of what they make: what they hand out goes on by itself, so
    a `zip` of nothing else counts nothing.
    """
    waiting = statements.handed_to(frame) if statements.is_generator(frame) else frame
    if waiting is None:
        return None
    calls = _asking(frame) if waiting is frame else _iterated_by(waiting)
    try:
        return next((word for call in calls if (word := _word(call, waiting, ours)) is not None), None)
    finally:
        stack.let_go(waiting, lambda code: code is waiting.f_code)


def _asking(frame: FrameType) -> list[ast.Call]:
    """The calls that *frame* may be at: one, but for Python 3.10, which knows lines only."""
    operation = opcode.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
    if not operation.startswith(("CALL", "PRECALL")):
        return []
    here = _span(frame)
    calls = _calls(statements.source_of(frame.f_code))
    if here is not None:
        return [call for call in calls if _span_of(call) == here]
    return [call for call in calls if call.lineno <= frame.f_lineno <= (call.end_lineno or call.lineno)]


def _iterated_by(frame: FrameType) -> list[ast.Call]:
    asked = statements.iterated_by(frame)
    return [asked] if isinstance(asked, ast.Call) else []


def _word(call: ast.Call, frame: FrameType, ours: tuple[Any, ...]) -> str | None:
    made_by = _meaning(call.func, frame)
    word = next((word for counter, word in _COUNTERS.items() if counter is made_by), None)
    if word is None or word in ("enumerate", "islice"):
        return word
    beside = call.args if word == "zip" else call.args[1:]
    return None if all(_is_ours(each, frame, ours) for each in beside) else word


def _is_ours(node: ast.expr, frame: FrameType, ours: tuple[Any, ...]) -> bool:
    """Whether *node* is one of our loops, or what something (tqdm) has made of one."""
    if isinstance(node, ast.Call):
        made_by = _meaning(node.func, frame)
        return any(made_by is each for each in ours) or any(_is_ours(each, frame, ours) for each in node.args)
    return isinstance(_meaning(node, frame), tuple(each for each in ours if isinstance(each, type)))


def _meaning(node: ast.expr, frame: FrameType) -> Any:
    """What a name, or a name in a module, stands for in *frame*; nothing of the user's is run to find out."""
    if isinstance(node, ast.Attribute):
        owner = _meaning(node.value, frame)
        return getattr(owner, node.attr, _ABSENT) if isinstance(owner, ModuleType) else _ABSENT
    if not isinstance(node, ast.Name):
        return _ABSENT
    for names in (frame.f_locals, frame.f_globals, vars(builtins)):
        if node.id in names:
            return names[node.id]
    return _ABSENT


def _span(frame: FrameType) -> tuple[int | None, ...] | None:
    """The lines and columns of the instruction that *frame* is at; Python 3.10 cannot tell."""
    positions = getattr(frame.f_code, "co_positions", None)
    return None if positions is None else next(itertools.islice(positions(), frame.f_lasti // 2, None))


def _span_of(call: ast.Call) -> tuple[int | None, ...]:
    return call.lineno, call.end_lineno, call.col_offset, call.end_col_offset


@lru_cache(maxsize=64)
def _calls(source: str) -> tuple[ast.Call, ...]:
    """All calls of *source*."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # a file that is no longer what was compiled
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))
