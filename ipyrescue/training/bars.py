"""tqdm's bars over a loop that does not begin at its beginning: they show the right start.

`loop(tqdm(x))`: the bar is told where it begins, before it does. `tqdm(loop(x))`: a bar counts for itself once it has
begun, so a resumed loop that is asked by one takes the counting over. Bars of passes that begin at their beginning are
never touched. Uses what tqdm documents (`initial`, `n`, `refresh`, `close`, `iterable`) and asks for tqdm only where
somebody else has loaded it.
"""

from __future__ import annotations

import sys
import time
from types import FrameType
from typing import Any


def is_bar(iterable: object) -> bool:
    """Whether *iterable* is a bar of tqdm around something."""
    module = sys.modules.get("tqdm.std")
    return module is not None and isinstance(iterable, module.tqdm) and iterable.iterable is not None


def begin_at(bar: Any, start: int) -> None:
    """Let *bar*, which has not begun, begin at *start*."""
    bar.initial = bar.n = bar.last_print_n = start
    bar.refresh()


def bar_asking(frame: FrameType | None) -> Any | None:
    """The bar whose `__iter__` is what runs in *frame*, if it shows anything."""
    module = sys.modules.get("tqdm.std")
    if module is None or frame is None or frame.f_code is not module.tqdm.__iter__.__code__:
        return None
    bar = frame.f_locals["self"]
    return None if bar.disable else bar


def say(text: str) -> None:
    """Print *text* on stderr as a line of its own, above bars that are shown there."""
    module = sys.modules.get("tqdm.std")
    if module is not None:
        module.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - once, where a loop of the user's goes on


class Counting:
    """Counts for a bar that has begun by itself, at zero, what really began at *start*."""

    def __init__(self, bar: Any, start: int) -> None:
        self._bar = bar
        bar.miniters = float("inf")  # or else the bar would go on showing its own count
        begin_at(bar, start)
        self._shown = time.monotonic()

    def show(self, n: int) -> None:
        """Show that *n* items are done, at most as often as the bar wants to be shown."""
        self._bar.n = n
        now = time.monotonic()
        if now - self._shown >= self._bar.mininterval:
            self._shown = now
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands now: it will put its own count into `n` after this, and show it no more."""
        self._bar.refresh()
        self._bar.close()
