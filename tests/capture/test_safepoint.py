"""Safe points: at each cut of a training, what belongs to one iteration is complete."""

from __future__ import annotations

import ast
import asyncio
import collections
import contextlib
import itertools
import linecache
import os
import select
import signal
import sys
import threading
import time
import traceback
from types import SimpleNamespace

import pytest

from ipyrescue.capture import safepoint, stacks
from ipyrescue.capture.safepoint import SafePoints

STEPS = 6
NUMBERS = itertools.count()

LIBRARY = """
def fit(optimizer, after=None, n=6):
    for _ in range(n):
        optimizer.step()
        if after is not None:
            after()

def call(function, *args):
    return function(*args)

def progress(iterable):
    for one in iterable:
        yield one
"""


class Notebook:
    """Runs cells as a kernel would: source in linecache, one namespace, `reached` noting what it finds."""

    def __init__(self):
        self.now = 0.0
        self.files = set()
        self.hits = []
        self.asking = True
        self.react = lambda place: None
        self.points = SafePoints(lambda code: code.co_filename in self.files, self.reached, clock=lambda: self.now)
        self.names = {
            "opt": Optimizer(self),
            "losses": [],
            "model": 0,
            "sched": 0,
            "step": 0,
            "i": 0,
            "n": STEPS,
            "points": self.points,
            "ctx": contextlib.nullcontext,
            "asyncio": __import__("asyncio"),
            "note": self,
        }
        library = {"__name__": "library"}
        exec(compile(LIBRARY, "library.py", "exec"), library)
        optimizers = {"__name__": "torch.optim.lbfgs"}
        exec(compile("def step(closure): return closure()", "lbfgs.py", "exec"), optimizers)
        self.names["step_with"] = optimizers["step"]
        self.names["lib"] = SimpleNamespace(**library)

    def reached(self, place):
        names = self.names
        state = (names["model"], names["sched"], names["step"], len(names["losses"]))
        self.hits.append((place.cut, place.frame and place.frame.f_code.co_name, place.header, state))
        self.react(place)

    def run(self, source):
        with self.cell():
            exec(self.compile(source), self.names)

    def compile(self, source, name=None, flags=0):
        name = name or f"<cell {next(NUMBERS)}>"
        self.files.add(name)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        return compile(source, name, "exec", flags)

    @contextlib.contextmanager
    def cell(self):
        self.points.cell_begins()
        try:
            yield
        finally:
            self.points.cell_ends()
            assert self.points._tracing._frames == {}

    @property
    def cuts(self):
        return [hit[0] for hit in self.hits]

    @property
    def torn(self):
        return [hit for hit in self.hits if len(set(hit[3])) > 1]

    def wait(self, seconds):
        self.now += seconds

    def ask(self):
        """Ask as a clock thread does; the signal is handled before this returns."""
        self.points.request()
        self.points._attention.ask()


class Optimizer:
    """Steps as torch's do: in a library, whose hook comes when the step is done. Each step asks for a snapshot."""

    def __init__(self, notebook):
        self.notebook = notebook
        self.steps = 0

    def step(self):
        self.steps += 1
        self.notebook.names["model"] += 1
        self.notebook.now += 0.01
        if self.notebook.asking:
            self.notebook.points.request()
        self.notebook.points.stepped(self)


@pytest.fixture
def notebook():
    before = _handlers()
    notebook = Notebook()
    notebook.points.install()
    yield notebook
    notebook.points.uninstall()
    assert sys.gettrace() is None
    assert _handlers() == before
    assert safepoint.current() is None


def _handlers():
    ours = signal.valid_signals() - {signal.SIGALRM}  # pytest-timeout's
    return {number: signal.getsignal(number) for number in ours}


