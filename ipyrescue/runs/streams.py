"""Text that a cell prints, into what its outputs show: overwritten as on a terminal, and never without bound.

Carriage returns and backspaces do what they do in JupyterLab (`processText` of packages/outputarea/src/model.ts): they
move within the last line, and what follows overwrites. A progress bar of nine hours is one line.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

LIMIT_CHARACTERS = 10_000_000
"""Of the text of one cell so much stays: one half from its beginning, the other from its end."""

_CONTROLS = re.compile(r"([\n\r\b])")
_LONGEST_LINE = 100_000


class Screen:
    """One stream's text: whole lines, and the last line, in which a cursor stands."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._held = 0
        self._line = ""
        self._column = 0

    @property
    def size(self) -> int:
        """Characters that are held."""
        return self._held + len(self._line)

    @property
    def text(self) -> str:
        """All that is held."""
        return "".join(self._lines) + self._line

    def add(self, text: str) -> None:
        """Print *text*."""
        for part in self._parts(text):
            if part == "\n":
                self._end_line()
            elif part == "\r":
                self._column = 0
            elif part == "\b":
                self._column = max(0, self._column - 1)
            else:
                self._overwrite(part)

    def drop(self, characters: int) -> int:
        """Let go of lines from the beginning until at least so many *characters* are gone; return how many."""
        dropped = 0
        while self._lines and dropped < characters:
            dropped += len(self._lines.popleft())
        self._held -= dropped
        return dropped

    def _parts(self, text: str) -> list[str]:
        """Controls apart, but only where something is overwritten."""
        if "\r" in text or "\b" in text or self._column < len(self._line):
            return [part for part in _CONTROLS.split(text) if part]
        lines, newline, rest = text.rpartition("\n")
        return [part for part in (lines, newline, rest) if part]

    def _overwrite(self, part: str) -> None:
        end = self._column + len(part)
        self._line = self._line[: self._column] + part + self._line[end:]
        self._column = end
        if self._column == len(self._line) > _LONGEST_LINE:
            self._keep(self._line)

    def _end_line(self) -> None:
        self._keep(self._line + "\n")

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._held += len(line)
        self._line, self._column = "", 0


class CellText:
    """The streams among one cell's outputs: text of one name that follows itself is one output, as in a front end.

    *removed* is told the place of each output that is taken away because there is too much text.
    """

    def __init__(self, log_name: str, removed: Callable[[int], None], limit: int = LIMIT_CHARACTERS) -> None:
        self._log_name = log_name
        self._removed = removed
        self._half = limit // 2
        self._screens: deque[tuple[Any, Screen]] = deque()
        self._gap: Any = None
        self._size = 0
        self._left_out = 0

    def add(self, outputs: list[Any], name: str, text: str, new: Callable[..., Any]) -> None:
        """Print *text* on the stream *name*, after or in the last of *outputs*; *new* makes an output of fields."""
        if not outputs:
            self.clear()
        if not self._screens or outputs[-1] is not self._screens[-1][0] or outputs[-1]["name"] != name:
            self._open(outputs, name, new)
        screen = self._screens[-1][1]
        before = screen.size
        screen.add(text)
        self._size += screen.size - before
        if self._gap is None and self._size > self._half:
            self._begin_gap(outputs, new)
        elif self._gap is not None and self._size > self._half:
            self._shrink(outputs)

    def settle(self) -> None:
        """Put into the outputs what the screens show by now."""
        for output, screen in self._screens:
            output["text"] = screen.text
        if self._gap is not None:
            self._gap["text"] = gap_sentence(self._left_out, self._log_name)
        while len(self._screens) > 1 and self._gap is None:
            self._screens.popleft()

    def clear(self) -> None:
        """The outputs were taken away."""
        self._screens.clear()
        self._gap, self._size, self._left_out = None, 0, 0

    def _open(self, outputs: list[Any], name: str, new: Callable[..., Any]) -> None:
        outputs.append(new(output_type="stream", name=name, text=""))
        self._screens.append((outputs[-1], Screen()))

    def _begin_gap(self, outputs: list[Any], new: Callable[..., Any]) -> None:
        """The first half is full: it stays as it is, and what comes now is the end."""
        self.settle()
        name = outputs[-1]["name"]
        self._gap = new(output_type="stream", name="stderr", text="")
        outputs.append(self._gap)
        self._screens.clear()
        self._open(outputs, name, new)
        self._size = 0

    def _shrink(self, outputs: list[Any]) -> None:
        """Let go of the oldest of the end, by more than is needed now, so that it is not done at each line."""
        wanted = self._size - self._half * 3 // 4
        while wanted > 0 and self._screens:
            output, screen = self._screens[0]
            dropped = screen.drop(wanted)
            if dropped < wanted and len(self._screens) > 1:
                dropped += screen.size
                self._screens.popleft()
                self._take_away(outputs, output)
            self._left_out += dropped
            self._size -= dropped
            wanted -= dropped
            if not dropped:
                return

    def _take_away(self, outputs: list[Any], output: Any) -> None:
        place = next(place for place, one in enumerate(outputs) if one is output)
        del outputs[place]
        self._removed(place)


def gap_sentence(characters: int, log_name: str) -> str:
    """What stands where text was left out."""
    if not characters:
        return ""
    return f"\n--- ipyrescue: {characters:,} characters are left out here; all are in the log: {log_name} ---\n"
