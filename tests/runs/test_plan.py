"""Where a run goes on, as a table: what is done, what the cells are now, which snapshots there are."""

from __future__ import annotations

import pytest

from ipyrescue.runs.plan import Code, Left, Plan, Saved, chains, plan
from ipyrescue.runs.record import Done


def cells(*sources: str, continues: int | None = None) -> list[Code]:
    return [Code(n, n - 1, chain, continues=n == continues) for n, chain in enumerate(chains(sources), 1)]


CELLS = cells("a", "b", "c", "d")
EDITED = cells("a", "B", "c", "d")


def done(*numbers: int, of: list[Code] = CELLS) -> tuple[Done, ...]:
    """Cell 2's end is snapshot `end2` with the sequence number 20."""
    return tuple(Done(n, of[n - 1].chain, f"end{n}", 10 * n, "2026-11-21T00:00:00Z") for n in numbers)


def end(number: int, *, progress: bool = False) -> Saved:
    return Saved(f"end{number}", 10 * number, inside=False, progress=progress)


def inside(sequence: int, *, progress: bool = True) -> Saved:
    return Saved(f"in{sequence}", sequence, inside=True, progress=progress)


ENDS = [end(1), end(2), end(3)]


@pytest.mark.parametrize(
    ("left", "snapshots", "expected"),
    [
        pytest.param(Left(), [], Plan(1), id="a new run"),
        pytest.param(Left(done(1, 2), 3), ENDS[:2], Plan(3, "end2"), id="from the end of the last cell"),
        pytest.param(Left(done(1, 2, 3)), ENDS, Plan(4, "end3"), id="between two cells"),
        pytest.param(Left(done(1, 2, 3), 3), ENDS, Plan(4, "end3"), id="the cell was done when its runner died"),
        pytest.param(Left(done(1, 2), 3), [*ENDS[:2], inside(25)], Plan(3, "in25", goes_on=True), id="a loop"),
        pytest.param(
            Left(done(1, 2), 3), [*ENDS[:2], inside(25), inside(27)], Plan(3, "in27", goes_on=True), id="its newest"
        ),
        pytest.param(Left((), 1), [inside(5)], Plan(1, "in5", goes_on=True), id="a loop in the first cell"),
        pytest.param(
            Left(done(1, 2), 3), [*ENDS[:2], inside(25, progress=False)], Plan(3, "end2"), id="a plain loop begins anew"
        ),
        pytest.param(
            Left(done(1, 2), 3),
            [*ENDS[:2], inside(24), inside(25, progress=False)],
            Plan(3, "end2"),
            id="the loop was over, and what follows it would run twice",
        ),
        pytest.param(
            Left(done(1, 2), 3),
            [end(1), end(2, progress=True), inside(25)],
            Plan(3, "end2"),
            id="what an earlier cell's loop stands at says nothing about this cell",
        ),
        pytest.param(
            Left(done(1, 2), 3, stale_through=25),
            [*ENDS[:2], inside(25)],
            Plan(3, "end2"),
            id="cut in the cell as it was",
        ),
        pytest.param(Left(done(1, 2)), [*ENDS[:2], inside(25)], Plan(3, "end2"), id="another cell, edited since"),
        pytest.param(
            Left(done(1, 3), 4),
            [end(1), end(3)],
            Plan(4, "end3"),
            id="a cell whose end was not saved is in the next one's",
        ),
        pytest.param(
            Left(done(1, 2, 3), 4),
            ENDS[:1],
            Plan(2, "end1", sentences=("Cells 2 to 3 run again, although done: later snapshots are gone.",)),
            id="snapshots are gone",
        ),
        pytest.param(
            Left(done(1), 2),
            [],
            Plan(1, sentences=("Cell 1 runs again, although done: later snapshots are gone.",)),
            id="nothing is left",
        ),
    ],
)
def test_where_a_run_goes_on(left: Left, snapshots: list[Saved], expected: Plan) -> None:
    assert plan(CELLS, left, snapshots) == expected


def test_an_edited_cell_and_all_that_follow_run_again() -> None:
    left = Left(done(1, 2, 3), 4)

    chosen = plan(EDITED, left, [*ENDS, inside(35)])

    assert (chosen.first, chosen.snapshot, chosen.goes_on) == (2, "end1", False)
    assert chosen.sentences == ("Cell 2 was edited, moved or added since it ran: it and all that follow run again.",)


def test_a_cell_that_was_added_or_removed_moves_the_others() -> None:
    assert plan(cells("a", "new", "b", "c"), Left(done(1, 2, 3), 4), ENDS).first == 2
    shorter = plan(cells("a", "b"), Left(done(1, 2, 3), 4), ENDS)
    assert (shorter.first, shorter.snapshot) == (3, "end2")
    assert shorter.sentences == ("Cell 3, which had run, is not there any more.",)


def test_a_tag_lets_a_plain_cell_go_on() -> None:
    tagged = cells("a", "b", "c", "d", continues=3)

    chosen = plan(tagged, Left(done(1, 2), 3), [*ENDS[:2], inside(25, progress=False)])

    assert (chosen.snapshot, chosen.goes_on) == ("in25", True)


def test_what_cannot_be_restored_is_followed_by_the_next_older_one() -> None:
    left, snapshots = Left(done(1, 2), 3), [*ENDS[:2], inside(25), inside(27)]

    assert plan(CELLS, left, snapshots, {"in27"}).snapshot == "in25"
    assert plan(CELLS, left, snapshots, {"in27", "in25"}) == Plan(3, "end2")
    third = plan(CELLS, left, snapshots, {"in27", "in25", "end2"})
    assert (third.first, third.snapshot) == (2, "end1")
    assert third.sentences == ("Cell 2 runs again, although done: later snapshots cannot be restored.",)


def test_a_chain_is_equal_only_where_all_before_it_is() -> None:
    assert chains(["a", "b"])[:1] == chains(["a"])
    assert chains(["ab", ""]) != chains(["a", "b"])
    assert chains(["x", "b"])[1] != chains(["y", "b"])[1]
    assert chains(["\ud800"])
