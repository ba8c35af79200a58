"""`loop`: the same cell, run again, does what was left to do, and nothing twice."""

import itertools
import os
import pickle
import subprocess
import sys
import weakref
from io import StringIO

import pytest
from programs_of_training import Died, Snapshots, run, run_again, run_until
from tqdm import tqdm

import ipyrescue
from ipyrescue.errors import RescueError
from ipyrescue.training import progress

SETUP = {"ipyrescue": ipyrescue, "tqdm": tqdm}


class Items(list):
    """A sequence that knows which of its elements were evaluated."""

    def __init__(self, *items):
        super().__init__(items)
        self.evaluated = []

    def __getitem__(self, index):
        self.evaluated.append(index)
        return super().__getitem__(index)

    def __iter__(self):
        for index in range(len(self)):
            self.evaluated.append(index)
            yield super().__getitem__(index)


def squares():
    for number in range(6):
        yield number * number


PROGRAMS = {
    "plain": """
        for n in ipyrescue.loop(range(6)):
            done.append(n)
            checkpoint()
        """,
    "within the last if": """
        for n in ipyrescue.loop(range(6), name="train"):
            done.append(n)
            if n >= 0:
                checkpoint()
            else:
                pass
        """,
    "before a continue": """
        for n in ipyrescue.loop([1, 2, 3]):
            done.append(n)
            checkpoint()
            continue
        """,
    "nested": """
        for epoch in ipyrescue.loop(range(3)):
            for n in ipyrescue.loop(range(2)):
                done.append((epoch, n))
                checkpoint()
        """,
    "a header of three lines": """
        for (
            n
        ) in ipyrescue.loop(
            range(6)
        ):
            done.append(n)
            checkpoint()
        """,
    "in a function": """
        def train(epochs):
            for epoch in ipyrescue.loop(range(epochs)):
                for n in ipyrescue.loop(range(2)):
                    done.append((epoch, n))
                    checkpoint()
        train(3)
        """,
    "tqdm around it": """
        for n in tqdm(ipyrescue.loop(range(4)), disable=True):
            done.append(n)
            checkpoint()
        for n in tqdm(ipyrescue.loop(range(6)), file=screen):
            done.append(n)
            checkpoint()
        """,
    "it around tqdm": """
        for n in ipyrescue.loop(tqdm(range(6), file=screen)):
            done.append(n)
            checkpoint()
        """,
    "zip": """
        for n, m in zip(ipyrescue.loop(range(6)), tqdm(ipyrescue.loop("abcdef"), disable=True)):
            done.append((n, m))
            checkpoint()
        """,
    "enumerate": """
        for i, n in ipyrescue.loop("abcdef").enumerate():
            done.append((i, n))
            checkpoint()
        """,
    "enumerate from one, in a bar": """
        def train():
            for i, n in tqdm(ipyrescue.loop("abcdef", name="x").enumerate(start=1), disable=True):
                done.append((i, n))
                checkpoint()
        train()
        """,
    "a generator": """
        for n in ipyrescue.loop(squares()):
            done.append(n)
            checkpoint()
        """,
    "a generator of the cell between": """
        def doubled(items):
            for item in items:
                yield 2 * item
        for n in doubled(ipyrescue.loop(range(6))):
            done.append(n)
            checkpoint()
        """,
    "next() in a while": """
        items = iter(ipyrescue.loop(range(6)))
        def following():
            return next(items)
        while len(done) < 6:
            done.append(following())
            checkpoint()
        """,
    "break": """
        for epoch in ipyrescue.loop(range(3)):
            for n in ipyrescue.loop(range(9)):
                if n == 2:
                    break
                done.append((epoch, n))
                checkpoint()
        """,
    "two loops in one iteration": """
        for epoch in ipyrescue.loop(range(2)):
            for n in ipyrescue.loop(range(3)):
                done.append((epoch, n))
                checkpoint()
            for m in ipyrescue.loop("ab"):
                done.append((epoch, m))
                checkpoint()
        """,
    "a loop of other people's in between": """
        for epoch in ipyrescue.loop(range(2)):
            for n in ipyrescue.loop(range(3)):
                done.append((epoch, n))
                checkpoint()
            for m in "ab"[len(done) - 3 - 5 * epoch:]:
                done.append((epoch, m))
                checkpoint()
        """,
    "one after the other": """
        for n in ipyrescue.loop(range(3)):
            done.append(n)
            checkpoint()
        done.append("between") if "between" not in done else None
        for n in ipyrescue.loop(range(3)):
            done.append(n)
            checkpoint()
        """,
    "a while that counts by a variable": """
        def epoch():
            for n in ipyrescue.loop(range(3), name="epoch"):
                done.append(n)
                checkpoint()
        while done.count("end") < 3:
            epoch()
            done.append("end")
        """,
    "one function, twice": """
        def train(name):
            for n in ipyrescue.loop(range(3), name=name):
                done.append((name, n))
                checkpoint()
        for name in ipyrescue.loop(["a", "b"]):
            train(name)
        """,
}


