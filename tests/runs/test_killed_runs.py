"""A ten-cell notebook whose kernel, runner, or both are killed at random moments, and what is left at its end.

RUNS_KILLED says how often (CI: 30).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import nbformat
import pytest
from notebook_runs import Run, shown, wait_until

from ipyrescue.runs import record as records
from ipyrescue.runs import spawn

KILLED = int(os.environ.get("RUNS_KILLED", "6"))
WHOM = ("kernel", "runner", "both")
MARK = re.compile("^--- ipyrescue: .* ---$", re.MULTILINE)

_PLAIN = """
for step in range(8):
    total += step
    time.sleep(0.05)
    print('cell {n} step', step, total, flush=True)
"""
_LOOP = """
for epoch in ipyrescue.loop(range(30), name='loop {n}'):
    total += epoch
    seen.append(epoch)
    print('cell {n} epoch', epoch, total, flush=True)
    time.sleep(0.04)
"""
_BODIES = {
    2: _PLAIN,
    3: _LOOP,
    4: "seen",
    5: _PLAIN,
    6: "{{'total': total}}",
    7: _LOOP,
    8: _PLAIN,
    9: "print(len(seen))",
}
_FIRST = """
import os, time, ipyrescue
def ran(n):
    with open('ran', 'a') as file: file.write(str(n) + ' ')
ran(1)
total, seen = 0, []
"""
SOURCES = [
    _FIRST,
    *(f"ran({n})\n{_BODIES[n].format(n=n)}" for n in range(2, 10)),
    "ran(10)\nprint(total, sum(seen), len(seen))",
]
LOOPS = (3, 7)


def counts(folder: Path) -> list[int]:
    """How often each cell (from 1) began."""
    ran = (folder / "ran").read_text().split() if (folder / "ran").exists() else []
    return [0, *(ran.count(str(n)) for n in range(1, 11))]


def texts(run: Run) -> list[str]:
    return [shown(cell) for cell in run.output.cells]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = Run(folder, SOURCES)
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert run.here() == 0
    finally:
        os.chdir(before)
        run.clean_up()
    return texts(run)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(max(1, KILLED // len(WHOM))))
def test_a_run_that_is_killed_at_random_moments_ends_as_if_nothing_had_happened(
    number: int, uninterrupted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(f"{number} {time.time_ns()}")
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path, SOURCES, every_seconds=0.2, retries=9)
    try:
        runner = run.apart()
        promised: list[tuple[list[int], list[int]]] = []
        for whom in dice.sample(WHOM, len(WHOM)):
            wait_until(lambda now=runner: run.record.runner and run.record.runner.pid == now.pid)
            time.sleep(dice.uniform(0, 5))
            attempt, kernel = run.record.attempt, run.record.kernel
            if kernel is not None and whom != "runner":
                kill(kernel.pid)
            if whom != "kernel":
                kill(runner.pid)
                runner.wait()
                validate(run)
                promised.append(([done.cell for done in run.record.done], counts(tmp_path)))
                if records.judged(run.record, run.folder).state == "finished":
                    break
                spawn.prepare_resume(run.folder)
                runner = run.apart()
            else:
                wait_until(lambda before=attempt: run.record.attempt > before or run.record.state == "finished")
                validate(run)
        assert runner.wait(120) == 0, run.log
    finally:
        run.clean_up()

    for done, at_that_time in promised:
        again = [cell for cell in done if counts(tmp_path)[cell] > at_that_time[cell]]
        assert not again, run.log
    for cell, (text, expected) in enumerate(zip(texts(run), uninterrupted, strict=True), 1):
        parts = MARK.split(text)
        if cell not in LOOPS:
            assert parts[-1].lstrip("\n") == expected, run.log
        else:
            lines = (line for part in parts for line in part.splitlines())
            told = list(dict.fromkeys(line for line in lines if line and not line.startswith("ipyrescue: loop ")))
            rest = iter(expected.splitlines())
            assert all(line in rest for line in told), run.log
            assert told[-1] == expected.splitlines()[-1]
    assert (run.record.state, [done.cell for done in run.record.done]) == ("finished", list(range(1, 11)))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def validate(run: Run) -> None:
    """The output notebook, if there is one by now, is whole and valid; so is the record."""
    path = run.source.with_suffix(".run.ipynb")
    if path.exists():
        json.loads(path.read_text(encoding="utf-8"))
        nbformat.validate(nbformat.read(path, as_version=4))
    assert run.record.name
