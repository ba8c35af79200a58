"""Loops of code: which enclose a line, and at which moments an iteration of each is complete."""

from __future__ import annotations

import contextlib
import itertools
import linecache
import sys

import pytest

from ipyrescue.capture.headers import Position, Syntax, in_linecache

NUMBERS = itertools.count()


def compiled(source):
    code = compile(source, f"<headers {next(NUMBERS)}>", "exec")
    return code, Syntax(lambda code: source)


def inner(code, name):
    return next(one for one in code.co_consts if getattr(one, "co_name", None) == name)


def ends(source, header):
    """The values of `done` whenever the loop at line *header* was found to be at its header again, in a real run."""
    code, syntax = compiled(source)
    loop = next(loop for loop in syntax.loops(code) if loop.header.start == header)
    names, found, last = {"done": 0, "ctx": contextlib.nullcontext}, [], [Position(0, 0)]

    def trace(frame, event, arg):
        if frame.f_code is not code:
            return None
        if event == "line":
            now = Position(frame.f_lineno, frame.f_lasti)
            if loop.reached(last[0], now):
                found.append(names["done"])
            last[0] = now
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        exec(code, names)
    finally:
        sys.settrace(before)
    return found


@pytest.mark.parametrize(
    ("source", "header", "found"),
    [
        ("for i in range(3):\n    done += 1\n", 1, [1, 2, 3]),
        ("while done < 3:\n    done += 1\n", 1, [1, 2, 3]),
        ("for i in range(3):\n    with ctx():\n        done += 1\n    i = 0\n", 1, [1, 2, 3]),
        ("for i in range(3):\n    print(\n        end='',\n    )\n    done += 1\n", 1, [1, 2, 3]),
        ("for i in (\n    range(\n        3)\n):\n    done += 1\n", 1, [1, 2, 3]),
        ("while (\n    done\n    < 3\n):\n    done += 1\n", 1, [1, 2, 3]),
        ("for i in range(3):\n    done += 1\n    if i:\n        continue\n    i = 0\n", 1, [1, 2, 3]),
        ("for i in range(3):\n    done += 1\n    if i:\n        break\n", 1, [1]),
        ("for i in range(3):\n    done += 1\nelse:\n    done = 9\n    done = 10\n", 1, [1, 2, 3]),
        ("for i in range(2):\n    for j in range(2):\n        done += 1\n    i = 0\n", 1, [2, 4]),
        ("for i in range(2):\n    for j in range(2):\n        done += 1\n    i = 0\n", 2, [1, 2, 3, 4]),
        ("for i in range(2):\n    for j in range(2):\n        i = j\n    done += 1\n", 1, [1, 2]),
        ("for i in [j for j in range(3)]:\n    done += 1\n    k = [j for j in range(3)]\n", 1, [1, 2, 3]),
        ("while any([j for j in range(3) if done < j]):\n    done += 1\n", 1, [1, 2]),
        ("while True:\n    done += 1\n    if done > 2: break\n", 1, [1, 2]),
        ("while True:\n    with ctx():\n        done += 1\n    if done > 2: break\n", 1, [1, 2]),
        ("while True:\n    while done % 2:\n        done += 1; continue\n    done += 1\n    if done > 6: break\n", 1,
          [1, 3, 5]),
        ("while 1:\n    try:\n        done += 1\n    finally: i = 0\n    if done < 3: continue\n    break\n", 1,
         [1, 2]),
        ("for i in range(3): done += 1\n", 1, [1, 2, 3]),
        ("for i in range(3): x = [j for j in range(2)]; done += 1; y = {j: 1 for j in x}\n", 1, [1, 2, 3]),
        ("for i in [j for j in range(\n    3)]: done += 1\n", 1, [1, 2, 3]),
        ("for i in range(3): print(\n  end='')\nfor i in range(3): done += 1; print(\n  end='',\n)\n", 3, [1, 2, 3]),
        ("while True:\n    if done > 2: break\n    for i in range(2): i = 0\n    done += 1\n", 1, [1, 2, 3]),
    ],
)  # fmt: skip
def test_when_an_iteration_is_complete(source, header, found):
    assert ends(source, header) == found


@pytest.mark.parametrize("body", ["done += 1", "x = [j for j in range(2)]; done += 1; y = {j for j in x}"])
def test_a_while_on_one_line_is_seen_from_its_body(body):
    """Not all: the first comes from the test, and the last test is no line of its own. A step is in the body."""
    found = ends(f"while done < 4: {body}\n", 1)

    assert found[-2:] == [2, 3]
    assert found in ([2, 3], [1, 2, 3])


FUNCTIONS = """
for a in b:
    def f(
        x,
    ):
        for c in d:
            pass
        class Inner:
            for e in x:
                pass
            def f(self):
                while True:
                    pass
        return lambda: [g for g in x]
    @staticmethod
    def decorated():
        while 1:
            pass
"""


def test_a_function_has_its_own_loops_only():
    code, syntax = compiled(FUNCTIONS)
    f = inner(code, "f")

    assert [loop.header.start for loop in syntax.loops(code)] == [2]
    assert [loop.header.start for loop in syntax.loops(f)] == [6]
    assert [loop.header.start for loop in syntax.loops(inner(inner(f, "Inner"), "f"))] == [12]
    assert [loop.header.start for loop in syntax.loops(inner(code, "decorated"))] == [17]
    assert syntax.loops(inner(f, "Inner")) == syntax.loops(inner(f, "<lambda>")) == []


def test_the_loops_around_a_line_begin_with_the_innermost():
    code, syntax = compiled("for a in b:\n    while c:\n        d\n    e\nelse:\n    f\nfor g in h:\n    i\n")

    assert [[loop.header.start for loop in syntax.around(code, line)] for line in range(1, 9)] == [
        [], [1], [2, 1], [1], [], [], [], [7],
    ]  # fmt: skip


def test_a_loop_is_left_where_its_else_begins():
    code, syntax = compiled("for a in (\n    b\n):\n    c\nelse:\n    d\n")
    (loop,) = syntax.loops(code)

    assert [loop.holds(line) for line in range(1, 8)] == [True, True, False, True, False, False, False]
    assert [loop.encloses(line) for line in range(1, 8)] == [False, False, False, True, False, False, False]


@pytest.mark.parametrize("source", [None, "", "for a in", "\0", "%%time\nfor a in b: pass"])
def test_a_text_that_does_not_parse_has_no_loops(source):
    code = compile("for a in []: pass", "<headers>", "exec")

    assert Syntax(lambda code: source).loops(code) == []


def test_the_text_is_that_of_tracebacks():
    source = "for a in b:\n    pass\n"
    name = f"<headers {next(NUMBERS)}>"
    code = compile(source, name, "exec")
    assert in_linecache(code) is None

    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)

    assert in_linecache(code) == source
    assert len(Syntax().loops(code)) == 1


def test_the_same_file_name_may_stand_for_another_text_later():
    texts = ["for a in b:\n    pass\n", "a = 1\n"]
    code = compile(texts[0], "<timed exec>", "exec")
    syntax = Syntax(lambda code: texts[0])
    assert len(syntax.loops(code)) == 1
    del texts[0]
    assert len(syntax.loops(code)) == 1

    syntax.forget()

    assert syntax.loops(code) == []
