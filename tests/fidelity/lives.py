"""Families through two kernels: cells, snapshot, SIGKILL, restore. Yields the verdict of every case."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kernels import Kernel, kernels

from fidelity.case import EXACT, LOST, NAMED, Case, Family, Verdict, bound_names

TESTS = Path(__file__).parent.parent


class NotTrueBeforeError(AssertionError):
    """A case says what is not so even before the kernel dies."""


def verdicts(families: Sequence[Family], folder: Path) -> dict[str, list[Verdict]]:
    """Live, die, and be judged: one kill serves all cases of all families, in one namespace."""
    cases = folder / "cases.json"
    asked = [(_key(f, c), c.holds, c.same) for f in families for c in f.cases]
    cases.write_text(json.dumps(asked), encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    with kernels(folder) as make:
        before = make(PYTHONPATH=path, IPYRESCUE_PICKLE_DEADLINE="4s")
        before.run("%load_ext ipyrescue")
        for family in families:
            _run_cells(before, family)
        saved = _ask(before, folder, "save({facts!r})")
        then = _ask(before, folder, f"judge(get_ipython().user_ns, {str(cases)!r}, {{facts!r}})")
        _insist_that_all_held(then)
        before.kill()
        after = make(PYTHONPATH=path, IPYRESCUE_PICKLE_DEADLINE="4s")
        restored = _ask(after, folder, "restore({facts!r})")
        now = _ask(after, folder, f"judge(get_ipython().user_ns, {str(cases)!r}, {{facts!r}})")
    told = [*_told(saved), *_told(restored)]
    return {f.name: [_verdict(c, then[_key(f, c)], now[_key(f, c)], told) for c in f.cases] for f in families}


def _key(family: Family, case: Case) -> str:
    return f"{family.name}: {case.name}"


def _run_cells(kernel: Kernel, family: Family) -> None:
    kernel.run(family.prelude)
    for case in family.cases:
        output = kernel.try_run(case.setup)
        if output.error is not None:
            raise NotTrueBeforeError(f"{family.name}: the cell of {case.name!r} raises {output.error}")


def _ask(kernel: Kernel, folder: Path, call: str) -> Any:
    """Have `fidelity.probing` write its facts, and read them."""
    facts = folder / "facts.json"
    facts.unlink(missing_ok=True)
    call = call.format(facts=str(facts))
    kernel.run(f"__import__('fidelity.probing', fromlist=['probing']).{call}", store_history=False)
    return json.loads(facts.read_text(encoding="utf-8"))


def _insist_that_all_held(then: dict[str, Any]) -> None:
    failed = {name: facts["failed"] for name, facts in then.items() if facts["failed"]}
    if failed:
        raise NotTrueBeforeError("\n".join(f"{name}: {why}" for name, why in failed.items()))


def _told(report: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name}: {reason}" for name, reason in report["skipped"])
    yield from report["warnings"]


def _verdict(case: Case, then: dict[str, Any], now: dict[str, Any], told: list[str]) -> Verdict:
    why = now["failed"] or _changed(case, then["same"], now["same"])
    about = [line for line in told if any(_mentions(line, name) for name in bound_names(case.setup))]
    if case.named:
        missing = [n for n in case.named if not any(_says(line, n) for line in told)]
        why = why or ("not told: " + "; ".join(missing) if missing else "")
        said = [line for line in told if any(_says(line, n) for n in case.named)]
        return Verdict(case.name, LOST if why else NAMED, why or "; ".join(said))
    if why:
        return Verdict(case.name, NAMED if about else LOST, "; ".join([why, *about]))
    return Verdict(case.name, EXACT)


def _changed(case: Case, then: list[str], now: list[str]) -> str:
    for expression, old, new in zip(case.same, then, now, strict=True):
        if old != new:
            return f"{expression} was {old} and is {new}"
    return ""


def _mentions(line: str, name: str) -> bool:
    return name in line.replace(",", " ").replace(":", " ").replace("`", " ").rstrip(".").split()


def _says(line: str, wanted: str) -> bool:
    name, _, words = wanted.partition(": ")
    return _mentions(line, name) and words in line


def unexpected(family: Family, found: list[Verdict]) -> list[str]:
    """A line for each case that is not as it should be and not explained, or explained and yet as it should be."""
    lines = []
    for case, verdict in zip(family.cases, found, strict=True):
        fine = verdict.outcome == case.expected
        if not fine and not case.known:
            lines.append(f"{family.name}: {case.name} is {verdict.outcome}, not {case.expected}: {verdict.why}")
        if fine and case.known:
            lines.append(f"{family.name}: {case.name} is {verdict.outcome} now: delete what explains why it is not")
    return lines