@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS)
def test_the_same_cell_run_again_does_what_was_left(source):
    """Killed at each of its snapshots in turn, and killed again at the next."""
    setup = {**SETUP, "squares": squares}
    whole = run(source, {**setup, "done": [], "checkpoint": lambda: None, "screen": StringIO()})["done"]

    for die_at in range(1, len(whole) + 1):
        snapshot = run_until(source, ("done",), die_at, {**setup, "done": [], "screen": StringIO()})
        again = run_again(source, snapshot, {**setup, "screen": StringIO()})

        assert again["done"] == whole, die_at


COUNTERS = {
    "enumerate": "enumerate(ipyrescue.loop(range(6), name='x'))",
    "enumerate of a bar": "enumerate(tqdm(ipyrescue.loop(range(6), name='x'), disable=True))",
    "a bar of enumerate": "tqdm(enumerate(ipyrescue.loop(range(6), name='x')), disable=True)",
    "enumerate of a variable": "enumerate(items)",
    "zip": "zip(ipyrescue.loop(range(6), name='x'), 'abcdef')",
    "map": "map(pow, ipyrescue.loop(range(6), name='x'), range(6))",
    "islice": "itertools.islice(ipyrescue.loop(range(6), name='x'), 4)",
}


@pytest.mark.parametrize("asking", COUNTERS.values(), ids=COUNTERS)
@pytest.mark.parametrize("place", ["cell", "function"])
def test_what_counts_beside_a_loop_that_goes_on_is_refused(asking, place):
    """It would begin at zero. The position stays, and is taken up once the cell is written otherwise."""
    body = f"""
    items = ipyrescue.loop(range(6), name='x')
    for n in {asking}:
        done.append(n)
        checkpoint()
    """
    source = f"def train():{body}\ntrain()" if place == "function" else f"if True:{body}"
    setup = {**SETUP, "itertools": itertools}
    snapshot = run_until(source, ("done",), 2, {**setup, "done": []})

    with pytest.raises(RescueError, match=r"after 2 of 6.* for i, item in ipyrescue.loop\(..., name='x'\).enumerate"):
        run_again(source, snapshot, setup)

    namespace = run("rest = list(ipyrescue.loop(range(6), name='x').enumerate())", {**setup})
    assert namespace["rest"] == [(n, n) for n in range(2, 6)]


@pytest.mark.parametrize(
    "asking",
    [
        "list(ipyrescue.loop(range(6), name='x'))",
        "map(str, ipyrescue.loop(range(6), name='x'))",
        "zip(items, ipyrescue.loop(range(6), name='y'))",
        "[n for n in ipyrescue.loop(range(6), name='x')]",
        "sorted(n for n in ipyrescue.loop(range(6), name='x'))",
    ],
)
def test_what_does_not_count_is_let_alone(asking):
    namespace = {**SETUP, "items": ipyrescue.loop(range(6), name="x")}
    state = {"iterable": "range", "length": 6, "steps": 4, "source": {}}
    progress.resume({"passes": [("loop", "x", state), ("loop", "y", state)]})

    assert len(list(run(f"found = list({asking})", namespace)["found"])) == 2


