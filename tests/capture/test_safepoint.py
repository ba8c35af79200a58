"""Safe points: at each cut of a training, what belongs to one iteration is complete."""

from __future__ import annotations

import contextlib
import itertools
import linecache
import signal
import sys
from types import SimpleNamespace

import pytest

from ipyrescue.capture import safepoint
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
        self.points = SafePoints(lambda code: code.co_filename in self.files, self.reached, clock=lambda: self.now)
        self.names = {
            "opt": Optimizer(self),
            "losses": [],
            "model": 0,
            "sched": 0,
            "step": 0,
            "n": STEPS,
            "points": self.points,
            "ctx": contextlib.nullcontext,
            "asyncio": __import__("asyncio"),
            "note": self,
        }
        library = {}
        exec(compile(LIBRARY, "library.py", "exec"), library)
        self.names["lib"] = SimpleNamespace(**library)

    def reached(self, place):
        names = self.names
        state = (names["model"], names["sched"], names["step"], len(names["losses"]))
        self.hits.append((place.cut, place.frame and place.frame.f_code.co_name, place.header, state))

    def run(self, source):
        name = f"<cell {next(NUMBERS)}>"
        self.files.add(name)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        self.points.cell_begins()
        try:
            exec(compile(source, name, "exec"), self.names)
        finally:
            self.points.cell_ends()
            assert sys.gettrace() is None

    @property
    def cuts(self):
        return [hit[0] for hit in self.hits]

    @property
    def torn(self):
        return [hit for hit in self.hits if len(set(hit[3])) > 1]

    def wait(self, seconds):
        self.now += seconds


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
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    notebook = Notebook()
    notebook.points.install()
    yield notebook
    notebook.points.uninstall()
    assert sys.gettrace() is None
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert safepoint.current() is None


TAIL = "sched += 1; losses.append(1); step += 1"

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