SHAPES = {
    "for": """
for i in range(n):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "while": """
while step < n:
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "with": """
while step < n:
    with ctx():
        opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "a call over several lines": """
while step < n:
    opt.step()
    losses.append(
        float(step)
    )
    sched += 1
    step += 1
""",
    "a header over several lines": """
for i in (
    range(
        n
    )
):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "a while header over several lines": """
while (
    step
    < n
):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "nested": """
for epoch in range(2):
    for batch in range(n // 2):
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
""",
    "an evaluation loop after the step": """
for i in range(n):
    opt.step()
    for j in range(3):
        j * j
    total = [k for k in range(3)]
    while j < 5:
        j += 1
    sched += 1
    losses.append(1)
    step += 1
""",
    "continue": """
for i in range(n):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if i % 2:
        continue
    i += 1
""",
    "for else": """
for i in range(n):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
else:
    i = 0
""",
    "try": """
for i in range(n):
    try:
        opt.step()
    finally:
        sched += 1
    try:
        losses.append(1)
        raise ValueError
    except ValueError:
        step += 1
""",
    "one line": "for i in range(n): opt.step(); sched += 1; losses.append(1); step += 1\n",
    "one line with a comprehension": """
for i in range(n): opt.step(); x = [j for j in range(3)]; sched += 1; y = {k for k in x}; losses.append(1); step += 1
""",
    "one line over two": """
for i in [j for j in range(
    n)]: opt.step(); sched += 1; losses.append(1); step += 1
""",
    "a function called from a loop": """
def train_step():
    global sched, step
    opt.step()
    sched += 1
    losses.append(1)
    for j in range(3):
        j * j
    step += 1
for i in range(n):
    train_step()
""",
    "a function called from one line": """
def train_step():
    global sched, step
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
for i in range(n): train_step()
""",
    "a function with the loop": """
def train(n):
    global sched, step
    for i in range(n):
        opt.step(); sched += 1; losses.append(1); step += 1
train(n)
""",
    "a decorated method": """
import functools
def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
class Trainer:
    def __init__(self, n):
        self.n = n
    @logged
    def fit(self):
        for i in range(self.n):
            self.training_step()
    def training_step(self):
        global sched, step
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
Trainer(n).fit()
""",
    "a loop inside a class of its own making": """
class Trainer:
    def __init__(self):
        global sched, step
        for i in range(n):
            opt.step()
            sched += 1
            losses.append(1)
            step += 1
Trainer()
""",
    "a generator that trains": """
def training():
    global sched, step
    for i in range(n):
        opt.step()
        sched += 1
        yield i
        step += 1
for i in training():
    losses.append(1)
""",
    "a generator that feeds": """
def batches():
    for i in range(n):
        yield i
for batch in batches():
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "progress around it": """
for i in lib.progress(range(n)):
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
""",
    "a coroutine": """
async def training():
    global sched, step
    for i in range(n):
        opt.step()
        sched += 1
        await asyncio.sleep(0)
        losses.append(1)
        step += 1
asyncio.run(training())
""",
    "a coroutine that awaits another": """
async def one_step():
    global sched, step
    opt.step()
    await asyncio.sleep(0)
    sched += 1
    losses.append(1)
    step += 1
async def training():
    for i in range(n):
        await one_step()
async def main():
    await asyncio.create_task(training())
asyncio.run(main())
""",
    "async for": """
async def batches():
    for i in range(n):
        await asyncio.sleep(0)
        yield i
async def training():
    global sched, step
    async for i in batches():
        opt.step()
        sched += 1
        await asyncio.sleep(0)
        losses.append(1)
        step += 1
asyncio.run(training())
""",
    "async for on one line": """
async def batches():
    for i in range(n):
        await asyncio.sleep(0)
        yield i
async def training():
    global sched, step
    async for i in batches(): opt.step(); sched += 1; await asyncio.sleep(0); losses.append(1); step += 1
asyncio.run(training())
""",
    "a break out of the inner loop": """
for i in range(n):
    for j in range(3):
        opt.step()
        break
    sched += 1
    losses.append(1)
    step += 1
""",
    "an exception out of the inner loop": """
for i in range(n):
    try:
        for j in range(3):
            opt.step()
            raise ValueError
    except ValueError:
        sched += 1
    losses.append(1)
    step += 1
""",
    "a step at the end of an evaluation": """
for i in range(n):
    for j in range(3):
        j * j
    sched += 1; losses.append(1); step += 1
    opt.step()
""",
    "a comprehension calls what trains": """
def train():
    global sched, step
    for i in range(n // 2):
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
[train() for i in range(2)]
""",
    "a lambda steps": """
go = lambda: opt.step()
for i in range(n):
    go()
    sched += 1
    losses.append(1)
    step += 1
""",
    "a function inside the loop": """
for i in range(n):
    def go():
        opt.step()
    go()
    sched += 1
    losses.append(1)
    step += 1
""",
    "the function that trains is an argument": """
def run(train):
    return train()
def train():
    global sched, step
    for i in range(n):
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
run(train)
""",
}

UNSEEN_END = {
    "while True": """
while True:
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if step >= n:
        break
""",
    "while True beginning with a with": """
while True:
    with ctx():
        opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if step >= n:
        break
""",
    "while True beginning with a try": """
while True:
    try:
        opt.step()
    finally:
        sched += 1
    losses.append(1)
    step += 1
    if step >= n:
        break
""",
    "while True ending with continue": """
while True:
    opt.step(
    )
    sched += 1
    losses.append(1)
    step += 1
    if step < n:
        continue
    break
""",
    "one line of while": "while step < n: opt.step(); sched += 1; losses.append(1); step += 1\n",
    "one line of while with a comprehension": """
while step < n: opt.step(); x = [j for j in range(3)]; sched += 1; losses.append(1); step += 1
""",
    "while True beginning with another loop": """
while True:
    while i % 3:
        i += 1
        continue
    i += 1
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if step >= n:
        break
""",
    "while True of one line": """
def end():
    if step >= n: raise StopIteration
try:
    while True: opt.step(); sched += 1; losses.append(1); step += 1; end()
except StopIteration: pass
""",
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_cut_is_the_end_of_the_iteration(notebook, name):
    notebook.run(SHAPES[name])

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * STEPS
    assert [hit[3][0] for hit in notebook.hits] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", UNSEEN_END)
def test_the_last_iteration_may_end_with_the_cell(notebook, name):
    notebook.run(UNSEEN_END[name])

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * (STEPS - 1)


def test_the_header_that_was_reached_is_told(notebook):
    """Whoever knows what stands at that header knows which iteration is complete."""
    notebook.run(SHAPES["nested"])

    assert {hit[1:3] for hit in notebook.hits} == {("<module>", 3)}


# --- several optimizers -----------------------------------------------------------------------------------------------

GAN = """
for i in range(n):
    critic.step()
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
"""
WGAN = """
while step < 8:
    for k in range(5):
        critic.step()
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if step == 2:
        note.asking = True
"""
PHASES = """
for fold in range(2):
    for i in range(20):
        critic.step()
    for i in range(20):
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
"""


class Critic:
    def __init__(self, notebook):
        self.notebook = notebook
        self.steps = 0

    def step(self):
        self.steps += 1
        self.notebook.now += 0.01
        if self.notebook.asking:
            self.notebook.points.request()
        self.notebook.points.stepped(self)


@pytest.fixture
def critic(notebook):
    critic = notebook.names["critic"] = Critic(notebook)
    return critic


TASKS = """
for i in range(n):
    for task in range(20):
        for k in range(task % 3):
            inner = Critic(note) if k == 0 else inner
            inner.step()
    opt.step()
    sched += 1
    losses.append(1)
    step += 1
    if i == 1:
        note.asking = True
"""


def test_optimizers_that_are_made_for_each_task_are_not_waited_for(notebook):
    """As in meta-learning: most have gone when the iteration ends."""
    notebook.asking = False
    notebook.names["Critic"] = Critic
    notebook.run(TASKS)

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * (STEPS - 2)


@pytest.mark.parametrize("made", ["inner = Critic(note)", "inner = None; inner = Critic(note)"])
def test_an_optimizer_may_take_the_place_of_another(notebook, made):
    notebook.names["Critic"] = Critic
    notebook.run(f"for i in range(n):\n    {made}\n    inner.step()\n    k = 1\n")

    assert notebook.cuts == ["boundary"] * STEPS


def test_the_optimizers_of_one_loop_all_step_before_the_cut(notebook, critic):
    seen = []
    notebook.react = lambda place: seen.append(critic.steps)

    notebook.run(GAN)

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * STEPS
    assert seen == [hit[3][0] for hit in notebook.hits]


def test_the_loop_of_the_critic_is_not_that_of_the_generator(notebook, critic):
    seen = []
    notebook.asking = False
    notebook.react = lambda place: seen.append(critic.steps)

    notebook.run(WGAN)

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * 6
    assert seen == [5 * hit[3][0] for hit in notebook.hits]


def test_an_optimizer_that_steps_no_longer_is_waited_for_no_longer(notebook, critic):
    notebook.run(PHASES)

    assert notebook.torn == []
    assert len(notebook.hits) > 40  # of 80; it is waited for during five of its intervals
    assert set(notebook.cuts) == {"boundary"}


# --- where a library runs the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "lib.fit(opt)",
        "for epoch in range(2):\n    lib.fit(opt, n=3)",
        "def fit():\n    lib.fit(opt)\nfit()",
        "[opt.step() for i in range(6)]",
        "exec('for i in range(6):\\n    opt.step()')",
        "def after():\n    for i in range(2):\n        pass\nlib.fit(opt, after)",
    ],
)
def test_in_the_hook_where_a_library_runs_the_loop(notebook, source):
    notebook.run(source)

    assert notebook.cuts[0] == "in_hook"
    assert len(notebook.hits) >= 2


