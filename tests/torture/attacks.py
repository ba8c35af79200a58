"""Every attack of `tests/attacks`, one after the other, on a store of its own."""

from __future__ import annotations

from attacks import visits
from attacks.nest import build, copied
from attacks.table import CASES

from torture.outcome import Outcome, scratch


def run(cases: int) -> Outcome:
    """The first *cases*; before them the control: in peace the canary sings, and everything works."""
    outcome = Outcome()
    with scratch() as folder:
        (folder / "template").mkdir()
        template = build(folder / "template")
        with copied(template, folder / "peace") as nest:
            if visits.problems(visits.Case("none", lambda nest: None), nest) or not nest.song.exists():
                outcome.failures.append("the control: a store in peace does not work, or the canary does not sing")
        for case in CASES[:cases]:
            with copied(template, folder / "attacked") as nest:
                outcome.count(case.name, visits.problems(case, nest))
    outcome.note = "each is named in `tests/attacks/`"
    return outcome
