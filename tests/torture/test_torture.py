"""A small part of `make torture` in every test run: the same experiments, with fewer cases."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable

import pytest

from ipyrescue.store import atomic
from torture import __main__ as program
from torture import crowd, faults, fulldisks, fuzzing, kills, machine, mutants, powercuts, realcuts, rot, soak, table
from torture.experiments import EXPERIMENTS
from torture.outcome import Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks, kills and reads /proc")


def test_sigkill_in_every_call_and_past() -> None:
    """The calls of a first snapshot in a new store; `tests/store/test_crash.py` has those of a later one."""
    assert kills.run(60).failures == []


def test_damage_is_found_before_anything_is_unpickled() -> None:
    """Flips, cuts, swapped, missing and replayed files, by sampling: the damaged one is named, the older one taken."""
    found = rot.run(100)

    assert found.failures == []
    assert found.cases > 400


def test_errors_of_the_system_cost_one_snapshot() -> None:
    """Said in a sentence; nothing is left, nothing is lost, and the next one works."""
    found = faults.run(200)

    assert found.failures == []
    assert found.cases > 100


def test_a_crowd_in_one_store() -> None:
    """Two writers, a reader and a pruner; and the same without locks loses snapshots."""
    found, said = crowd.crowd(2, 100)

    assert found == []
    assert any(crowd.crowd(2, 60, locked=False)[0] for _ in range(5)), said


def test_no_power_cut_loses_what_was_saved() -> None:
    """Every state that the calls of a snapshot, a forget and a prune may leave; without fsync many are broken."""
    found = powercuts.run(1)

    assert found.failures == []
    assert found.cases > 80


@pytest.mark.system
def test_no_real_power_cut_loses_what_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cut of ext4 and xfs each, the log dropped and flushed; one fsync too few, and soon one is broken."""
    assert realcuts.run(4).failures == []

    monkeypatch.setattr(atomic, "sync_folder", lambda folder: None)
    assert any("is lost" in failure for _ in range(30) for failure in realcuts.run(4).failures)


@pytest.mark.system
def test_a_really_full_disk_costs_one_snapshot() -> None:
    """Of space and of files; also one that is thinner than it says."""
    found = fulldisks.run(40)

    assert found.failures == []
    assert found.cases > 40


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left out in silence."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["torture", "--only", "on real ext4"])
    assert program.main() == 1
    assert "sudo -E make torture. Or leave it out: make torture ARGS='--without root'" in capsys.readouterr().err

    monkeypatch.setattr(sys, "argv", ["torture", "--only", "on real ext4", "--without", "root"])
    assert program.main() == 0
    assert "not run: needs root" in capsys.readouterr().out


def test_without_atheris_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["torture", "--only", "manifests, guided"])

    assert program.main() == 1
    said = capsys.readouterr().err
    assert re.search(r"it needs atheris, .*\. Or leave it out: make torture ARGS='--without atheris'", said)


@pytest.mark.skipif(bool(fuzzing.missing()), reason=fuzzing.missing())
@pytest.mark.parametrize("run", [fuzzing.run_guided, fuzzing.run_guided_streams])
def test_what_coverage_guides_breaks_nothing(run: Callable[[int], Outcome]) -> None:
    found = run(1_000)

    assert found.failures == []
    assert re.search(r"[1-9]\d+ branches", found.note)


def test_random_lives() -> None:
    """Checkpoints, kills, rot, forgetting, pins, prunes, clocks and readers in any order, beside a model."""
    assert machine.run(6).failures == []


def test_a_soak_keeps_everything_flat() -> None:
    assert soak.run(12).failures == []


def test_the_page_has_a_line_for_each_experiment() -> None:
    assert table.names() == [experiment.name for experiment in EXPERIMENTS], "run make torture ARGS=--write"


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_every_mutant_is_one_and_names_a_test(mutant: mutants.Mutant) -> None:
    """That it is killed, `make torture` shows."""
    path, _, name = mutant.killer.partition("::")

    assert mutants.mutated(mutant, (mutants.ROOT / "ipyrescue" / mutant.path).read_text())
    assert f"def {name}(" in (mutants.ROOT / path).read_text()