def test_in_the_hook_after_the_last_optimizer_of_a_round(notebook, critic):
    notebook.names["both"] = SimpleNamespace(step=lambda: (critic.step(), notebook.names["opt"].step()))
    seen = []
    notebook.react = lambda place: seen.append(critic.steps)

    notebook.run("lib.fit(both)")

    assert set(notebook.cuts) == {"in_hook"}
    assert seen == [hit[3][0] for hit in notebook.hits]


def test_in_the_hook_where_no_frame_is_the_cells(notebook):
    with notebook.cell():
        notebook.names["lib"].fit(notebook.names["opt"], n=3)

    assert notebook.hits == [("in_hook", None, None, (k, 0, 0, 0)) for k in (1, 2, 3)]


def test_a_loop_that_a_library_calls_is_never_called_a_boundary(notebook):
    """The library may be half done itself; an objective of a search is protected all the same."""
    notebook.run(
        """
def objective():
    global sched, step
    for i in range(n):
        opt.step()
        sched += 1
        losses.append(1)
        step += 1
lib.call(objective)
"""
    )

    assert notebook.torn == []
    assert notebook.cuts == ["in_hook"] * STEPS


def test_a_bridge_says_when_an_iteration_ends(notebook):
    notebook.asking = False
    notebook.run("points.iteration_ends()\nnote.ask()\npoints.iteration_ends()\npoints.iteration_ends()\n")

    assert notebook.hits == [("boundary", "<module>", None, (0, 0, 0, 0))]


