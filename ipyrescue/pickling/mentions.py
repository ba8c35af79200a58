"""Which packages the streams of a snapshot take classes and functions from. Reads bytes; unpickles nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LOOKED_UP = b"\x94\x93"
"""The end of a name that a stream meets for the first time, and the opcode that looks it up in its module."""
_MODULE_AND_NAME = re.compile(rb"\x8c.([A-Za-z_][\w.]*)\x94\x8c.[A-Za-z_][\w.<>]*\Z", re.DOTALL)
_LONGEST = 2 * 255 + 5
"""Two short texts with their opcodes and lengths."""


def packages(streams: Iterable[bytes]) -> set[str]:
    """The top-level modules that *streams* of pickle protocol 4 or 5 name.

    A name is found where its module stands just before it, which it does at its first class or function.
    """
    return {module.partition(".")[0] for stream in streams for module in _modules(stream)}


def _modules(stream: bytes) -> Iterator[str]:
    at = stream.find(_LOOKED_UP)
    while at >= 0:
        if found := _MODULE_AND_NAME.search(stream, max(0, at - _LONGEST), at):
            yield found[1].decode("ascii")
        at = stream.find(_LOOKED_UP, at + 1)
