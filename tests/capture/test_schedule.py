"""When a snapshot is due: tables."""

import pytest

from ipyrescue.capture.schedule import Schedule, due, interval_seconds

ARMED = Schedule(every_seconds=100.0, long_cell_seconds=60.0)


@pytest.mark.parametrize(
    ("elapsed", "cell_seconds", "raised", "trigger"),
    [
        (99.9, 1, False, None),
        (100.0, 1, False, "every"),
        (1e9, 1, False, "every"),
        (5, 60, False, "long cell"),
        (5, 59.9, False, None),
        (100, 60, False, "every"),
        (5, 1, True, "exception"),
        (100, 60, True, "exception"),
        (None, 0, False, "every"),
        (None, 0, True, "exception"),
    ],
)
def test_a_snapshot_is_due_by_interval_long_cell_or_exception(elapsed, cell_seconds, raised, trigger):
    last = None if elapsed is None else 1000.0 - elapsed

    decision = due(ARMED, now=1000.0, last=last, cell_seconds=cell_seconds, raised=raised, failures=0)

    assert (decision.trigger if decision else None) == trigger
    assert decision is None or decision.interrupted == raised


@pytest.mark.parametrize("raised", [True, False])
def test_nothing_is_due_when_not_armed(raised):
    assert due(Schedule(), now=1e6, last=None, cell_seconds=1e6, raised=raised, failures=0) is None


@pytest.mark.parametrize(("failures", "factor"), [(0, 1), (1, 2), (2, 4), (6, 64), (7, 64), (1000, 64), (-1, 1)])
def test_failures_double_the_interval_up_to_64_times(failures, factor):
    assert interval_seconds(10.0, failures=failures) == 10.0 * factor


@pytest.mark.parametrize(
    ("elapsed", "cell_seconds", "raised", "trigger"),
    [
        (399, 1, False, None),
        (400, 1, False, "every"),
        (399, 90, False, None),
        (399, 1, True, None),
        (400, 1, True, "exception"),
        (None, 1, False, "every"),
    ],
)
def test_while_attempts_fail_neither_exceptions_nor_long_cells_go_around_the_back_off(
    elapsed, cell_seconds, raised, trigger
):
    """A full disk is not asked again after each cell."""
    last = None if elapsed is None else 1000.0 - elapsed

    decision = due(ARMED, now=1000.0, last=last, cell_seconds=cell_seconds, raised=raised, failures=2)

    assert (decision.trigger if decision else None) == trigger


def test_long_cells_can_be_left_out():
    schedule = Schedule(every_seconds=100, long_cell_seconds=None)

    assert due(schedule, now=10, last=0, cell_seconds=1e9, raised=False, failures=0) is None