# --- never there ------------------------------------------------------------------------------------------------------

SORTING = {
    "a boundary": """
lst = [3, 1, 2]
def key(x):
    for i in range(2):
        opt.step()
    return x
for j in range(2):
    lst.sort(key=key)
""",
    "a boundary, sorted by a method": """
class Key:
    def key(self, x):
        for i in range(2):
            opt.step()
        return x
lst = [3, 1, 2]
for j in range(2):
    lst.sort(
        key=Key().key,
    )
""",
    "a library's loop": """
lst = [3, 1, 2]
def key(x):
    lib.fit(opt)
    return x
lst.sort(key=key)
lib.fit(opt)
""",
    "a line": """
lst = [3, 1, 2]
note.asking = False
def key(x):
    note.ask()
    note.now += 1.1
    note.ask()
    for i in range(2):
        x += 0
    note.now += 1.1
    return x
lst.sort(key=key)
key(1)
key(2)
""",
    "a comparison": """
note.asking = False
class Card:
    def __lt__(self, other):
        note.ask()
        note.now += 1.1
        for i in range(2):
            note.ask()
        return True
lst = [Card(), Card(), Card()]
lst.sort()
i = 2
i = 3
""",
}


@pytest.mark.parametrize("name", SORTING)
def test_never_while_a_list_is_sorted(notebook, name):
    """The list looks empty to its key function."""
    found = []
    notebook.react = lambda place: found.append(len(notebook.names["lst"]))

    notebook.run(SORTING[name])

    assert found != []
    assert set(found) == {3}


@pytest.mark.parametrize(
    "source",
    [
        "def closure():\n    for i in range(3):\n        opt.step()\nfor j in range(2):\n    step_with(closure)\n",
        """
note.asking = False
def closure():
    note.ask()
    note.now += 1.1
    for i in range(3):
        note.ask()
for j in range(2):
    step_with(closure)
""",
        """
note.asking = False
def callback():
    note.ask()
    note.now += 1.1
    for i in range(3):
        note.ask()
for j in range(2):
    lib.call(callback)
""",
        """
note.asking = False
go = lambda: [
    note.ask(),
    note.wait(1.1),
    (),
]
class A:
    a = go()
    b = go()
x = [
    go()
    for i in
    range(2)
]
i = 1
""",
        """
note.asking = False
def ask(i):
    note.ask()
    note.now += 1.1
    return i
class A:
    a = ask(1)
    b = ask(2)
x = [ask(i) for i in range(3)]
y = sorted(range(3), key=lambda i: ask(i))
for j in range(1):
    z = list(map(
        lambda i:
            ask(i),
        range(3)))
""",
    ],
)
def test_only_with_a_clean_stack(notebook, source):
    """Half of a step is done when an optimizer calls a closure; a library may be anywhere when it calls back."""
    inside = []
    notebook.react = lambda place: inside.append(place.frame.f_code.co_name)

    notebook.run(source)

    assert set(inside) <= {"<module>", "ask"}
    assert inside != []


def test_what_a_call_stands_for_is_found_without_its_name(notebook):
    notebook.asking = False
    notebook.run(
        """
class Machine:
    def __init__(self, work):
        self.work = work
        self.ask()
    def __call__(self):
        self.ask()
    def ask(self):
        note.now += 2
        note.ask()
        note.now += 2
        note.ask()
        note.now += 2
def timed(function):
    def wrapper(*args):
        result = function(*args)
        return result
    return wrapper
class Child(Machine):
    def __init__(self):
        super().__init__(None)
ask = timed(Machine.ask)
m = Machine(Machine(None).ask)
m()
m.work()
ask(m)
Child()
run = m.work
def go():
    again = run
    again()
go()
gen = (Machine(None) for i in range(2))
next(gen)
"""
    )

    assert {hit[0] for hit in notebook.hits} == {"line"}
    assert sum(hit[1] == "ask" for hit in notebook.hits) >= 8


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_header_is_preferred_for_a_second(notebook):
    notebook.asking = False
    notebook.run("note.ask()\na = 1\nb = 2\nfor i in range(2):\n    c = 3\n    d = 4\n")

    assert [hit[:3] for hit in notebook.hits] == [("line", "<module>", 4)]


def test_after_a_second_any_line_will_do(notebook):
    notebook.asking = False
    notebook.run("note.ask()\na = 1\nnote.now += 1.5\nb = 2\nfor i in range(2):\n    c = 3\n")

    assert [hit[:3] for hit in notebook.hits] == [("line", "<module>", None)]


