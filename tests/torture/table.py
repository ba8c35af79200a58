"""Outcomes to a table as docs/reliability.md has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torture.experiments import EXPERIMENTS, Experiment
from torture.outcome import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- Written by `make torture` from here -->\n", "<!-- to here -->\n"
HEAD = """\
| what | cases | failures | seconds | what must hold | restic | SQLite |
| --- | --: | --: | --: | --- | --- | --- |"""


def row(experiment: Experiment, outcome: Outcome, seconds: float) -> str:
    """One line: what was done, what came of it, and the promises."""
    cases = f"{outcome.cases:,}" if outcome.cases else "not run"
    figures = f"{cases} | {len(outcome.failures)} | {seconds:.0f}"
    return f"| {experiment.name} | {figures} | {experiment.promise} | {experiment.restic} | {experiment.sqlite} |"


def notes(experiment: Experiment, outcome: Outcome) -> list[str]:
    """The controls, which must be broken, and what else there is to say."""
    said = [f"control: {outcome.control}"] * bool(outcome.control) + [outcome.note] * bool(outcome.note)
    return [f"- {experiment.name}: {'; '.join(said)}."] if said else []


def page(scale: str, found: Sequence[tuple[Outcome, float]]) -> str:
    """The table and what is beneath it."""
    pairs = list(zip(EXPERIMENTS, found, strict=True))
    rows = [row(experiment, *result) for experiment, result in pairs]
    beneath = [line for experiment, (outcome, _) in pairs for line in notes(experiment, outcome)]
    return "\n".join([HEAD, *rows, "", f"Scale `{scale}`.", "", *beneath]) + "\n"


def write(text: str) -> None:
    """Put *text* in the place of the table that the page has."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def names() -> list[str]:
    """The experiments that the page has a line for, in its order."""
    table = PAGE.read_text(encoding="utf-8").split(_BEGIN)[1].split(_END)[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
