"""What becomes of the words of a command that nobody reads any more, where its work must go on: they are let go."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from ipyrescue.cli.output import say


def tell(text: str) -> None:
    """Write a sentence to stderr, if that still leads anywhere."""
    try:
        say(text)
    except OSError:
        let_go(sys.stderr)


def let_go(file: Any) -> None:
    """Have *file* lead nowhere from now on: what it still holds would fail at exit, and give the command its code."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, file.fileno())
        finally:
            os.close(nowhere)