def test_a_line_when_the_boundary_does_not_come(notebook):
    """After ten seconds of waiting for it, and ten for the header of whatever loop."""
    notebook.run(
        """
for i in range(1):
    opt.step()
    note.now += 5
    note.ask()
    k = 0
    assert not note.hits
    note.now += 8
    note.ask()
    note.now += 2
    k = 1
    assert not note.hits
    note.now += 9
    k = 2
    note.asking = False
"""
    )

    assert [hit[:3] for hit in notebook.hits] == [("line", "<module>", None)]


def test_patience_is_five_of_the_usual_intervals(notebook):
    notebook.asking = False
    notebook.run(
        """
for i in range(4):
    note.now += 100
    opt.step()
note.ask()
note.now += 400
note.ask()
k = 0
assert not note.hits
note.now += 101
note.ask()
note.now += 2
k = 1
"""
    )

    assert notebook.cuts == ["line"]


def test_nothing_is_traced_that_nobody_waits_for(notebook):
    notebook.asking = False
    traced = notebook.names["traced"] = []
    notebook.names["look"] = lambda: traced.append(sys.gettrace())

    notebook.run(
        "look()\nopt.step()\nlook()\nnote.ask()\nlook()\nfor i in range(1):\n    look()\nlook()\n"
        "points.withdraw()\nlook()\n"
    )

    assert set(traced) == {None}
    assert notebook.hits == []


def test_a_withdrawn_request_is_not_answered(notebook):
    notebook.asking = False
    notebook.run("note.ask()\npoints.withdraw()\nfor i in range(3):\n    note.now += 2\n")

    assert notebook.hits == []
    assert notebook.points.pending is False


def test_code_without_a_text_is_still_protected(notebook):
    """`%%time` compiles what linecache never sees."""
    notebook.asking = False
    code = notebook.compile(SHAPES["for"].replace("opt.step()", "note.asking = True; opt.step()"), "<timed exec>")
    del linecache.cache["<timed exec>"]

    with notebook.cell():
        exec(code, notebook.names)

    assert notebook.cuts == ["in_hook"] * 3


def test_the_text_may_come_from_elsewhere(notebook):
    code = notebook.compile(SHAPES["for"], "<timed exec>")
    del linecache.cache["<timed exec>"]
    notebook.points._syntax._source = lambda code: SHAPES["for"]

    with notebook.cell():
        exec(code, notebook.names)

    assert notebook.cuts == ["boundary"] * STEPS


def test_a_cell_within_a_cell(notebook):
    notebook.names["run"] = lambda: notebook.run(SHAPES["for"])
    notebook.run("for k in range(2):\n    run()\n")

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * 2 * STEPS


@pytest.mark.parametrize("line", [False, True])
def test_what_changes_meanwhile_is_not_undone(notebook, line):
    """Before 3.13 a trace function's end writes the locals of its frame back as they were last read."""

    def react(place):
        place.frame.f_locals["bump"]()
        assert place.frame.f_locals is not None
        place.frame.f_locals["bump"]()

    notebook.react = react
    notebook.asking = not line
    ask = "note.ask(); note.now += 2" if line else "opt.step()"
    notebook.run(
        f"""
def train():
    count = 0
    def bump():
        nonlocal count
        count += 1
    for i in range(2):
        {ask}
        last = i
    return count
count = train()
"""
    )

    assert notebook.names["count"] == 2 * len(notebook.hits) > 0


# --- somebody else's tracer -------------------------------------------------------------------------------------------


def test_a_tracer_that_is_there_is_left_alone(notebook):
    def theirs(frame, event, arg):
        return theirs

    sys.settrace(theirs)
    try:
        notebook.run(SHAPES["for"] + "note.ask()\npaused = points.paused\n")
        found = sys.gettrace()
    finally:
        sys.settrace(None)

    assert notebook.hits == []
    assert notebook.names["paused"] == "a debugger or coverage tool holds the tracer"
    assert notebook.points.paused is None  # the cell is over
    assert found is theirs


def test_a_frame_that_a_debugger_watches_is_left_alone(notebook):
    def theirs(frame, event, arg):
        return theirs

    notebook.names["theirs"] = theirs
    notebook.names["frame"] = sys._getframe
    notebook.run("frame().f_trace = theirs\n" + SHAPES["for"] + "kept = frame().f_trace\npaused = points.paused\n")

    assert notebook.hits == []
    assert notebook.names["kept"] is theirs
    assert notebook.names["paused"]


