"""Which snapshots stay: tables for what is wanted, properties for what is promised."""

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.manifest import BlobRef
from ipyrescue.store.retention import Policy, Retention, kept_because, to_forget, to_verify
from tests.store.conftest import snapshot_of

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=timezone.utc)
LIVE, DEAD, OLDER, DONE, GONE = (digit * 16 for digit in "12345")


def snapshot(sequence, incarnation=LIVE, *, minutes_ago=None, cut="cell_end", label=None, blobs=()):
    minutes_ago = 25 - sequence % 25 if minutes_ago is None else minutes_ago
    created = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    return snapshot_of(
        (), sequence=sequence, incarnation=incarnation, created=created, cut=cut, label=label, blobs=tuple(blobs)
    )


def forgotten(snapshots, retention, *, unrestored=(), pinned=(), verified=None, decide=to_forget, **more):
    """The sequence numbers of those that go; all are verified unless said otherwise."""
    ids = {s.id for s in snapshots if verified is None or s.sequence in verified}
    pins = {s.id for s in snapshots if s.sequence in pinned}
    more |= {"current": LIVE, "unrestored": frozenset(unrestored), "pinned": pins, "verified": ids, "now": NOW}
    return [s.sequence for s in decide(snapshots, retention, **more)]


KEEP_3 = Retention(keep=3)


@pytest.mark.parametrize(
    ("snapshots", "unrestored", "expected"),
    [
        pytest.param([snapshot(n) for n in range(1, 8)], [], [1, 2, 3, 4], id="the last keep of the living kernel"),
        pytest.param(
            [snapshot(n, DEAD) for n in range(1, 6)] + [snapshot(n) for n in range(6, 11)],
            [DEAD],
            [1, 2, 6, 7],
            id="Run All after a crash does not rotate the old life away",
        ),
        pytest.param(
            [snapshot(n, OLDER) for n in (1, 2)]
            + [snapshot(n, DEAD) for n in range(3, 8)]
            + [snapshot(n) for n in range(8, 11)],
            [DEAD, OLDER],
            [1, 3, 4],
            id="of an older dead one its newest stays",
        ),
        pytest.param(
            [snapshot(n, DONE) for n in range(1, 5)] + [snapshot(n) for n in range(5, 8)],
            [],
            [1, 2, 3],
            id="of finished ones one an hour stays",
        ),
        pytest.param(
            [snapshot(n, DONE, minutes_ago=60 * 24 * 3 + 10 - n) for n in (1, 2)] + [snapshot(n) for n in (3, 4, 5)],
            [],
            [1],
            id="and one a day",
        ),
        pytest.param(
            [snapshot(n, DONE, minutes_ago=60 * 24 * 8) for n in (1, 2)] + [snapshot(n) for n in (3, 4, 5)],
            [],
            [1, 2],
            id="for a week",
        ),
        pytest.param(
            [snapshot(n, DONE, minutes_ago=60 * 24 * 90) for n in (1, 2, 3)],
            [],
            [1],
            id="the newest two verified ones stay, however old",
        ),
        pytest.param(
            [snapshot(1, cut="interrupted"), snapshot(2, cut="interrupted"), snapshot(3), snapshot(4)],
            [],
            [1],
            id="interrupted ones hold one slot",
        ),
        pytest.param(
            [snapshot(1, cut="interrupted"), *(snapshot(n) for n in (2, 3, 4))],
            [],
            [1],
            id="until keep newer consistent ones exist",
        ),
        pytest.param(
            [snapshot(1, DONE, cut="interrupted"), snapshot(2), snapshot(3), snapshot(4)],
            [],
            [1],
            id="a finished kernel's interrupted one yields to the notebook's",
        ),
        pytest.param(
            [snapshot(1, DEAD, cut="interrupted"), *(snapshot(n) for n in range(2, 6))],
            [DEAD],
            [2],
            id="an interrupted one that is all a dead kernel left stays",
        ),
        pytest.param(
            [snapshot(1, label="before-lr"), *(snapshot(n) for n in range(2, 6))],
            [],
            [2],
            id="labels stay",
        ),
        pytest.param(
            [snapshot(n, minutes_ago=60 * (7 - n)) for n in range(1, 7)],
            [],
            [],
            id="a long life keeps one an hour beside its last",
        ),
        pytest.param([], [], [], id="nothing"),
    ],
)
def test_what_goes(snapshots, unrestored, expected):
    assert forgotten(snapshots, KEEP_3, unrestored=unrestored) == expected


