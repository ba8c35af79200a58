"""Verdicts to a page: a row for each family, the rivals beside it, and every case that is not exact with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fidelity.case import EXACT, LOST, NAMED, Family, Verdict
from fidelity.rivals import NOT_ASKED, RIVALS, TITLES

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"

_HEAD = """\
# What comes back

<!-- Written by `make fidelity`; do not edit. The tests compare ipyrescue's column with what the cases yield. -->

Every row is a family of cases: a cell, and what must be true of its names in a new kernel after a SIGKILL and a
restore. Each case holds before the kill, so none is vacuous. **exact**: it is as it was, down to the last bit.
**named**: it cannot come back, or not whole, and the report of the snapshot or of the restore says so by name.
**lost**: neither. Reprint it with `make fidelity`.

ipyrescue gets all cases of a family in one namespace. The rivals get each case alone, in processes of its own, with its
imports run again; every exception and every warning counts as *named*, also one that costs the whole session.
"""


def page(families: Sequence[Family], ours: Mapping[str, Sequence[Verdict]], theirs: Mapping[str, Mapping]) -> str:
    """The whole page, newline at its end."""
    return "\n".join([_HEAD, *_table(families, ours, theirs), "", *_explained(families, ours)]) + "\n"


def row(family: Family, verdicts: Sequence[Verdict]) -> str:
    """The part of a family's line that is ipyrescue's own."""
    return f"| {family.title} | {len(family.cases)} | {_counts(verdicts)} |"


def _table(families: Sequence[Family], ours: Mapping, theirs: Mapping) -> list[str]:
    rivals = [rival for rival in RIVALS if rival in theirs]
    titles = ["ipyrescue", *(TITLES[rival] for rival in rivals)]
    lines = [f"| exact / named / lost | cases | {' | '.join(titles)} |", "| --- | --: |" + " --: |" * len(titles)]
    lines += [row(family, ours[family.name]) + _beside(family, rivals, theirs) for family in families]
    asked = [f for f in families if f.name not in NOT_ASKED]
    total = [v for f in families for v in ours[f.name]]
    line = f"| **All** | {sum(len(f.cases) for f in families)} | {_counts(total)} |"
    return [*lines, line + "".join(f" {_counts([v for f in asked for v in theirs[r][f.name]])} |" for r in rivals)]


def _beside(family: Family, rivals: Sequence[str], theirs: Mapping) -> str:
    return "".join(f" {_counts(theirs[r][family.name]) if family.name in theirs[r] else '-'} |" for r in rivals)


def _counts(verdicts: Sequence[Verdict]) -> str:
    found = Counter(verdict.outcome for verdict in verdicts)
    return f"{found[EXACT]} / {found[NAMED]} / {found[LOST]}"


def _explained(families: Sequence[Family], ours: Mapping[str, Sequence[Verdict]]) -> list[str]:
    """Every case that is not exact: what is said of it, or why it is as it is."""
    lines = ["## What does not come back exactly", "", "| family | case | | why |", "| --- | --- | --- | --- |"]
    for family in families:
        known = {case.name: case.known for case in family.cases}
        lines += [
            f"| {family.title} | {v.case} | {v.outcome} | {known[v.case] or _told(v.why)} |"
            for v in ours[family.name]
            if v.outcome != EXACT
        ]
    return lines


def _told(why: str) -> str:
    """What the report says, without what changes from run to run and without the same sentence twice."""
    said = [part.partition(": ") for part in why.split("; ")]
    said = [head if " " in head else tail or head for head, _, tail in said]
    text = re.sub(r"/tmp/[\w./]+", "/tmp/...", said[0]).replace("|", "\\|")
    return text[:160]