def test_a_tracer_that_comes_meanwhile_gets_its_way(notebook):
    lines = []

    def theirs(frame, event, arg):
        lines.append(frame.f_lineno)
        return theirs

    notebook.names["take"] = lambda: sys.settrace(theirs)
    notebook.names["frame"] = sys._getframe
    try:
        notebook.run(
            "for i in range(2):\n    opt.step()\n    take()\n    kept = frame().f_trace\nfound = frame().f_trace\n"
        )
        found = sys.gettrace()
    finally:
        sys.settrace(None)

    assert found is theirs
    assert notebook.hits == []
    assert notebook.names["found"] is None
    assert lines


def test_a_tracer_that_has_gone_is_forgotten(notebook):
    notebook.names["settrace"] = sys.settrace
    notebook.run("settrace(lambda *a: None)\nopt.step()\nassert points.paused\nsettrace(None)\n" + SHAPES["for"])

    assert notebook.cuts == ["boundary"] * STEPS


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, SystemExit, RecursionError, StopIteration, GeneratorExit])
def test_what_reached_raises_does_not_reach_the_cell(notebook, error):
    def fail(place):
        raise error

    notebook.react = fail
    notebook.run(SHAPES["for"])
    notebook.run("lib.fit(opt)")

    assert notebook.cuts[: STEPS + 1] == ["boundary"] * STEPS + ["in_hook"]


@pytest.mark.parametrize("source", [SHAPES["for"], "lib.fit(opt)"])
def test_an_interrupt_of_the_user_reaches_the_cell(notebook, source):
    def interrupt(place):
        assert sys.gettrace() is None
        signal.raise_signal(signal.SIGINT)

    notebook.react = interrupt
    with pytest.raises(KeyboardInterrupt):
        notebook.run(source)

    assert len(notebook.hits) == 1
    assert sys.gettrace() is None


def test_a_mistake_of_ours_does_not_reach_the_cell(notebook, monkeypatch):
    def fail(*args):
        raise LookupError

    for name in ("reached",):
        monkeypatch.setattr(f"ipyrescue.capture.headers.Loop.{name}", fail)
    notebook.run(SHAPES["for"])
    monkeypatch.setattr("ipyrescue.capture.stacks.Stacks.standing", fail)
    notebook.run(SHAPES["for"] + "note.ask()\nk = 1\n")

    assert notebook.names["step"] == 2 * STEPS


STORM = """
def train():
    global sched, step
    while note.interrupts < 100:
        opt.step()
        note.now += 3
        sched += 1
        losses.append(1)
        step += 1
while note.interrupts < 100:
    try:
        train()
    except KeyboardInterrupt:
        pass
for i in range(2):
    opt.step()
traces = gettrace(), frame().f_trace
"""


def test_a_storm_of_interrupts_leaves_no_tracer(notebook, monkeypatch):
    """They come while a step is noted, while lines are traced, while that is begun and ended.

    One that comes in a finalizer cannot be raised there: Python drops it, and so does the test. A hook written in
    Python, as pytest's is, would itself be hit by the next one.
    """
    monkeypatch.setattr(sys, "unraisablehook", collections.deque(maxlen=0).append)
    notebook.interrupts = 0

    def interrupt(number, frame):
        names = {one.f_code.co_name for one, _ in traceback.walk_stack(frame)}
        if "train" in names and notebook.interrupts < 100:
            notebook.interrupts += 1
            raise KeyboardInterrupt

    def storm():
        while notebook.interrupts < 100:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.0003)

    notebook.names |= {"frame": sys._getframe, "gettrace": sys.gettrace}
    before = signal.signal(signal.SIGINT, interrupt)
    storming = threading.Thread(target=storm)
    storming.start()
    notebook.run(STORM)
    storming.join()
    signal.signal(signal.SIGINT, before)

    assert notebook.names["traces"] == (None, None)
    assert notebook.cuts[-2:] == ["boundary"] * 2


@pytest.mark.parametrize("taking", [True, False])
def test_an_interrupt_in_the_middle_of_a_change_comes_after_it(notebook, monkeypatch, taking):
    settrace = sys.settrace

    def interrupted(function):
        if (function is None) is not taking:
            signal.raise_signal(signal.SIGINT)
        settrace(function)

    notebook.names |= {"frame": sys._getframe, "gettrace": sys.gettrace}
    monkeypatch.setattr(sys, "settrace", interrupted)
    notebook.run(
        """
try:
    for i in range(2):
        opt.step()
except KeyboardInterrupt:
    i = "caught"
k = 1
traces = gettrace(), frame().f_trace
"""
    )

    assert notebook.names["i"] == "caught"
    assert notebook.names["traces"] == (None, None)


