"""The functions of cells that run on a stack, and their locals."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest

from ipyrescue.stack import in_trace_function, innermost, let_go, raised_in, running

CELL, OTHER_CELL, LIBRARY = "<cell 3>", "<cell 4>", "<library>"
CELLS = {CELL: 3, OTHER_CELL: 4}


def is_cell(code):
    return code.co_filename in CELLS


class Session:
    """Code of cells, in which `look()` notes who runs, and of a library, over one namespace each."""

    def __init__(self):
        self.names: dict[str, Any] = {"look": self.look}
        self.library: dict[str, Any] = {}
        self.seen: list[tuple] = []

    def look(self):
        self.seen.append(running(sys._getframe(1), is_cell, lambda code: CELLS.get(code.co_filename)))

    def run(self, source, filename=CELL):
        exec(compile(source, filename, "exec"), self.library if filename == LIBRARY else self.names)

    def told(self):
        return [(frame.call, frame.cell, frame.line, frame.locals) for frame in self.seen[-1]]


@pytest.fixture
def session():
    return Session()


def test_locals_stand_under_the_function_that_has_them_outermost_first(session):
    """With the cell that defined each, whichever called it; the cell's own names are variables already."""
    session.run("def step(x):\n    y = x + 1\n    look()\n    z = 0\n")
    session.run("def train():\n    lr = 0.1\n    step(4)\ntrain()", OTHER_CELL)

    assert session.told() == [("train()", 4, 3, {"lr": 0.1}), ("step()", 3, 3, {"x": 4, "y": 5})]
    assert repr(session.seen[-1]) == ("(<train(), line 3 of cell [4]: lr>, <step(), line 3 of cell [3]: x, y>)")


def test_only_functions_of_cells_count(session):
    """Not what a library does between two of them, nor bodies of classes, lambdas and comprehensions."""
    session.run("def call(f):\n    inside = 1\n    return f()", LIBRARY)
    session.names["call"] = session.library["call"]
    session.run("""
def inner():
    class Body:
        size = 3
        found = [(lambda: look())() for _ in range(1)]
def outer():
    call(inner)
outer()
""")

    assert [frame.call for frame in session.seen[-1]] == ["outer()", "inner()"]
    assert all("size" not in frame.locals and ".0" not in frame.locals for frame in session.seen[-1])


def test_frames_of_one_function_are_told_apart(session):
    """The second is numbered; of a deep recursion the ends are kept."""
    session.run("def deeper(n):\n    look() if n == 0 else deeper(n - 1)\ndeeper(1)")
    assert [(f.call, f.pseudo_name("n")) for f in session.seen[-1]] == [
        ("deeper()", "deeper().n"),
        ("deeper()#2", "deeper()#2.n"),
    ]

    session.run("deeper(99)")
    assert [f.locals["n"] for f in session.seen[-1]] == [*range(99, 79, -1), *range(19, -1, -1)]
    assert session.seen[-1][-1].call == "deeper()#100"


def test_methods_closures_generators_and_coroutines(session):
    """A free variable is one of the function's; what is unbound, or the compiler's own, is absent."""
    session.names["asyncio"] = asyncio
    session.run("""
class Trainer:
    def fit(self):
        super().__init__()
        def step():
            nonlocal total
            total += 1
            look()
            later = 1
            return lambda: later
        total = 0
        step()
def numbers():
    first = 1
    look()
    yield first
async def main():
    waits = 2
    list(numbers())
Trainer().fit(); fitted = look
asyncio.run(main())
""")
    fit, step = session.seen[0]
    main, numbers = session.seen[1]

    names = ("Trainer.fit", "Trainer.fit.step") if sys.version_info >= (3, 11) else ("fit", "step")
    assert (fit.function, step.function) == names
    assert sorted(fit.locals) == ["self", "step", "total"]
    assert step.locals == {"total": 1}
    assert (main.locals, numbers.locals) == ({"waits": 2}, {"first": 1})


def test_what_an_exception_came_through(session):
    """The innermost frame of a cell, with what called it; it has ended by then."""
    session.run("def call(f):\n    f(0)", LIBRARY)
    session.names["call"] = session.library["call"]
    session.run("def inner(x):\n    1 / x\ndef outer(y):\n    call(inner)")

    with pytest.raises(ZeroDivisionError) as error:
        session.run("outer(1)")

    frame = raised_in(error.value, is_cell)
    assert [(f.call, f.line, f.locals) for f in running(frame, is_cell, lambda code: 1)] == [
        ("outer()", 4, {"y": 1}),
        ("inner()", 2, {"x": 0}),
    ]
    assert raised_in(None, is_cell) is None
    assert innermost(sys._getframe(), is_cell) is None


def test_nothing_is_kept_alive_and_no_local_is_lost(session):
    """Whoever asks for a frame's locals leaves a copy there before Python 3.13; what the user has of it stays."""

    class Big:
        pass

    def look_and_let_go():
        session.look()
        session.seen.clear()
        let_go(sys._getframe(1), is_cell)

    session.names.update(look=look_and_let_go, Big=Big, ref=weakref.ref, gone=[])
    session.run("""
def train():
    kept, cell, big = [1], 2, Big()
    look()
    big_ref = ref(big)
    del big
    gone.append(big_ref() is None)
    return kept, cell, (lambda: cell)
def configured(lr):
    args = locals()
    look()
    return args["lr"], lr
kept = train()
config = configured(0.1)
""")
    gc.collect()

    assert session.names["gone"] == [True]
    assert session.names["kept"][:2] == ([1], 2)
    assert session.names["config"] == (0.1, 0.1)


def test_a_trace_function_is_known_from_within():
    """Also when it has taken itself back, as one does that wants a single line."""
    inside = []

    def trace(frame, event, arg):
        sys.settrace(None)
        inside.append(in_trace_function())

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        (lambda: None)()
        assert sys.gettrace() is None
        outside = in_trace_function()
    finally:
        sys.settrace(before)

    assert (inside, outside) == ([True], False)


def test_a_tracer_keeps_its_copies(session):
    """A trace function that runs has the copy of its frame written back: emptied, it would take all locals away."""
    session.names["let_go"] = let_go
    found = []

    def trace(frame, event, arg):
        if event == "line" and frame.f_code.co_name == "train":
            frame.f_locals  # noqa: B018
            let_go(frame, is_cell)
        return trace

    session.names["found"] = found
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        session.run(
            "def train():\n    x = 1\n    try:\n        return x\n    finally:\n        found.append(x)\ntrain()"
        )
    finally:
        sys.settrace(before)

    assert found == [1]