def test_whoever_is_protected_is_told_of_a_count_before_it_matters(monkeypatch):
    source = "done = list(enumerate(ipyrescue.loop('ab', name='x')))"
    assert run(source, {**SETUP})["done"] == [(0, "a"), (1, "b")]
    monkeypatch.setattr(progress, "is_protected", lambda: True)

    with pytest.warns(UserWarning, match=r"'x' will be refused in this enumerate\(\).*name='x'\).enumerate\(\)"):
        assert run(source, {**SETUP})["done"] == [(0, "a"), (1, "b")]


def test_a_loop_tells_before_it_begins_whether_it_goes_on():
    """So that sums over it are what came back, and not zero."""
    source = """
        for epoch in ipyrescue.loop(range(3)):
            steps = ipyrescue.loop(range(4), name="steps")
            if not steps.goes_on:
                total = 0
            for n in steps:
                total += n
                told.append(steps.goes_on)
                checkpoint()
            sums.append((epoch, total))
            checkpoint()
        """
    for die_at in range(1, 12):
        snapshot = run_until(source, ("told", "sums", "total"), die_at, {**SETUP, "told": [], "sums": []})
        before, again = pickle.loads(snapshot)[1]["told"], run_again(source, snapshot, SETUP)

        assert again["sums"] == [(epoch, 6) for epoch in range(3)], die_at
        left_of_the_pass = -len(before) % 4
        assert again["told"][len(before) :] == [True] * left_of_the_pass + [False] * (
            12 - len(before) - left_of_the_pass
        )


def test_a_run_may_die_many_times():
    source, done, states = PROGRAMS["two loops in one iteration"], [], {}
    for _ in range(9):
        namespace = {**SETUP, "done": done}
        namespace["checkpoint"] = snapshots = Snapshots(namespace, ("done",), die_at=lambda taken: taken == 1)
        progress.resume(states)
        with pytest.raises(Died):
            run(source, namespace)
        states, values = pickle.loads(snapshots.taken[0])
        done = values["done"]
    assert len(done) == 9


def test_a_sequence_goes_on_by_index_and_evaluates_nothing_twice():
    items = Items("a", "b", "c", "d")
    source = """
        for item in ipyrescue.loop(items, name="x"):
            done.append(item)
            checkpoint()
        """
    snapshot = run_until(source, ("done",), 3, {**SETUP, "done": [], "items": items})
    items.evaluated.clear()

    run_again(source, snapshot, {**SETUP, "items": items})

    assert [index for index in items.evaluated if index < 4] == [3]


@pytest.mark.parametrize(
    "around", ["tqdm(ipyrescue.loop(range(50)), **look)", "ipyrescue.loop(tqdm(range(50), **look))"]
)
@pytest.mark.parametrize("ending", ["pass", "if n == 44: break"])
def test_tqdm_begins_where_the_loop_does(around, ending):
    source = f"""
        bars = []
        look = dict(file=screen, mininterval=0, miniters=1, bar_format="{{n_fmt}}/{{total_fmt}} ")
        for n in {around}:
            done.append(n)
            {ending}
            checkpoint()
        """
    snapshot = run_until(source, (), 40, {**SETUP, "done": [], "screen": StringIO()})
    screen = StringIO()

    again = run_again(source, snapshot, {**SETUP, "done": [], "screen": screen})

    shown = [text for text in screen.getvalue().replace("\r", "").split() if not text.startswith("0/")]
    assert again["done"][0] == 40
    assert shown[0] == "40/50"
    assert "42/50" in shown
    assert shown[-1] == ("50/50" if ending == "pass" else "44/50")
    assert shown == sorted(shown)


