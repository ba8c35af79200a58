"""When a snapshot is due: tables."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.capture.schedule import (
    Costs,
    Decision,
    Schedule,
    due,
    due_inside,
    interval_seconds,
    slowdown_seconds,
    stretched_seconds,
)

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


@pytest.mark.parametrize(
    ("cost_seconds", "share", "interval"),
    [(0, 0.01, 300), (3, 0.01, 300), (4, 0.01, 400), (4, 0.1, 300), (60, 0.01, 6000), (400, 1, 400), (-1, 0.01, 300)],
)
def test_the_interval_is_stretched_until_snapshots_take_their_share_at_most(cost_seconds, share, interval):
    assert stretched_seconds(300, cost_seconds, share) == interval


@pytest.mark.parametrize(
    ("costs", "typical"),
    [
        ([], 0),
        ([4], 4),
        ([4, 0.1], 0.1),  # the first one pays for the warm memory
        ([4, 0.1, 0.2], 0.2),
        ([1, 9, 1, 1, 1], 1),
        ([9, 9, 9, 1, 1, 1], 1),  # what was long ago is forgotten
    ],
)
def test_what_a_snapshot_costs_is_the_median_of_the_last_ones(costs, typical):
    known = Costs()
    for cost in costs:
        known.add(cost / 2, cost / 2)

    assert known.typical_seconds == typical


@pytest.mark.parametrize(
    ("last", "unsaved_since", "failures", "cost_seconds", "is_due"),
    [
        (900, 900, 0, 0, True),
        (901, 900, 0, 0, False),
        (0, 901, 0, 0, False),  # idle for long, and the new cell has just begun
        (0, 899, 0, 0, True),
        (None, 899, 0, 0, True),
        (None, 901, 0, 0, False),
        (850, 850, 1, 0, False),  # failures back off inside cells as well
        (800, 800, 1, 0, True),
        (801, 801, 0, 2, False),  # 2 s each 100 s would be more than 1 %
        (800, 800, 0, 2, True),
    ],
)
def test_inside_a_cell_a_snapshot_is_due_by_what_is_not_saved_yet(last, unsaved_since, failures, cost_seconds, is_due):
    decision = due_inside(
        ARMED, now=1000, last=last, unsaved_since=unsaved_since, failures=failures, cost_seconds=cost_seconds
    )

    assert decision == (Decision("every") if is_due else None)


def test_inside_a_cell_nothing_is_due_when_not_armed():
    assert due_inside(Schedule(), now=1e9, last=None, unsaved_since=0) is None


@pytest.mark.parametrize(("cost_seconds", "trigger"), [(0.1, "every"), (0.11, None), (4, None)])
def test_at_the_end_of_a_cell_only_a_pause_that_is_felt_stretches_the_interval(cost_seconds, trigger):
    schedule = Schedule(every_seconds=1, long_cell_seconds=None)

    decision = due(schedule, now=5, last=0, cell_seconds=1, raised=False, failures=0, cost_seconds=cost_seconds)

    assert (decision.trigger if decision else None) == trigger


def ends(*durations, start=0.0):
    """When steps of these durations end."""
    return list(itertools.accumulate(durations, initial=start))


BEFORE = ends(*[0.1] * 20)  # the pause comes after it
BEGAN = BEFORE[-1] + 0.5


@pytest.mark.parametrize(
    ("durations", "writing_seconds", "lost"),
    [
        ([0.1] * 20, 1.0, 0),
        ([0.2] * 20, 1.0, 0.5),  # half speed
        ([0.4, *[0.1] * 20], 1.0, 0.3),  # the copies of a fork fall into the first step
        ([0.1, 0.1, 0.1, 60, 0.1], 1.0, 0),  # an evaluation of the user
        ([60], 1.0, 1.0),  # all of the writing at most
        ([0.05] * 40, 1.0, 0),  # faster than before: no gain is booked
        ([], 1.0, 0),
        ([0.2] * 20, 0.0, 0),
    ],
)
def test_the_slow_down_is_what_steps_took_beyond_the_usual(durations, writing_seconds, lost):
    during = ends(*durations, start=BEGAN)[1:]

    found = slowdown_seconds(BEFORE, [*BEFORE, *during], began=BEGAN, ended=BEGAN + writing_seconds)

    assert found == pytest.approx(lost, abs=0.06)


def test_of_many_short_steps_the_last_64_speak_for_all():
    before, began = ends(*[0.001] * 64), 1.0
    during = ends(*[0.002] * 500, start=began)[-64:]

    assert slowdown_seconds(before, during, began=began, ended=2.0) == pytest.approx(0.5)


@pytest.mark.parametrize("before", [[], [0.1], [0.1, 0.2, 0.3]])
def test_too_few_steps_say_nothing(before):
    assert slowdown_seconds(before, [*before, 5.0, 9.0], began=1.0, ended=9.0) == 0.0


@given(
    before=st.lists(st.floats(0, 1e6), max_size=64).map(sorted),
    during=st.lists(st.floats(0, 1e6), max_size=64).map(sorted),
    began=st.floats(0, 1e6),
    writing=st.floats(-1, 1e4),
)
def test_no_snapshot_costs_more_than_its_writing_took(before, during, began, writing):
    ended = began + writing

    assert 0 <= slowdown_seconds(before, during, began=began, ended=ended) <= max(ended - began, 0)
