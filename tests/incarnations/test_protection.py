"""What is stale is never called protected, and what is said fits a status line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.incarnations.protection import protection
from tests.incarnations.samples import a_life
from tests.kernel.samples import NOW, iso

EVERY = 300.0


def armed(**fields):
    """A kernel that is armed for every 5 min, has saved a minute ago, and is idle."""
    known = {"every_seconds": EVERY, "saved_at": iso(60), "cell_started": iso(90), "cell_running": False}
    return a_life(**(known | fields))


@pytest.mark.parametrize(
    ("life", "state", "label", "text"),
    [
        (None, "not_loaded", "not protected", "%load_ext ipyrescue. To protect it: %checkpoint_vars every=5m"),
        (a_life(), "not_armed", "not protected", "Snapshots are made only by hand; there is none yet."),
        (a_life(saved_at=iso(130)), "not_armed", "not protected", "only by hand; the last one 2 min ago."),
        (armed(), "protected", "protected, 1 min ago", "every 5 min, also inside cells; the last one 1 min ago."),
        # A new cell after a long pause: all that came before is saved.
        (
            armed(saved_at=iso(9000), cell_started=iso(30), cell_running=True),
            "protected",
            "protected, 2 h ago",
            "the last one 2 h ago.",
        ),
        (armed(saved_at=iso(9000), cell_started=iso(9010)), "protected", "protected, 2 h ago", "the last one 2 h ago."),
        (
            armed(failure="The disk is full.\n\x1b[2J"),
            "failing",
            "NOT protected: saving fails",
            r"NOT protected: saving fails; the last one 1 min ago. The disk is full.\n\x1b[2J",
        ),
        (armed(saved_at=None), "stale", "not protected: no snapshot yet", "but there is no snapshot yet."),
        (armed(saved_at="nonsense"), "stale", "not protected: no snapshot yet", "but there is no snapshot yet."),
        # A first cell that has just begun has nothing to go back to either.
        (
            armed(saved_at=None, cell_started=iso(1), cell_running=True),
            "stale",
            "not protected: no snapshot yet",
            "but there is no snapshot yet.",
        ),
        (
            armed(saved_at=iso(3600), cell_started=iso(601), cell_running=True),
            "stale",
            "stale: last 1 h ago",
            "The running cell is NOT protected",
        ),
        (armed(saved_at=iso(700), cell_started=iso(660)), "stale", "stale: last 11 min ago", "is NOT saved"),
        # A snapshot inside a cell does not hold what that cell did afterwards.
        (
            armed(saved_at=iso(900), cell_started=iso(2000), cell_ended=iso(700)),
            "stale",
            "stale: last 15 min ago",
            "What the last cell did is NOT saved. Snapshots are wanted every 5 min; the last one 15 min ago.",
        ),
        # However short that was: it may be the last step of a night.
        (
            armed(saved_at=iso(700.4), saved_through=iso(700.4), cell_started=iso(2000), cell_ended=iso(700)),
            "stale",
            "stale: last 11 min ago",
            "What the last cell did is NOT saved.",
        ),
        # One that the cell waited for, as for a command or a restore, holds all.
        (
            armed(saved_at=iso(900), saved_through=iso(700.5), cell_started=iso(2000), cell_ended=iso(700)),
            "protected",
            "protected, 15 min ago",
            "the last one 15 min ago.",
        ),
        (
            armed(saved_at=iso(700), cell_started=iso(9000), cell_running=True),
            "stale",
            "stale: last 11 min ago",
            "The running cell is NOT protected: no place was reached where its state is consistent",
        ),
        (
            armed(saved_at=iso(700), cell_started=iso(9000), cell_running=True, inside="a debugger\n holds it"),
            "stale",
            "stale: last 11 min ago",
            r"The running cell is NOT protected: a debugger\n holds it. Snapshots are wanted every 5 min; the last",
        ),
        (
            armed(cell_running=True, inside="a debugger holds it"),
            "protected",
            "protected, 1 min ago",
            "the last one 1 min ago. Inside this cell it is paused: a debugger holds it.",
        ),
        (armed(inside="a debugger holds it"), "protected", "protected, 1 min ago", "the last one 1 min ago."),
        (
            armed(cell_running=True, lacking="What trains here (SGD)\n is in no variable."),
            "stale",
            "NOT protected: training is not saved",
            r"snapshots of your variables; the last one 1 min ago. What trains here (SGD)\n is in no variable.",
        ),
        # The interval that counts is the stretched one.
        (
            armed(
                saved_at=iso(1400),
                cell_started=iso(9000),
                cell_running=True,
                interval_seconds=720.0,
                pause_seconds=3.0,
                slowdown_seconds=4.2,
            ),
            "protected",
            "protected, 23 min ago",
            "at most every 12 min (stretched from 5 min, because a snapshot costs 7.2 s), also inside cells",
        ),
        (
            armed(saved_at=iso(1500), cell_started=iso(9000), cell_running=True, interval_seconds=720.0),
            "stale",
            "stale: last 25 min ago",
            "Snapshots are wanted every 12 min (stretched from 5 min); the last one 25 min ago.",
        ),
        (armed(interval_seconds=300.004), "protected", "protected, 1 min ago", "at most every 5 min, also"),
        (armed(interval_seconds=10.0), "protected", "protected, 1 min ago", "at most every 5 min, also"),
    ],
)
def test_a_kernel_is_judged(life, state, label, text):
    judged = protection(life, NOW)

    assert (judged.state, judged.label) == (state, label)
    assert text in judged.text


def test_what_stands_in_the_way_is_told_before_it_makes_the_protection_stale():
    held = {"cell_running": True, "inside": "a debugger holds it"}

    assert protection(armed(**held), NOW).paused == "a debugger holds it"
    assert protection(armed(**held, saved_at=iso(700), cell_started=iso(9000)), NOW).paused is None
    assert protection(armed(inside="a debugger holds it"), NOW).paused is None


def test_ages_can_be_put_into_other_words():
    assert "the last one at ten." in protection(armed(), NOW, aged=lambda seconds: "at ten").text


def test_without_a_kernel_there_is_nothing_to_protect():
    assert protection(armed(), NOW, running=False).state == "no_kernel"


def test_a_cell_is_stale_from_twice_the_interval_on():
    states = [
        protection(armed(saved_at=iso(3600), cell_started=iso(seconds), cell_running=True), NOW).state
        for seconds in (0, 599, 601, 10_000)
    ]

    assert states == ["protected", "protected", "stale", "stale"]


moments = st.none() | st.text(max_size=20) | st.integers(-(10**9), 10**9).map(iso)


@given(
    every=st.none() | st.floats(-1, 1e18),
    saved=moments,
    began=moments,
    ended=moments,
    running=st.booleans(),
    failure=st.none() | st.text(),
    inside=st.none() | st.text(),
    interval=st.none() | st.floats(-1, 1e18),
)
def test_what_is_called_protected_is(every, saved, began, ended, running, failure, inside, interval):
    life = a_life(every_seconds=every, saved_at=saved, cell_started=began, cell_ended=ended, cell_running=running,
                  failure=failure, inside=inside, interval_seconds=interval)  # fmt: skip

    judged = protection(life, NOW)

    assert len(judged.label) <= 40
    assert judged.label.isprintable()
    assert judged.text.isprintable()
    if judged.state == "protected":
        assert every is not None
        assert failure is None
        assert saved is not None
        assert "not" not in judged.label.lower()
    else:
        assert not judged.label.startswith("protected")