def test_a_tqdm_that_shows_nothing_is_let_alone():
    source = """
        for n in tqdm(ipyrescue.loop(range(5)), disable=True):
            done.append(n)
            checkpoint()
        """
    snapshot = run_until(source, ("done",), 2, {**SETUP, "done": []})

    assert run_again(source, snapshot, SETUP)["done"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ("x = 1\n    checkpoint()", 1),
        ("checkpoint()\n    x = 1", None),
        ("x = checkpoint()", 1),
        ("if True:\n        checkpoint()", 1),
        ("if False:\n        pass\n    elif True:\n        checkpoint()", 1),
        ("if True:\n        checkpoint()\n        x = 1", None),
        ("if True:\n        checkpoint()\n        continue\n    x = 1", None),
        ("match 1:\n        case 1:\n            checkpoint()", 1),
        ("try:\n        checkpoint()\n    finally:\n        x = 1", None),
        ("with open('/dev/null'):\n        checkpoint()", None),
        ("while True:\n        checkpoint()\n        break", None),
        ("def f():\n        checkpoint()\n    f()", None),
        ("checkpoint(\n    )", 1),
    ],
)
def test_the_last_statement_of_the_body_is_where_the_next_header_is_reached(body, header):
    found = []
    namespace = {"checkpoint": lambda: found.append(progress.header_of_tail(sys._getframe(1)))}

    run(f"for n in [1]:\n    {body}", namespace)

    assert found == [header]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not know columns")
@pytest.mark.parametrize(("body", "header"), [("x = 1; checkpoint()", 1), ("checkpoint(); x = 1", None)])
def test_of_two_statements_on_one_line_the_last_is_the_last(body, header):
    test_the_last_statement_of_the_body_is_where_the_next_header_is_reached(body, header)


def standing(error=None):
    """What is in progress now, by name: how many iterations were completed."""
    states = progress.states(None, None, raised=error)
    return {name: state.get("steps", "skipped") for _, name, state in states.get("passes", ())}


def test_after_a_break_or_the_end_nothing_is_in_progress():
    for _ in ipyrescue.loop(range(3), name="to the end"):
        pass
    for _ in ipyrescue.loop(range(3), name="broken"):
        break

    assert standing() == {}


def left_by(action):
    for epoch in ipyrescue.loop(range(5), name="outer"):
        for _ in ipyrescue.loop(range(3), name="earlier"):
            break
        for step in tqdm(ipyrescue.loop(range(5), name="inner"), disable=True):
            if (epoch, step) == (2, 3):
                action()


def fail():
    raise KeyboardInterrupt


def test_what_an_exception_came_through_is_in_progress_for_the_snapshot_of_that_exception():
    with pytest.raises(KeyboardInterrupt) as caught:
        left_by(fail)

    assert standing() == {}
    assert standing(caught.value) == {"outer": 2, "earlier": "skipped", "inner": 3}
    assert standing(ValueError("another")) == {}


def test_what_was_left_before_the_exception_is_not_in_progress():
    def broken_then_raised():
        for _ in ipyrescue.loop(range(5), name="broken"):
            break
        fail()

    with pytest.raises(KeyboardInterrupt) as caught:
        broken_then_raised()

    assert standing(caught.value) == {}


def test_an_exception_between_two_items_leaves_the_iteration_complete():
    def items():
        yield from "ab"
        fail()

    def iterate():
        for _ in ipyrescue.loop(items(), name="x"):
            pass

    with pytest.raises(KeyboardInterrupt) as caught:
        iterate()

    assert standing(caught.value) == {"x": 2}


def test_an_exception_that_is_caught_is_nothing_special():
    try:
        left_by(fail)
    except KeyboardInterrupt as error:
        caught = error

    assert standing() == {}
    left_by(lambda: None)
    assert standing(caught) == {}


def test_return_is_like_break():
    def first():
        for item in ipyrescue.loop("abc", name="x"):
            return item
        return None

    assert first() == "a"
    assert standing() == {}


def test_running_a_cell_again_without_a_restore_begins_at_the_beginning():
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            left_by(fail)


def test_two_loops_of_one_name_at_once_are_refused():
    for _ in ipyrescue.loop(range(3), name="x"):
        with pytest.raises(RescueError, match=r"Two loops called 'x' cannot be in progress at once.*name='x 2'"):
            list(ipyrescue.loop(range(3), name="x"))


def test_a_name_that_only_a_variable_still_holds_is_free():
    held = iter(ipyrescue.loop(range(3), name="x"))
    for _ in held:
        break

    assert list(ipyrescue.loop(range(2), name="x")) == [0, 1]
    assert next(held) == 1


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (range(9), "after 2 iterations, it was over range of length 5; now it is over range of length 9"),
        (list(range(5)), "now it is over list of length 5"),
        (iter(range(5)), "now it is over range_iterator"),
    ],
)
def test_another_length_or_type_is_refused_and_can_be_put_right(now, refusal):
    def resumed():
        return [("loop", "x", {"iterable": "range", "length": 5, "steps": 2, "source": {}})]

    progress.resume({"passes": resumed()})

    with pytest.raises(RescueError, match=refusal):
        list(ipyrescue.loop(now, name="x"))
    assert list(ipyrescue.loop(range(5), name="x")) == [2, 3, 4]
    assert list(ipyrescue.loop(range(5), name="x")) == [0, 1, 2, 3, 4]


