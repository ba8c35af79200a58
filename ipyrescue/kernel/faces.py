"""How a report shows itself: as text, as HTML and as JSON. Knows no IPython; IPython finds the methods by name.

A report's JSON travels as `application/vnd.ipyrescue+json`: JupyterLab ranks `application/json` above HTML and would
show a tree of braces instead of the table. Who asks for `--json` gets an `AsJson`, which is `application/json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ipyrescue.kernel.tables import Line, Table, as_html, as_text

MIME_TYPE = "application/vnd.ipyrescue+json"


class Report:
    """The three faces of every report. A subclass says its lines, its table and its JSON."""

    def lines(self) -> list[Line]:
        """Say it in sentences."""
        raise NotImplementedError

    def table(self) -> Table | None:
        """Say it in rows, where there are any."""
        return None

    def aside(self) -> Table | None:
        """Say in rows what is beside the matter; this stands before the table."""
        return None

    def as_json(self) -> dict[str, Any]:
        """Say it to a program."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return as_text(self.lines(), self.aside(), self.table())

    def _repr_html_(self) -> str:
        return as_html(self.lines(), self.aside(), self.table())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME_TYPE: self.as_json()}


@dataclass(frozen=True, repr=False)
class AsJson(Report):
    """A report that shows its JSON, for `--json`."""

    report: Report

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of the report inside."""
        return self.report.as_json()

    def __repr__(self) -> str:
        return json.dumps(self.as_json(), indent=1)

    def _repr_html_(self) -> None:  # type: ignore[override]
        return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "application/json": self.as_json()}
