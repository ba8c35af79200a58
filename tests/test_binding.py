"""Restoring beside what is there, and taking a restore back."""

from __future__ import annotations

import random

import pytest
from namespaces import Life, reborn

from ipyrescue.binding import Journal
from ipyrescue.errors import RestoreError

SESSION = """
import math
calls, rate = [], 2
def area(r):
    calls.append(r)
    return math.pi * r * r * factor()
def factor():
    return rate
def countdown(n):
    return n if n == 0 else countdown(n - 1)
class Shape:
    def area(self):
        return area(1)
class Round(Shape):
    def area(self):
        return super().area()
shape = Round()
alias = calls
"""


def as_old(life: Life, *names: str, **scope: object) -> Life:
    """A new life that has names of its own and restores the old ones behind `old_`."""
    after = reborn(life)
    after.run("rate, shape = 10, 'mine'\ndef factor():\n    return -1\n")
    after.restore(*names, prefix="old_", **scope)
    return after


def test_globs_mean_names_of_the_snapshot(life: Life) -> None:
    life.run("loss_a, loss_b, other = 1, 2, 3")
    life.checkpoint()
    after = reborn(life)

    assert after.restore("loss_*").names == ("loss_a", "loss_b")
    assert "other" not in after.names
    with pytest.raises(RestoreError, match=r"no variable nothing\*"):
        after.restore("nothing*")


def test_a_glob_takes_no_optimizer_without_its_model(life: Life) -> None:
    life.run("import torch\nmodel = torch.nn.Linear(2, 2)\nopt = torch.optim.Adam(model.parameters())")
    life.checkpoint()

    with pytest.raises(RestoreError, match="%restore_vars model opt"):
        reborn(life).restore("mod*")


def test_a_name_that_was_left_out_says_why(life: Life) -> None:
    life.run("gen = (i for i in range(3))\nx = 1")
    life.checkpoint()

    with pytest.raises(RestoreError, match=r"no variable gen. It was left out: gen \(generator"):
        reborn(life).restore("gen")


def test_a_prefix_leaves_every_live_name_as_it_was(life: Life) -> None:
    life.run(SESSION)
    life.checkpoint()
    after = as_old(life)

    assert (after.names["rate"], after.names["shape"]) == (10, "mine")
    assert after.names["factor"]() == -1
    assert after.names["old_rate"] == 2
    assert {n for n in after.names if n.startswith("old_")} == {
        "old_math", "old_calls", "old_rate", "old_area", "old_factor", "old_countdown", "old_Shape", "old_Round",
        "old_shape", "old_alias",
    }  # fmt: skip


def test_behind_a_prefix_functions_and_classes_work_together(life: Life) -> None:
    """They find what came back with them, and identity among it is kept."""
    import math

    life.run(SESSION)
    life.checkpoint()
    names = as_old(life).names

    assert names["old_shape"].area() == pytest.approx(2 * math.pi)
    assert names["old_countdown"](3) == 0
    assert isinstance(names["old_shape"], names["old_Round"])
    assert issubclass(names["old_Round"], names["old_Shape"])
    assert names["old_calls"] is names["old_alias"]
    assert names["old_calls"] == [1]


def test_a_function_alone_behind_a_prefix_finds_live_globals(life: Life) -> None:
    """What was not restored with it is looked up among the live names, also later."""
    life.run("def double():\n    return 2 * number\nnumber = 1\n")
    life.checkpoint()
    after = reborn(life)
    after.restore("double", prefix="old_")

    after.run("number = 21")
    assert after.names["old_double"]() == 42
    after.run("del number")
    with pytest.raises(NameError, match="number"):
        after.names["old_double"]()


def test_what_came_back_behind_a_prefix_is_saved_again(life: Life) -> None:
    life.run(SESSION)
    life.checkpoint()
    after = as_old(life)
    assert not after.checkpoint().skipped
    third = reborn(after)
    third.restore()

    assert third.names["old_shape"].area() == pytest.approx(6.283, abs=0.001)
    assert third.names["old_calls"] is third.names["old_alias"]


def test_beside_the_random_streams_stay_and_the_death_is_not_answered(life: Life) -> None:
    life.run("x = 1")
    life.checkpoint()
    after = reborn(life)
    before = random.getstate()
    random.random()
    moved = random.getstate()

    restored = after.restore(prefix="old_")

    assert moved != before
    assert random.getstate() == moved
    assert not restored.full