def test_an_iterator_that_became_shorter_is_refused():
    progress.resume({"passes": [("loop", "x", {"iterable": "generator", "length": None, "steps": 4, "source": {}})]})

    with pytest.raises(RescueError, match="ended after 2 items; when it was saved, 4 had been done"):
        list(ipyrescue.loop((n for n in range(2)), name="x"))


def test_a_cell_that_was_edited_is_told_how_to_go_on():
    source = PROGRAMS["plain"]
    snapshot = run_until(source, ("done",), 3, {**SETUP, "done": []})

    with pytest.warns(UserWarning, match=r"starts at its beginning.*after 3 of 6.*name='cell, line 2, "):
        assert run_again(source + "\n\n", snapshot, SETUP)["done"] == [0, 1, 2, 0, 1, 2, 3, 4, 5]


def test_what_was_not_taken_up_yet_stays_in_the_next_snapshots():
    source = PROGRAMS["nested"]
    snapshot = run_until(source, ("done",), 3, {**SETUP, "done": []})
    states, values = pickle.loads(snapshot)
    progress.resume(states)

    assert progress.states(None, None) == states
    assert progress.sentences(states) == [
        f"loop {states['passes'][0][1]!r} goes on after 1 of 3",
        f"loop {states['passes'][1][1]!r} goes on after 1 of 2",
    ]
    again = run_again(source, pickle.dumps((progress.states(None, None), values)), SETUP)
    assert again["done"] == [(epoch, n) for epoch in range(3) for n in range(2)]


def test_a_restore_from_within_a_running_loop_changes_nothing_for_it():
    done = []
    for n in ipyrescue.loop(range(4), name="x"):
        progress.resume({"passes": [("loop", "x", {"iterable": "range", "length": 4, "steps": 1, "source": {}})]})
        done.append(n)

    assert done == [0, 1, 2, 3]
    assert list(ipyrescue.loop(range(4), name="x")) == [0, 1, 2, 3]


def test_a_forked_child_leaves_it_alone():
    for _ in ipyrescue.loop(range(3), name="x"):
        child = os.fork()
        if child == 0:
            seen = list(ipyrescue.loop(range(3), name="x"))
            os._exit(0 if standing() == {} and seen == [0, 1, 2] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert standing() == {"x": 0}
        break


def test_it_has_a_length_if_what_it_is_over_has_one():
    assert len(ipyrescue.loop(range(7))) == 7
    assert not hasattr(ipyrescue.loop(iter(range(7))), "__len__")


def test_nothing_is_kept_of_a_loop_that_is_over():
    class Item:
        pass

    item = Item()
    reference = weakref.ref(item)
    for _ in ipyrescue.loop([item]):
        pass
    del item, _
    assert reference() is None


def test_it_works_in_a_script_without_anything_else():
    code = "import sys, ipyrescue; print(list(ipyrescue.loop(range(3)))); print('torch' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.split("\n")[:2] == ["[0, 1, 2]", "False"]


def test_what_loops_stand_at_is_told_in_few_words():
    """Outermost first, complete iterations only, and bounded; a pass that is over is not told of."""
    told = []
    for _epoch in ipyrescue.loop(range(3), name="train\n"):
        told += [progress.standing() for _ in ipyrescue.loop(iter("ab"), name="x" * 200)]
        told.append(progress.standing())
    assert told[1] == ("train\\n 0/3", "x" * 77 + "...")
    assert told[-1] == ("train\\n 2/3",)
    passes = [iter(ipyrescue.loop("abc", name=f"{number}")) for number in range(10)]
    assert progress.standing() == tuple(f"{number} 0/3" for number in range(8))
    del passes
    assert progress.standing() == ()