MOMENTS = """
interrupted = False
try:
    note.moment = note.next
    for i in range(3):
        opt.step()
        note.ask()
        for j in range(2):
            note.now += 6
        k = 1
        opt.step()
except KeyboardInterrupt:
    interrupted = True
del note.hits[:]
left, note.moment = note.moment, -1
for i in range(2):
    opt.step()
traces = gettrace(), frame().f_trace
"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python drops what finalizers raise
def test_an_interrupt_at_any_moment_leaves_nothing_behind(notebook, monkeypatch):
    """At each call, in turn, that our code makes: of the clock, of is_cell, of os."""
    notebook.names |= {"frame": sys._getframe, "gettrace": sys.gettrace}
    notebook.moment = -1

    def counted(function):
        def call(*args):
            notebook.moment -= 1
            if notebook.moment == 0:
                signal.raise_signal(signal.SIGINT)
            return function(*args)

        return call

    for owner, name in [(notebook.points, "_clock"), (notebook.points, "_is_cell"), (os, "getpid")]:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    notebook.points._stacks._is_cell = notebook.points._is_cell
    found = []
    for moment in itertools.count(1, 5):
        notebook.next = moment
        notebook.run(MOMENTS)
        found.append(notebook.names["interrupted"])
        reached = notebook.names["left"] <= 0
        assert notebook.names["traces"] == (None, None)
        assert notebook.cuts == ["boundary"] * 2
        if not reached:
            break
        notebook.points.withdraw()

    assert sum(found) > 20


# --- other places -----------------------------------------------------------------------------------------------------


def test_a_forked_child_fires_nothing(notebook):
    notebook.asking = False
    notebook.names["os"] = os
    notebook.run(
        """
points.request()
child = os.fork()
if child == 0:
    try:
        note.asking = True
        for i in range(3):
            opt.step()
            points.request()
            points.wake(lambda: note.hits.append(1))
            note.now += 20
        lib.fit(opt)
        points.iteration_ends()
    finally:
        os._exit(len(note.hits))
status = os.waitpid(child, 0)[1]
points.withdraw()
"""
    )

    assert notebook.names["status"] == 0


def test_a_child_that_is_forked_while_lines_are_traced(notebook):
    notebook.names |= {"os": os, "gettrace": sys.gettrace}
    notebook.run(
        """
for i in range(1):
    opt.step()
    note.asking = False
    child = os.fork()
    if child == 0:
        i = 0
        os._exit(gettrace() is not None)
    status = os.waitpid(child, 0)[1]
"""
    )

    assert notebook.names["status"] == 0
    assert notebook.cuts == ["boundary"]


def test_threads_are_left_alone(notebook):
    notebook.names["threading"] = threading
    notebook.run(
        """
def train():
    for i in range(n):
        opt.step()
thread = threading.Thread(target=train)
thread.start()
thread.join()
points.withdraw()
"""
    )

    assert notebook.hits == []
    assert list(notebook.points.step_times) == []


def test_a_request_of_another_thread_ends_a_loop(notebook):
    """As it is used: a thread asks again and again, the cell goes on until it was answered."""
    answered = threading.Event()
    notebook.asking = False
    notebook.names["answered"] = answered
    notebook.react = lambda place: answered.set()

    def ask():
        while not answered.wait(0.001):
            notebook.points.request()

    asking = threading.Thread(target=ask)
    asking.start()
    notebook.run("while not answered.is_set():\n    opt.step()\n    sched += 1\n    losses.append(1)\n    step += 1\n")
    asking.join()

    assert notebook.cuts[0] == "boundary"
    assert notebook.torn == []


async def _cell_that_awaits(notebook, source):
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with notebook.cell():
        await eval(notebook.compile(source, flags=flags), notebook.names)


def test_an_await_of_the_cell(notebook):
    notebook.asking = False
    answered = asyncio.Event()
    notebook.names["answered"] = answered
    notebook.react = lambda place: answered.set()

    async def main():
        cell = asyncio.ensure_future(_cell_that_awaits(notebook, "await answered.wait()\n"))
        await asyncio.sleep(0)
        asking = threading.Thread(target=notebook.points.request)
        asking.start()
        await cell
        asking.join()

    asyncio.run(main())

    assert notebook.hits == [("await", None, None, (0, 0, 0, 0))]


def test_an_await_in_a_training_is_not_preferred_to_its_boundary(notebook):
    async def main():
        await _cell_that_awaits(notebook, SHAPES["for"].replace("sched", "await asyncio.sleep(0); sched"))

    asyncio.run(main())

    assert notebook.torn == []
    assert notebook.cuts == ["boundary"] * STEPS


def test_a_request_does_not_outlive_the_cell_in_the_event_loop(notebook):
    notebook.asking = False

    async def main():
        await _cell_that_awaits(notebook, "await asyncio.sleep(0)\npoints.request()\n")
        notebook.points.cell_begins()
        await asyncio.sleep(0)
        notebook.points.cell_ends()

    asyncio.run(main())

    assert notebook.hits == []


def test_an_idle_kernel_is_woken(notebook):
    """`select` would wait for a minute: a signal of the system ends it, and what it calls is what is waited for."""
    ready, tell = os.pipe()
    waker = threading.Thread(target=notebook.points.wake, args=[lambda: os.write(tell, b"x")])
    waker.start()
    found = select.select([ready], [], [], 60)[0]
    waker.join()
    os.close(ready)
    os.close(tell)

    assert found


def test_a_running_cell_is_woken_without_a_signal_of_the_system(notebook):
    notebook.asking = False
    woken = notebook.names["woken"] = []
    notebook.names["wake"] = lambda: notebook.points.wake(lambda: woken.append(threading.get_ident()))
    notebook.names["threading"] = threading
    notebook.run("t = threading.Thread(target=wake)\nt.start()\nwhile not woken: pass\nt.join()\n")

    assert woken == [threading.main_thread().ident]


def test_who_is_woken_may_fail(notebook):
    notebook.points.wake(lambda: 1 / 0)
    done = []
    notebook.points.wake(lambda: done.append(1))

    assert done == [1]


def test_a_call_that_came_while_a_snapshot_was_cut_is_made_after_it(notebook):
    done = []

    def react(place):
        notebook.points.wake(lambda: done.append(1))
        assert done == []

    notebook.react = react
    notebook.run("for i in range(1):\n    opt.step()\nfound = list(points._attention._callbacks)\n")

    assert done == [1]


def test_the_installed_ones_are_known(notebook):
    assert safepoint.current() is notebook.points
    notebook.points.uninstall()
    assert safepoint.current() is None
    notebook.points.request()
    notebook.points.wake(lambda: None)
    notebook.points.withdraw()
    notebook.points.install()


# --- torch ------------------------------------------------------------------------------------------------------------

TORCH = """
import torch
model = torch.nn.Linear(3, 2)
opt = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.StepLR(opt, 1000)
losses, step, points.pending = [], 0, False
"""
TORCH_LOOP = """
while step < n:
    points.request()
    loss = model(torch.ones(1, 3)).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
    scheduler.step()
    losses.append(loss.item())
    step += 1
