"""What a check found, as it is told: one line of numbers, and a row for each name that did not come back the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ipyrescue.checking.verdicts import DIFFERS, FAILED, INCOMPARABLE, OUTCOMES, SAME, UNCHECKED, Checked
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.tables import Line, Table
from ipyrescue.settings import format_duration
from ipyrescue.wording import count

_SHOWN_ROWS = 40
_SHOWN_REASON = 160
_SAID = {
    SAME: "{} came back the same",
    DIFFERS: "{} differ",
    FAILED: "{} failed to load",
    INCOMPARABLE: "{} cannot be compared",
    UNCHECKED: "{} not checked",
}
_LEVELS = {DIFFERS: "error", FAILED: "error", UNCHECKED: "warning"}


@dataclass(frozen=True, repr=False)
class CheckReport(Report):
    """A snapshot was made, which *saved* tells of, and checked."""

    saved: Report
    checked: Checked

    def lines(self) -> list[Line]:
        """Say what was saved, then how much of it came back."""
        return [*self.saved.lines(), Line(self._summary(), self._level())]

    def table(self) -> Table:
        """Show each name that did not come back the same, the worst first."""
        order = {outcome: number for number, outcome in enumerate((FAILED, DIFFERS, INCOMPARABLE, UNCHECKED))}
        bad = sorted((v for v in self.checked.verdicts if v.outcome != SAME), key=lambda v: order[v.outcome])
        rows = [(v.name, v.type, v.outcome, v.where, v.why[:_SHOWN_REASON]) for v in bad[:_SHOWN_ROWS]]
        rest = len(bad) - len(rows)
        rows += [("...", f"{rest:,} more", "", "", "")] if rest > 0 else []
        return Table(("name", "type", "", "where", "why"), tuple(rows)).without_empty()

    def as_json(self) -> dict[str, Any]:
        """Return the report of what was saved, and every verdict."""
        return {"report": "checked", "saved": self.saved.as_json(), **dataclasses.asdict(self.checked)}

    def _summary(self) -> str:
        found = self.checked
        told = ", ".join(_SAID[o].format(f"{found.count(o):,}") for o in OUTCOMES if found.count(o))
        told = told.replace("1 differ,", "1 differs,") if found.count(DIFFERS) == 1 else told
        told = "all came back the same" if found.good and len(found.verdicts) > 1 else told or "there was nothing in it"
        where = "a fresh process" if found.processes < 2 else f"{found.processes} fresh processes"
        took = format_duration(found.seconds)
        return f"Checked {count(len(found.verdicts), 'variable')} in {where} in {took}: {told}."

    def _level(self) -> str:
        return next((level for outcome, level in _LEVELS.items() if self.checked.count(outcome)), "plain")