def test_a_mapping_of_the_user_takes_the_names(life: Life) -> None:
    life.run(SESSION)
    life.checkpoint()
    after = reborn(life)
    after.run("rate = 10")
    found: dict[str, object] = {"alias": "there"}

    restored = after.restore(into=found)

    assert set(restored.names) == found.keys()
    assert found["shape"].area() == pytest.approx(6.283, abs=0.001)
    assert found["calls"] is found["alias"]
    assert {n for n in after.names if not n.startswith("__")} == {"rate"}
    assert after.names["rate"] == 10


def test_keep_existing_asks_the_place_where_names_would_go(life: Life) -> None:
    life.run("a, b = 1, 2")
    life.checkpoint()
    after = reborn(life)
    after.run("a, old_b = 'mine', 'mine'")

    restored = after.restore(prefix="old_", keep_existing=True)

    assert restored.names == ("old_a",)
    assert restored.kept == ("b",)
    assert after.names["old_b"] == "mine"


def test_of_the_names_that_were_asked_for_those_that_are_there_are_kept(life: Life) -> None:
    life.run("a, b = 1, 2\nimport json")
    life.checkpoint()
    after = reborn(life)
    after.run("a = 'mine'")

    assert after.restore("a", keep_existing=True).kept == ("a",)
    assert after.restore("j*", keep_existing=True).kept == ()
    assert after.restore(keep_existing=True).kept == ("a", "json")


def test_a_function_that_would_be_saved_with_copies_is_named(life: Life) -> None:
    """Restored beside the live names it sees them; a snapshot knows one namespace only."""
    life.run("import math\nx, y = 1, 2\ndef f(): return x + math.pi\ndef h(): return 1")
    life.run("class C:\n    def g(self): return y")
    first = life.checkpoint()
    after = reborn(life)
    after.run("x, y = 10, 20")
    after.restore("f", "C", "h", prefix="old_")

    told = after.checkpoint().warnings

    assert [(text.split()[0], text.partition("sees your ")[2].split(".")[0]) for text in told] == [
        ("old_C", "y"),
        ("old_f", "x"),
    ]
    after.run("del old_f, old_C")
    after.restore("f", "C", "x", "y", source=first.id, prefix="old_")
    assert after.checkpoint().warnings == ()


def test_what_a_journal_replaced_comes_back_as_the_very_objects() -> None:
    mine = [1]
    names = {"a": mine, "c": 3}
    journal = Journal(names)
    for name, value in [("a", "new"), ("a", "newer"), ("b", "new"), ("c", names["c"])]:
        journal.bind(name, value)

    assert (journal.before.names, journal.before.new, journal.before.replaced) == (("a", "b", "c"), ("b",), ("a",))
    journal.before.come_back()

    assert names == {"a": [1], "c": 3}
    assert names["a"] is mine


def test_a_journal_takes_other_changes_back_last_first() -> None:
    told: list[int] = []
    journal = Journal({})
    journal.before.note_change("one", lambda: told.append(1))
    journal.before.note_change("two", lambda: told.append(2))
    with pytest.raises(RestoreError, match="as it was: no"), journal:
        raise ValueError("no")

    assert told == [2, 1]


def test_a_journal_asks_no_object_whether_it_is_equal() -> None:
    import torch

    journal = Journal({"a": torch.ones(2)})
    journal.bind("a", torch.ones(2))

    assert journal.before.replaced == ("a",)


def test_a_restore_is_taken_back_with_its_random_streams(life: Life) -> None:
    life.run("a, b = [1], 2")
    life.checkpoint()
    after = reborn(life)
    mine = after.run("a = ['mine']")["a"]
    random.seed(7)
    streams = random.getstate()

    restored = after.restore()
    assert random.getstate() != streams
    assert (restored.replaced, restored.before.new, restored.before.changes) == (
        ("a",),
        ("b",),
        ("the random streams",),
    )
    restored.before.come_back()

    assert after.names["a"] is mine
    assert "b" not in after.names
    assert random.getstate() == streams


def test_a_failure_after_the_streams_were_rewound_leaves_no_trace(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run("a = 1")
    life.checkpoint()
    after = reborn(life)
    random.seed(7)
    streams = random.getstate()
    monkeypatch.setattr("ipyrescue.restoring.remember_sources", lambda *_: 1 / 0)
    with pytest.raises(RestoreError, match="as it was"):
        after.restore()

    assert random.getstate() == streams
    assert "a" not in after.names
