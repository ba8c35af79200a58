"""A digest is the same for what is the same, and another one for what is not, in whichever process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from ipyrescue.pickling.anatomy import Anatomy, cell_classes
from ipyrescue.pickling.digests import Difference, Digest, digests, first_difference, first_different_chunk, tokens

TORCH = "import torch\ntorch.manual_seed(0)\n"
NUMPY = "import numpy as np\n"
NET = (
    TORCH
    + "m = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))\n"
    + "opt = torch.optim.AdamW(m.parameters())\nm(torch.ones(3, 2)).sum().backward(); opt.step()\n"
)

SAME = {
    "sets have no order": ("v = {'a', 'b', 'c'}", "v = set(['c', 'b', 'a'])"),
    "nor have sets of objects": ("v = {(1, frozenset('ab')), (2,)}", "v = {(2,), (1, frozenset('ba'))}"),
    "equal texts are one": ("a = 'x' * 50; v = [a, a]", "v = ['x' * 50, ''.join(['x'] * 50)]"),
    "so are equal dates": (
        "import datetime as d; a = d.date(1, 1, 1); v = [a, a]",
        "import datetime as d; v = [d.date(1, 1, 1), d.date(1, 1, 1)]",
    ),
    "the same NaN": ("v = float('nan')", "v = float('nan')"),
    "a cycle": ("v = []; v.append(v)", "v = []; v.append(v)"),
    "a cycle through an object": ("class A: pass\nv = A(); v.me = {'v': v}", "class A: pass\nv = A(); v.me = {'v': v}"),
    "attributes in another order": (
        "class A: pass\nv = A(); v.a, v.b = 1, 2",
        "class A: pass\nv = A(); v.b = 2; v.a = 1",
    ),
    "a function": ("def v(x, y=2): return x + y", "def v(x, y=2):\n    return x + y"),
    "a comprehension's code": ("v = lambda s: {x for x in s if x in {'a', 'b'}}",) * 2,
    "a closure": ("def f():\n    n = [1]\n    return lambda: n\nv = f()",) * 2,
    "a class": ("class v:\n    n = 1\n    def f(self): return super().f()",) * 2,
    "a property is not asked": (
        "class A:\n    @property\n    def p(self): raise SystemExit\n    def __eq__(self, o): raise SystemExit\n"
        "    def __repr__(self): raise SystemExit\n    def __hash__(self): return 1\nv = {A()}",
    )
    * 2,
    "an Enum": ("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\nv = [E.B, E]",) * 2,
    "a dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass D:\n    x: int = 1\nv = [D, D(2)]",) * 2,
    "locks by their type": (
        "import threading\nv = threading.Lock()",
        "import threading\nv = threading.Lock()\nv.acquire()",
    ),
    "an iterator": ("v = iter([1, 2]); next(v)",) * 2,
    "a model and its optimizer": (NET + "v = [m, opt]",) * 2,
    "a random generator": (NUMPY + "v = np.random.default_rng(1)",) * 2,
    "a DataFrame": ("import pandas as pd\nv = pd.DataFrame({'a': [1, 2], 'b': ['x', None]})",) * 2,
    "a deep nesting": ("v = []\nfor _ in range(20_000): v = [v]",) * 2,
    "a module": ("import os; v = os",) * 2,
    "a bound method": ("class A:\n    def f(self): pass\nv = A().f",) * 2,
    "a weak reference": ("import weakref\nclass A: pass\na = A(); v = [a, weakref.ref(a)]",) * 2,
    "an exception": ("v = ValueError('x')",) * 2,
}

DIFFERENT = {
    "aliasing": ("a = []; v = [a, a]", "v = [[], []]"),
    "which one is shared": ("a, b = [], []; v = [a, b, a]", "a, b = [], []; v = [a, b, b]"),
    "a list and a tuple": ("v = [1]", "v = (1,)"),
    "True and 1": ("v = True", "v = 1"),
    "1 and 1.0": ("v = 1", "v = 1.0"),
    "0.0 and -0.0": ("v = 0.0", "v = -0.0"),
    "0.0 and -0.0 in a long list": ("v = [0.0] * 100", "v = [0.0] * 99 + [-0.0]"),
    "the payload of a NaN": (
        "import struct; v = struct.unpack('<d', bytes.fromhex('010000000000f87f'))[0]",
        "import struct; v = struct.unpack('<d', bytes.fromhex('020000000000f87f'))[0]",
    ),
    "the last of many numbers": ("v = list(range(100_000))", "v = [*range(99_999), 7]"),
    "a number too big for a word": ("v = [2 ** 70] * 20", "v = [2 ** 70] * 19 + [2 ** 71]"),
    "text and bytes": ("v = 'a'", "v = b'a'"),
    "the order of a dict": ("v = {'a': 1, 'b': 2}", "v = {'b': 2, 'a': 1}"),
    "the order of an OrderedDict": (
        "from collections import OrderedDict as O\nv = O(a=1, b=2)",
        "from collections import OrderedDict as O\nv = O(a=1, b=2); v.move_to_end('a')",
    ),
    "a dict and its subclass": ("v = {}", "class D(dict): pass\nv = D()"),
    "what a subclass holds": ("class L(list): pass\nv = L([1])", "class L(list): pass\nv = L([2])"),
    "what hangs on a subclass": ("class L(list): pass\nv = L()", "class L(list): pass\nv = L(); v.x = 1"),
    "the factory of a defaultdict": (
        "from collections import defaultdict as D\nv = D(int)",
        "from collections import defaultdict as D\nv = D(list)",
    ),
    "the bound of a deque": (
        "from collections import deque\nv = deque([1], 3)",
        "from collections import deque\nv = deque([1], 4)",
    ),
    "an element of a set": ("v = {1, 2}", "v = {1, 3}"),
    "an element of a set of objects": ("v = {(1, (2,))}", "v = {(1, (3,))}"),
    "a slot": (
        "class A: __slots__ = ('a', 'b')\nv = A(); v.a = 1",
        "class A: __slots__ = ('a', 'b')\nv = A(); v.a = 1; v.b = None",
    ),
    "an attribute": ("class A: pass\nv = A(); v.a = 1", "class A: pass\nv = A(); v.a = 2"),
    "the class of an instance": ("class A: pass\nv = A()", "class A:\n    n = 1\nv = A()"),
    "a cycle and its unrolling": ("v = []; v.append(v)", "v = []; v.append([v])"),
    "the code of a function": ("def v(x): return x + 1", "def v(x): return x + 2"),
    "its names": ("def v(x): return f(x)", "def v(x): return g(x)"),
    "its default": ("def v(x=1): return x", "def v(x=2): return x"),
    "its default for a keyword": ("def v(*, x=1): return x", "def v(*, x=2): return x"),
    "the contents of its closure": (
        "def f():\n    n = [1]\n    return lambda: n\nv = f()",
        "def f():\n    n = [2]\n    return lambda: n\nv = f()",
    ),
    "an attribute of a function": ("def v(): pass", "def v(): pass\nv.x = 1"),
    "an inner function": (
        "def v():\n    def g(): return 1\n    return g",
        "def v():\n    def g(): return 2\n    return g",
    ),
    "the base of a class": ("class v(list): pass", "class v(dict): pass"),
    "a member of an Enum": ("import enum\nclass v(enum.Enum): A = 1", "import enum\nclass v(enum.Enum): A = 2"),
    "a bound method's object": ("v = [1].append", "v = [2].append"),
    "the arguments of an exception": ("v = ValueError('x')", "v = ValueError('y')"),
    "what an iterator has left": ("v = iter([1, 2]); next(v)", "v = iter([1, 2])"),
    "the dtype of an array": (NUMPY + "v = np.zeros(2, 'f4')", NUMPY + "v = np.zeros(1, 'f8')"),
    "its byte order": (NUMPY + "v = np.zeros(2, '<f4')", NUMPY + "v = np.zeros(2, '>f4')"),
    "its shape": (NUMPY + "v = np.zeros((2, 3))", NUMPY + "v = np.zeros((3, 2))"),
    "its strides": (NUMPY + "v = np.zeros((2, 2))", NUMPY + "v = np.zeros((2, 2), order='F')"),
    "one bit of it": (NUMPY + "v = np.zeros(9)", NUMPY + "v = np.zeros(9); v[8] = -0.0"),
    "whether it can be written": (NUMPY + "v = np.zeros(2)", NUMPY + "v = np.zeros(2); v.flags.writeable = False"),
    "whether a view shares": (NUMPY + "a = np.zeros(4); v = [a, a[1:]]", NUMPY + "v = [np.zeros(4), np.zeros(3)]"),
    "where a view begins": (NUMPY + "a = np.zeros(4); v = [a, a[1:3]]", NUMPY + "a = np.zeros(4); v = [a, a[2:]]"),
    "memory shared by two libraries": (
        TORCH + NUMPY + "a = np.zeros(4); v = [a, torch.from_numpy(a)]",
        TORCH + NUMPY + "v = [np.zeros(4), torch.zeros(4, dtype=torch.float64)]",
    ),
    "memory shared in part": (
        TORCH + NUMPY + "a = np.zeros(4); v = [a[:3], torch.from_numpy(a[1:])]",
        TORCH + NUMPY + "a, b = np.zeros(4), np.zeros(4); v = [a[:3], torch.from_numpy(b[1:])]",
    ),
    "an object in an array": (
        NUMPY + "v = np.array([1, 'a'], dtype=object)",
        NUMPY + "v = np.array([1, 'b'], dtype=object)",
    ),
    "the state of a generator": (
        NUMPY + "v = np.random.default_rng(1)",
        NUMPY + "v = np.random.default_rng(1); v.random()",
    ),
    "the dtype of a tensor": (TORCH + "v = torch.zeros(2)", TORCH + "v = torch.zeros(2, dtype=torch.float16)"),
    "its strides in memory": (TORCH + "v = torch.zeros(2, 2)", TORCH + "v = torch.zeros(2, 2).t().contiguous().t()"),
    "its gradient": (
        TORCH + "v = torch.zeros(2, requires_grad=True)",
        TORCH + "v = torch.zeros(2, requires_grad=True); v.sum().backward()",
    ),
    "whether it wants one": (TORCH + "v = torch.zeros(2)", TORCH + "v = torch.zeros(2, requires_grad=True)"),
    "a parameter": (TORCH + "v = torch.nn.Parameter(torch.zeros(2))", TORCH + "v = torch.zeros(2, requires_grad=True)"),
    "a sparse tensor": (TORCH + "v = torch.eye(2).to_sparse()", TORCH + "v = (2 * torch.eye(2)).to_sparse()"),
    "tied weights": (
        TORCH + "m = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])\n"
        "m[1].weight = m[0].weight; v = m",
        TORCH + "m = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])\n"
        "m[1].weight = torch.nn.Parameter(m[0].weight.detach().clone()); v = m",
    ),
    "a buffer of a module": (NET + "v = m", NET + "m[1].running_mean[0] = 7; v = m"),
    "a hook of a module": (NET + "v = m", NET + "m.register_forward_hook(lambda *a: None); v = m"),
    "the mode of a module": (NET + "v = m", NET + "m.eval(); v = m"),
    "an optimizer's parameters": (NET + "v = [m, opt]", NET + "import copy\nv = [m, copy.deepcopy(opt)]"),
    "a moment of an optimizer": (NET + "v = opt", NET + "opt.step(); v = opt"),
    "a learning rate": (NET + "v = opt", NET + "opt.param_groups[0]['lr'] = 0.5; v = opt"),
    "a cell of a DataFrame": (
        "import pandas as pd\nv = pd.DataFrame({'a': [1, 2]})",
        "import pandas as pd\nv = pd.DataFrame({'a': [1, 3]})",
    ),
    "the index of a DataFrame": (
        "import pandas as pd\nv = pd.DataFrame({'a': [1, 2]})",
        "import pandas as pd\nv = pd.DataFrame({'a': [1, 2]}, index=[5, 6])",
    ),
}


def run(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace


def digest(source: str) -> Digest:
    namespace = run(source)
    return digests({"v": namespace["v"]}, Anatomy(namespace, {}))["v"]


def difference(one: str, other: str) -> Difference | None:
    pair = [run(source) for source in (one, other)]
    chunk = first_different_chunk(digest(one), digest(other))
    if chunk is None:
        return None
    shown = [tokens({"v": names["v"]}, Anatomy(names, {}), {"v": chunk})["v"] for names in pair]
    return first_difference(*shown)


@pytest.mark.parametrize("case", SAME)
def test_the_same(case: str) -> None:
    one, other = SAME[case]

    assert digest(one).incomparable is None
    assert digest(one) == digest(other), difference(one, other)


@pytest.mark.parametrize("case", DIFFERENT)
def test_not_the_same(case: str) -> None:
    one, other = DIFFERENT[case]

    assert digest(one).incomparable is digest(other).incomparable is None
    assert digest(one) != digest(other)
    assert difference(one, other) is not None


@pytest.mark.slow
def test_two_processes_come_to_the_same() -> None:
    """Whatever their hash seeds and addresses are."""
    program = (
        "import sys, warnings; sys.path.insert(0, sys.argv[1]); warnings.simplefilter('ignore')\n"
        "from test_digests import *\n"
        "for case in SAME: print(case, *digest(SAME[case][0]).chunks)"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, os.path.dirname(__file__)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert other.stdout.splitlines() == [" ".join([case, *digest(SAME[case][0]).chunks]) for case in SAME]


@pytest.mark.parametrize(
    ("one", "other", "where", "what"),
    [
        ("v = {'x': [1, 2]}", "v = {'x': [1, 2.0]}", "v['x'][1]", "int comes back as float"),
        ("v = {'x': 'secret one'}", "v = {'x': 'secret two'}", "v['x']", "str with another value"),
        ("v = {'x': 1, 'y': 2}", "v = {'x': 1}", "v['y']", "lost"),
        ("class A: pass\nv = A(); v.a = {'k': [0]}", "class A: pass\nv = A()", "v.a", "lost"),
        ("a = []; v = [a, a]", "v = [[], []]", "v[1]", "the same object as v[0] comes back as list of 0"),
        (
            NUMPY + "v = [np.zeros(2)]",
            NUMPY + "v = [np.zeros(2, 'f4')]",
            "v[0]",
            "numpy.ndarray float64 (2,) comes back",
        ),
        ("v = [0.5] * 5000", "v = [0.5] * 4999 + [1.5]", "v[4096:5000]", "float with another value"),
        ("class A: pass\nv = A()", "v = {}", "v", "A comes back as dict of 0"),
        ("v = [[i] for i in range(5000)]", "v = [[i] for i in range(4999)] + [[0]]", "v[4999][0]", "another value"),
    ],
)
def test_the_first_difference_is_told_by_its_place(one: str, other: str, where: str, what: str) -> None:
    """Paths, types and shapes; never a value."""
    found = difference(one, other)

    assert found is not None
    assert found.where == where
    assert what in found.what
    assert "secret" not in found.what


def test_names_of_a_group_are_numbered_together() -> None:
    """`opt` holds the very parameters of `model`, or it does not."""
    namespace = run(NET)
    both = digests({"m": namespace["m"], "opt": namespace["opt"]}, Anatomy(namespace, {}))
    alone = digests({"opt": namespace["opt"]}, Anatomy(namespace, {}))

    assert both["opt"] != alone["opt"]


def test_a_difference_in_one_name_is_none_in_the_next() -> None:
    """What is met again is told by its path, so that a name that lost something does not shift the others."""
    sources = [
        "class A: pass\na = A(); a.x, a.z = [[], []], 1; b = [a.z, a.x]",
        "class A: pass\na = A(); a.x = [[], []]; b = [1, a.x]",
    ]
    found = [digests({n: names[n] for n in ("a", "b")}, Anatomy(names, {})) for names in map(run, sources)]

    assert found[0]["a"] != found[1]["a"]
    assert found[0]["b"] == found[1]["b"]


def test_a_class_of_a_cell_that_has_a_name_stands_for_itself() -> None:
    """Its group is compared on its own; the instances only say whose they are."""
    one, other = run("class A:\n    n = 1\nv = A()"), run("class A:\n    n = 2\nv = A()")
    found = [digests({"v": names["v"]}, Anatomy(names, cell_classes(names, ["A"])))["v"] for names in (one, other)]

    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import contextvars\nv = [contextvars.ContextVar('x')]", r"v\[0\]: \w+\.ContextVar does not"),
        (NET + "import _thread\nclass A: pass\nv = A(); v.c = [_thread._local()]", r"v.c\[0\]"),
    ],
)
def test_what_cannot_be_looked_into_is_said(source: str, why: str) -> None:
    found = digest(source)

    assert found.chunks == ()
    assert found.incomparable is not None

    assert re.search(why, found.incomparable)


def test_it_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyrescue.pickling.digests.MOST_TOKENS", 100)

    assert digest("v = [[] for _ in range(200)]").incomparable == "it has more than 100 parts"
