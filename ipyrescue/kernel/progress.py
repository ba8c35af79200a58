"""What long work is at, in one line that the next one overwrites, and that is gone in the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from ipyrescue.wording import clean, shortened

_QUIET_SECONDS = 2.0
_EVERY_SECONDS = 0.2
_CHARACTERS = 100


class Progress:
    """Says what is being done, once that has taken a while; on the main thread, in a cell."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._next = time.monotonic() + _QUIET_SECONDS
        self._shown = 0

    def __call__(self, words: str) -> None:
        """Say it, unless it is too early or something was said just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_SECONDS
            self._show(shortened(clean(f"{self._verb}: {words}"), _CHARACTERS))

    def _show(self, line: str) -> None:
        sys.stderr.write(f"\r{line.ljust(self._shown)}")
        sys.stderr.flush()
        self._shown = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._show("")
            sys.stderr.write("\r")
            sys.stderr.flush()
