"""What a loop without `name=` is called: its place in the source, the same when the same cell is run again.

A name is made of the path of calls from the cell to the loop, and of the text of that cell. So two loops of one cell,
one function called from two places, and two cells that look alike all have names of their own, and line numbers or
memory addresses play no part. A cell that was edited has other names: what its loops stood at is then not taken up
(`progress` says so); give `name=` to a loop whose cell is going to change.
"""

from __future__ import annotations

import hashlib
from types import CodeType, FrameType

from ipyrescue.training import statements

_FUNCTION = 0x2  # inspect.CO_NEWLOCALS


def name_of(frame: FrameType) -> str:
    """Name the loop that is being made in *frame*: readable, and the same for the same text."""
    path = hashlib.blake2s(digest_size=4)
    at = frame
    while at.f_code.co_flags & _FUNCTION and at.f_back is not None:
        path.update(_call(at))
        at = at.f_back
    path.update(_call(at))
    path.update(_text(at.f_code))
    where = frame.f_code.co_name if frame.f_code.co_flags & _FUNCTION else "cell"
    return f"{where}, line {frame.f_lineno}, {path.hexdigest()}"


def _call(frame: FrameType) -> bytes:
    return f"{frame.f_code.co_name} {frame.f_lineno - frame.f_code.co_firstlineno} {frame.f_lasti}\n".encode()


def _text(code: CodeType) -> bytes:
    source = statements.source_of(code)
    return source.encode("utf-8", "surrogatepass") if source else code.co_code + repr(code.co_names).encode()