@pytest.mark.parametrize(
    ("pinned", "expected"),
    [((), [1, 2, 3, 4]), ((2,), [1, 3, 4]), ((2, 6, 7), [1, 3, 4]), (range(1, 8), [])],
)
def test_what_is_pinned_stays_beside_what_stays_anyway(pinned, expected):
    """The last three are the last three, pinned or not."""
    assert forgotten([snapshot(n) for n in range(1, 8)], KEEP_3, pinned=pinned) == expected


def test_a_pinned_one_that_was_interrupted_stays():
    made = [snapshot(1, cut="interrupted"), snapshot(2, cut="interrupted"), snapshot(3), snapshot(4)]

    assert forgotten(made, KEEP_3, pinned=[1]) == []


@pytest.mark.parametrize(
    ("verified", "expected"),
    [((), []), ((7,), []), ((6, 7), [1, 2, 3, 4]), ((2, 3), [1]), ((1, 2, 3, 4), [1, 2]), ((5, 7), [1, 2, 3, 4])],
)
def test_nothing_goes_before_two_newer_ones_were_verified(verified, expected):
    assert forgotten([snapshot(n) for n in range(1, 8)], KEEP_3, verified=verified) == expected


@pytest.mark.parametrize(
    ("verified", "damaged", "expected"),
    [
        ((), (), [7, 6]),
        ((7,), (), [6]),
        ((6, 7), (), []),
        ((4, 5), (), [7, 6]),
        ((5, 6), (), []),
        ((7,), (6,), [5]),
        ((2, 3), (), [7, 6]),
    ],
)
def test_the_newest_two_are_to_be_verified_when_something_should_go(verified, damaged, expected):
    snapshots = [snapshot(n) for n in range(1, 8)]
    damaged = frozenset(s.id for s in snapshots if s.sequence in damaged)

    assert forgotten(snapshots, KEEP_3, verified=verified, decide=to_verify, damaged=damaged) == expected


def test_nothing_is_to_be_verified_when_nothing_should_go():
    assert forgotten([snapshot(n) for n in (1, 2, 3)], KEEP_3, verified=(), decide=to_verify) == []


def blob(digit, size_bytes):
    return BlobRef(str(digit) * 64, "a" * 16, 0, size_bytes)


@pytest.mark.parametrize(
    ("max_size_bytes", "expected"),
    [(1000, []), (320, []), (310, [1]), (150, [1, 2]), (0, [1, 2])],
)
def test_size_takes_the_oldest_and_counts_shared_blobs_once(max_size_bytes, expected):
    """The two newest stay whatever the limit says."""
    snapshots = [snapshot(n, blobs=[blob(9, 20), blob(n, 75)]) for n in range(1, 5)]

    assert forgotten(snapshots, Retention(max_size_bytes=max_size_bytes)) == expected


def test_size_takes_others_instead_of_what_is_pinned():
    """A pin's bytes count."""
    snapshots = [snapshot(n, blobs=[blob(n, 75)]) for n in range(1, 6)]

    assert forgotten(snapshots, Retention(max_size_bytes=225), pinned=[1]) == [2, 3]


