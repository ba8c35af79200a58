"""Every attack of `tests/attacks`, one after the other, on a store of its own."""

from __future__ import annotations

from attacks import races, visits
from attacks.nest import build, copied
from attacks.table import CASES

from torture.outcome import Outcome, scratch

_FEWEST_ROUNDS = 200


def run(cases: int) -> Outcome:
    """The first *cases*, and races with as many rounds as that is more; the control: in peace the canary sings."""
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
        rounds = max(_FEWEST_ROUNDS, cases - len(CASES))
        with copied(template, folder / "raced") as nest:
            outcome.count("a race with links", races.race(nest, rounds))
    outcome.note = f"each is named in `tests/attacks/`; {2 * rounds:,} rounds against links that come and go"
    return outcome
