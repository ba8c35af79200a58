"""Verdicts to a page, with the rivals and every reason beside them, and to a short table in README.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fidelity.case import EXACT, LOST, NAMED, Family, Verdict
from fidelity.rivals import NOT_ASKED, RIVALS, TITLES

_ROOT = Path(__file__).parents[2]
PAGE, README = _ROOT / "docs" / "fidelity.md", _ROOT / "README.md"
_BEGIN, _END = "<!-- Written by `make fidelity` from here -->\n", "<!-- to here -->\n"

_HEAD = """\
# What comes back

<!-- Written by `make fidelity`; do not edit. The tests compare ipyrescue's column with what the cases yield. -->

Every row is a family of cases. A case is a cell, and what must be true of its names in a new kernel after a SIGKILL
and a restore. Each holds before the kill, so none is vacuous. **exact**: it is as it was, down to the last bit.
**named**: it cannot come back, or not whole, and the report of the snapshot or of the restore says so by name.
**lost**: neither. Reprint it with `make fidelity`.

ipyrescue gets the cases of several families in one namespace. The rivals get each case alone, in processes of its
own, with its imports run again; every exception and every warning counts as *named*, also one that costs the whole
session.
"""


def page(families: Sequence[Family], ours: Mapping[str, Sequence[Verdict]], theirs: Mapping[str, Mapping]) -> str:
    """The whole page, newline at its end."""
    return "\n".join([_HEAD, *_table(families, ours, theirs), "", *_explained(families, ours)]) + "\n"


def row(family: Family, verdicts: Sequence[Verdict]) -> str:
    """The part of a family's line that is ipyrescue's own."""
    return f"| {family.title} | {len(family.cases)} | {_counts(verdicts)} |"


def with_table(readme: str, families: Sequence[Family], ours: Mapping[str, Sequence[Verdict]]) -> str:
    """README.md with its table made anew."""
    before, rest = readme.split(_BEGIN)
    _, after = rest.split(_END)
    rows = [short_row(family, ours[family.name]) for family in families]
    head = ["| what | exactly | named | neither |", "| --- | --: | --: | --: |"]
    total = Counter(verdict.outcome for family in families for verdict in ours[family.name])
    last = f"| **All** | {total[EXACT]} of {total.total()} | {total[NAMED]} | {total[LOST]} |"
    return before + _BEGIN + "\n".join(["", *head, *rows, last, "", ""]) + _END + after


def short_row(family: Family, verdicts: Sequence[Verdict]) -> str:
    """A family's line in README.md."""
    found = Counter(verdict.outcome for verdict in verdicts)
    title = f"{family.title}: {family.examples}"
    return f"| {title} | {found[EXACT]} of {len(family.cases)} | {found[NAMED]} | {found[LOST]} |"


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