@st.composite
def situations(draw):
    count = draw(st.integers(0, 14))
    made = [
        snapshot(
            sequence,
            draw(st.sampled_from([LIVE, DEAD, OLDER, DONE, GONE])),
            minutes_ago=draw(st.integers(-100, 20_000)),
            cut=draw(st.sampled_from(["cell_end", "interrupted"])),
            label=draw(st.sampled_from([None, None, None, "mine"])),
            blobs=[blob(draw(st.integers(0, 5)), 100)],
        )
        for sequence in range(1, count + 1)
    ]
    retention = Retention(
        keep=draw(st.integers(0, 4)),
        hourly=draw(st.integers(0, 3)),
        daily=draw(st.integers(0, 3)),
        max_size_bytes=draw(st.sampled_from([None, 0, 200, 400])),
    )
    return {
        "snapshots": draw(st.permutations(made)),
        "retention": retention,
        "current": LIVE,
        "unrestored": frozenset(draw(st.sets(st.sampled_from([DEAD, OLDER])))),
        "pinned": frozenset(s.id for s in made if draw(st.integers(0, 3)) == 0),
        "verified": frozenset(s.id for s in made if draw(st.booleans())),
        "now": NOW,
    }


def decide(situation, what=to_forget, **changed):
    arguments = {**situation, **changed}
    return what(arguments.pop("snapshots"), arguments.pop("retention"), **arguments)


@given(situations())
def test_promises_hold_whatever_is_wanted(situation):
    """Two verified newer ones, the newest good one of the living and the unrestored, labels and pins."""
    gone = decide(situation)
    kept = [s for s in situation["snapshots"] if s not in gone]

    for lost in gone:
        newer = [s for s in kept if s.sequence > lost.sequence and s.consistent and s.id in situation["verified"]]
        assert len(newer) >= 2
        assert lost.label is None
        assert lost.id not in situation["pinned"]
    for incarnation in {LIVE, *situation["unrestored"]}:
        good = [s for s in situation["snapshots"] if s.incarnation == incarnation and s.consistent]
        assert not good or max(good, key=lambda s: s.sequence) in kept


@given(situations())
def test_forgetting_is_finished_at_once(situation):
    """What stayed once stays as long as nothing else changes."""
    kept = [s for s in situation["snapshots"] if s not in decide(situation)]

    assert decide(situation, snapshots=kept) == ()


@given(situations())
def test_a_pin_costs_no_other_its_place(situation):
    """Size aside, what goes with pins goes without them too."""
    retention = dataclasses.replace(situation["retention"], max_size_bytes=None)

    without_pins = decide(situation, retention=retention, pinned=frozenset())

    assert decide(situation, retention=retention) == tuple(s for s in without_pins if s.id not in situation["pinned"])


@given(situations())
def test_verifying_what_is_asked_for_lets_all_go(situation):
    asked = decide(situation, to_verify)

    verified = situation["verified"] | {s.id for s in asked}
    everything = frozenset(s.id for s in situation["snapshots"])
    assert len(asked) <= 2
    assert decide(situation, verified=verified) == decide(situation, verified=everything)


@pytest.mark.parametrize("created", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "soon"])
def test_a_moment_that_no_calendar_has_is_no_hour_and_no_day(created):
    """Another's clock, or another's manifest that was trusted, may say anything."""
    strange, usual = dataclasses.replace(snapshot(3), created=created), snapshot(2)
    nothing = frozenset()

    reasons = kept_because([strange, usual], Policy(0, 5, 5), unrestored=nothing, pinned=nothing, verified=nothing)

    assert [{"hourly", "daily"} & set(reasons[s.id]) for s in (strange, usual)] == [set(), {"hourly", "daily"}]


def test_an_hour_is_one_of_utc_whatever_the_zone():
    first = dataclasses.replace(snapshot(1), created="2026-11-21T09:10:00+00:00")
    same = dataclasses.replace(snapshot(2), created="2026-11-21T15:10:00+05:30")

    assert forgotten([first, same, snapshot(3)], Retention(keep=1, hourly=5, daily=0)) == [1]
