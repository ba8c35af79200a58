"""The functions that ran when a snapshot was taken, shown: what `ipyrescue.frames()` returns."""

from __future__ import annotations

from typing import Any

from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.tables import Line, Table
from ipyrescue.stack import Running
from ipyrescue.wording import type_name


class Frames(Report, tuple[Running, ...]):
    """Frames, outermost first, in the order of a traceback. Each has `function`, `cell`, `line` and `locals`."""

    __slots__ = ()

    def lines(self) -> list[Line]:
        """Say which functions ran."""
        if not self:
            return [Line("No function of a cell ran when what was restored here was saved, or nothing was restored.")]
        return [Line(f"[{position}] {frame.call}, {frame.place}") for position, frame in enumerate(self)]

    def table(self) -> Table:
        """Show their locals by name and type; a value may be large, or refuse to be shown."""
        rows = [
            (f"[{position}]", name, type_name(value))
            for position, frame in enumerate(self)
            for name, value in frame.locals.items()
        ]
        return Table(("frame", "local", "type"), tuple(rows))

    def as_json(self) -> dict[str, Any]:
        """Return the same, without values."""
        frames = [
            {
                "function": frame.function,
                "cell": frame.cell,
                "line": frame.line,
                "locals": {name: type_name(value) for name, value in frame.locals.items()},
            }
            for frame in self
        ]
        return {"report": "frames", "frames": frames}