"""
LBFGS_LOOP = """
opt = torch.optim.LBFGS(model.parameters(), max_iter=3)
def closure():
    opt.zero_grad()
    for i in range(2):
        points.request()
        loss = model(torch.ones(1, 3)).sum() ** 2
        loss.backward()
    return loss
for j in range(n):
    opt.step(closure)
    losses.append(1)
    step += 1
"""


def _torch_state(notebook):
    names = notebook.names
    steps = [int(state["step"]) for state in names["opt"].state.values() if "step" in state]
    return {names["step"], len(names["losses"]), names["scheduler"].last_epoch, *steps}


def test_real_optimizers(notebook):
    seen = []
    notebook.asking = False
    notebook.react = lambda place: seen.append(_torch_state(notebook))
    notebook.run(TORCH)
    notebook.run(TORCH_LOOP)

    assert notebook.cuts == ["boundary"] * STEPS
    assert seen == [{number} for number in range(1, STEPS + 1)]
    assert len(notebook.points.step_times) == 0
    notebook.points.uninstall()
    from torch.optim import optimizer

    assert not optimizer._global_optimizer_post_hooks


def test_torch_in_the_cell_that_imports_it(notebook, monkeypatch):
    """Steps may have been made that nobody saw, so the next one is waited for."""
    notebook.asking = False
    hidden = sys.modules.pop("torch.optim.optimizer")
    notebook.points.uninstall()
    notebook.points.install()
    notebook.names["arrive"] = lambda: sys.modules.__setitem__("torch.optim.optimizer", hidden)
    notebook.run(
        TORCH.replace("import torch", "import torch; arrive()")
        + "note.ask()\nfor k in range(2):\n    pass"
        + TORCH_LOOP
    )

    assert notebook.cuts == ["boundary"] * STEPS


def test_a_closure_is_never_cut(notebook):
    notebook.asking = False
    notebook.run(TORCH)
    notebook.run(LBFGS_LOOP)

    assert notebook.cuts == ["boundary"] * STEPS
    assert {hit[1] for hit in notebook.hits} == {"<module>"}


def test_what_is_trained_is_known_by_its_place_until_that_has_returned(notebook, monkeypatch):
    """A function of a file that nobody installed, else a function of the cell or all of it."""
    monkeypatch.setattr(stacks, "_FOLDERS_OF_LIBRARIES", (__file__,))
    seen = []

    def look(place=None):
        seen.append([(type(one.optimizer), one.within and one.within.co_name) for one in notebook.points.training()])

    notebook.react = notebook.names["look"] = look
    for source, inside, after in (
        ("lib.fit(opt)\nlook()", [(Optimizer, "fit")], []),
        ("def train():\n    for _ in range(6):\n        opt.step()\ntrain()\nlook()", [(Optimizer, None)], []),
        ("for i in range(6):\n    opt.step()\nlook()", [(Optimizer, None)], [(Optimizer, None)]),
        ("points.request()\nlook()", [], []),
    ):
        notebook.run(source)
        assert (seen[0], seen[-1]) == (inside, after), source
        seen.clear()
