"""What is told about a dead kernel."""

import pytest

from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.obituary import describe_alive, describe_death
from ipyrescue.store.lives import Life
from tests.kernel.samples import NOW, iso, snapshot


def _life(**fields):
    known = {
        "incarnation": "b" * 16,
        "notebook": "deep/train.ipynb",
        "kind": "notebook",
        "pid": 4711,
        "start_ticks": 1,
        "boot_id": "x",
        "pid_namespace": "y",
        "host": "lab",
        "started": iso(20_000),
        "cell": 9,
        "cell_started": iso(11_540),
        "cell_source": "for epoch in range(100):",
        "cell_running": True,
    }
    return Life(**(known | fields))


def test_a_death_tells_when_which_cell_what_is_saved_and_what_to_type():
    told = describe_death(Death(_life(), NOW - 20), snapshot(created=iso(131)), None, NOW)

    assert told.startswith("The last kernel of train.ipynb died at about ")
    assert "(20 s ago) while cell [9] had been running for 3 h 12 min (for epoch in range(100):)." in told
    assert "Its newest snapshot, 3f9c12ab, holds 2 variables, 1.3 GB, and was made 2 min ago." in told
    assert "%restore_vars    Look first: %restore_vars --dry-run" in told


def test_a_newer_interrupted_snapshot_is_named_with_the_line_that_takes_it():
    torn = snapshot(id="d" * 16, cut="interrupted", reason="ValueError: bad\x1b[31m")

    told = describe_death(Death(_life(), NOW), snapshot(), torn, NOW)

    assert "A newer one, dddddddd, was cut in the middle of a step (ValueError: bad\\x1b[31m)" in told
    assert told.endswith("%restore_vars from=dddddddd")


def test_a_death_without_a_snapshot_says_how_to_be_safe_next_time():
    told = describe_death(Death(_life(cell_running=False), NOW), None, None, NOW)

    assert "while no cell was running." in told
    assert "It left no snapshot." in told
    assert told.endswith("%checkpoint_vars every=5m")


def test_a_death_with_only_an_interrupted_snapshot_offers_no_plain_restore():
    told = describe_death(Death(_life(), NOW), None, snapshot(cut="interrupted"), NOW)

    assert "Its only snapshot" in told
    assert "Bring it back" not in told


@pytest.mark.parametrize(
    ("fields", "last_seen", "told"),
    [
        ({"cell_source": "x" * 200}, NOW, "x" * 57 + "..."),
        ({"cell_source": "\x1b[2Jx\ny"}, NOW, "(\\x1b[2Jx)."),
        ({"cell_started": "nonsense"}, NOW, "while cell [9] was running"),
        ({"cell": None}, NOW, "while a cell had"),
        ({"kind": "console"}, NOW, "The last kernel of this console died"),
        ({}, 0.0, "at an unknown time"),
        ({}, NOW - 200_000, "(2 d ago)"),
    ],
)
def test_odd_records_are_told_without_harm(fields, last_seen, told):
    assert told in describe_death(Death(_life(**fields), last_seen), None, None, NOW)


def test_a_kernel_that_still_lives_is_named_by_its_pid():
    told = describe_alive(_life())

    assert "Another kernel of train.ipynb is still running on lab (pid 4711, busy in cell [9])." in told
