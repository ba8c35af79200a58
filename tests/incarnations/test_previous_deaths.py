"""Which kernels of a notebook died, and what is noted about them afterwards."""

import os
import time

import pytest

from ipyrescue.incarnations.deaths import (
    Death,
    deaths,
    dismiss,
    mark_restored,
    previous_death,
    still_alive,
    undecided,
)
from ipyrescue.store import lives
from ipyrescue.store.lives import process_facts
from tests.incarnations.samples import a_life, bury, here
from tests.kernel.samples import NOW, iso

NOTEBOOK = "train.ipynb"
OF_THIS_PROCESS = {"pid": os.getpid(), "start_ticks": process_facts(os.getpid()).start_ticks}


def put(root, digit, *, at=NOW, **fields):
    """A life that was over long ago; the digits are in the order of their beginnings."""
    known = {"incarnation": digit * 16, "notebook": NOTEBOOK, "started": iso(10_000 - int(digit, 16))}
    return bury(root, a_life(**here(**(known | fields))), at=at)


def test_deaths_are_found_newest_first_whatever_came_of_them(store_root):
    put(store_root, "1", restored="f" * 16)
    put(store_root, "2", dismissed=True)
    put(store_root, "3")
    put(store_root, "4", ended="shutdown")
    put(store_root, "5", **OF_THIS_PROCESS)
    put(store_root, "6", notebook="other.ipynb")
    put(store_root, "7")

    assert [death.life.incarnation[0] for death in deaths(store_root, {NOTEBOOK})] == ["7", "3", "2", "1"]
    assert [death.life.incarnation[0] for death in deaths(store_root, {NOTEBOOK}, "7" * 16)] == ["3", "2", "1"]
    assert [death.life.incarnation[0] for death in deaths(store_root, {"other.ipynb"})] == ["6"]


def test_the_newest_death_without_an_answer_is_the_previous_one(store_root):
    first, second, third = (put(store_root, digit) for digit in "123")
    assert previous_death(store_root, NOTEBOOK, "").life == third
    assert previous_death(store_root, NOTEBOOK, third.incarnation).life == second

    dismiss(store_root, third)

    assert previous_death(store_root, NOTEBOOK, "").life == second
    mark_restored(store_root, second, "e" * 16)
    assert lives.read_all(store_root)[1].restored == "e" * 16
    assert first.restored is None
    assert previous_death(store_root, NOTEBOOK, "") is None, "what died before is past"


def test_an_answer_is_no_sign_of_life(store_root):
    life = put(store_root, "1", at=1000.0)

    dismiss(store_root, life)

    (death,) = deaths(store_root, {NOTEBOOK})
    assert (death.last_seen, death.pending) == (1000.0, False)


def test_a_death_under_a_former_name_counts(store_root):
    old = put(store_root, "1", notebook="untitled.ipynb")

    assert previous_death(store_root, NOTEBOOK, "") is None
    assert previous_death(store_root, NOTEBOOK, "", {"untitled.ipynb"}).life == old


def test_a_kernel_that_lives_is_no_death(store_root):
    mine, theirs = (put(store_root, digit, **OF_THIS_PROCESS) for digit in "12")

    assert deaths(store_root, {NOTEBOOK}) == []
    assert still_alive(store_root, NOTEBOOK, theirs.incarnation) == mine
    assert still_alive(store_root, "other.ipynb", "") is None


def test_without_a_store_nobody_died(store_root):
    assert deaths(store_root, {NOTEBOOK}) == []
    assert still_alive(store_root, NOTEBOOK, "") is None
    assert not undecided(store_root, NOTEBOOK, "")


@pytest.mark.parametrize(
    ("fields", "silent_seconds", "expected"),
    [
        ({"pid_namespace": "pid:[1]"}, 5, True),  # beside us, or the container's last life
        ({"pid_namespace": "pid:[1]"}, 45, True),
        ({"pid_namespace": "pid:[1]"}, 70, False),  # it died
        ({"pid_namespace": "pid:[1]", "ended": "exit"}, 5, False),
        ({"boot_id": "another"}, 5, False),
        ({}, 5, False),  # in sight, and gone
        ({"notebook": "other.ipynb", "pid_namespace": "pid:[1]"}, 5, False),
    ],
)
def test_a_silent_kernel_out_of_sight_is_undecided_for_a_minute(store_root, fields, silent_seconds, expected):
    put(store_root, "1", at=time.time() - silent_seconds, **fields)

    assert bool(undecided(store_root, NOTEBOOK, "")) is expected


@pytest.mark.parametrize(
    ("died_at", "expected"),
    [(None, 1000.0), ("nonsense", 1000.0), ("1970-01-01T01:00:00+00:00", 3600.0), ("1970-01-01T00:00:00Z", 1000.0)],
)
def test_the_moment_is_a_servers_or_the_last_heartbeat(died_at, expected):
    assert Death(a_life(died_at=died_at), 1000.0).at == expected
