"""`loop`: the same cell, run again, does what was left to do, and nothing twice."""

import pickle
from io import StringIO

import pytest
from programs_of_training import Died, Snapshots, run, run_again, run_until
from tqdm import tqdm

import ipyrescue
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
    "zip and enumerate": """
        for i, (n, m) in enumerate(zip(ipyrescue.loop(range(6)), ipyrescue.loop("abcdef"))):
            done.append((n, m))
            checkpoint()
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
