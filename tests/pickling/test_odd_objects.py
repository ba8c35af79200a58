"""Objects that misbehave cost themselves, and what they share; never the snapshot, never the cell."""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING

import pytest
from namespaces import reborn, round_trip

from ipyrescue.pickling.groups import Immutability

if TYPE_CHECKING:
    from pathlib import Path

    from namespaces import Life

ODD = {
    "a half-made module": "import torch\nclass N(torch.nn.Module):\n    def __init__(self): pass\nodd = N()",
    "a half-made optimizer": "import torch\nclass O(torch.optim.SGD):\n    def __init__(self): pass\nodd = O()",
    "an attribute access that raises": """
class Hostile:
    def __getattribute__(self, name): raise RuntimeError(name)
odd = Hostile()""",
    "a class property that raises": """
class Liar:
    @property
    def __class__(self): raise RuntimeError("no")
odd = Liar()""",
    "an exception that is none": """
class Panic(BaseException): pass
class Rude:
    def __getstate__(self): raise Panic()
odd = Rude()""",
    "an exception that cannot be shown": """
class Mute(Exception):
    def __str__(self): raise RuntimeError("no")
class Rude:
    def __reduce__(self): raise Mute()
odd = Rude()""",
    "an exit": "class Leaver:\n    def __reduce__(self): raise SystemExit(3)\nodd = Leaver()",
}


@pytest.mark.parametrize("source", ODD.values(), ids=ODD)
def test_an_odd_object_does_not_cost_the_snapshot(life: Life, source: str) -> None:
    """Whatever it does when it is looked at or pickled, the rest is saved and comes back."""
    life.run(f"kept = [1, 2]\n{source}")

    life.checkpoint()
    after = reborn(life)
    after.restore()

    assert after.names["kept"] == [1, 2]


def test_an_unpickling_that_raises_costs_its_own_name(life: Life) -> None:
    """Also when it raises what is no Exception; and what shares objects with it."""
    life.run("""
kept = 1
class Panic(BaseException): pass
class Late:
    def __reduce__(self): return boom, ()
def boom(): raise Panic()
late = Late()
""")
    life.checkpoint()
    after = reborn(life)

    restored = after.restore()

    assert after.names["kept"] == 1
    assert {s.name for s in restored.skipped} == {"late", "boom"}


def test_seeds_reach_restored_random_functions(life: Life) -> None:
    """`randint` bound by name stays the one that `random.seed` seeds."""
    import random

    life.run("from random import randint\nimport numpy as np\nfrom numpy.random import rand")
    names = round_trip(life)
    random.seed(0)
    drawn = names["randint"](0, 10**9)
    names["np"].random.seed(0)
    random.seed(0)

    assert drawn == random.randint(0, 10**9)
    assert names["rand"]() == pytest.approx(0.5488135, abs=1e-6)


def test_a_restored_dataclass_can_be_subclassed(life: Life) -> None:
    """`dataclasses.MISSING` stays the one that dataclasses ask for."""
    life.run("import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int")
    life.checkpoint()
    after = reborn(life)
    after.restore()

    names = after.run("@dataclasses.dataclass\nclass B(A):\n    w: int")

    assert names["B"](1, 2).w == 2


def test_functions_of_one_script_keep_sharing_their_globals(life: Life) -> None:
    """What `%run` or `exec` made over one namespace stays over one."""
    life.run("""
script = {}
exec("n = 0\\ndef up():\\n    global n\\n    n += 1\\ndef now():\\n    return n", script)
up, now = script["up"], script["now"]
del script
up()
""")

    names = round_trip(life)
    names["up"]()

    assert names["now"]() == 2


def test_exceptions_come_back_without_their_init(life: Life) -> None:
    """One whose `__init__` wants other arguments than it kept."""
    life.run("""
class MyError(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b
error = MyError(1, 2)
""")

    names = round_trip(life)

    assert (names["error"].args, names["error"].b) == ((1,), 2)
    assert isinstance(names["error"], names["MyError"])


def test_locks_come_back_open(life: Life) -> None:
    """Whoever held a lock is gone; a large value beside it costs no slow pickler."""
    life.run("import threading\nheld = threading.Lock()\nheld.acquire()\nbox = {'rows': [{}] * 10, 'lock': held}")

    names = round_trip(life)

    assert names["box"]["lock"] is names["held"]
    assert names["held"].acquire(blocking=False)


def test_hooks_and_graphs_that_are_lost_are_told(life: Life) -> None:
    """A gradient hook or a graph inside a list cannot be kept, and that is said by name."""
    life.run("""
import torch
model = torch.nn.Linear(2, 2)
model.weight.register_hook(lambda g: g * 10)
losses = [model(torch.ones(1, 2)).sum()]
""")

    told = " ".join(life.checkpoint().warnings)

    assert "gradient hooks dropped: model" in told
    assert "autograd graph dropped: losses" in told


def test_a_small_view_of_a_huge_mapped_file_is_small(life: Life) -> None:
    """Ten numbers of a file of 400 GB are ten numbers."""
    life.run("""
import numpy as np, tempfile
file = tempfile.NamedTemporaryFile()
file.truncate(400 * 10**9)
y = np.asarray(np.memmap(file.name, mode="r", dtype="u1")[:10])
""")

    snapshot = life.checkpoint(exclude=("file",))

    assert snapshot.size_bytes < 100_000
    assert "y" in {v.name for v in snapshot.variables}
    life.names["file"].close()


def test_what_names_share_is_told_without_a_metaclass(life: Life) -> None:
    """Types are compared by identity: the `__hash__` and `__eq__` of a metaclass may do anything."""
    life.run("""
asked = []
class Meta(type):
    def __hash__(cls): asked.append("hash"); return 0
    def __eq__(cls, other): asked.append("eq"); return False
class Odd(metaclass=Meta): pass
odd = Odd()
""")
    shared = Immutability()

    assert not shared(life.names["odd"])
    assert not shared((1, life.names["odd"]))
    assert life.names["asked"] == []


def test_a_snapshot_runs_no_module_of_the_user(life: Life, tmp_path: Path) -> None:
    """A class of a module that is no longer in `sys.modules` goes by value: to import it would run its file."""
    (tmp_path / "train_script.py").write_text(
        "import builtins\nbuiltins.runs += 1\nclass Cfg: pass\ndef h(): return 7\n"
    )
    life.run(f"""
import builtins, sys
builtins.runs = 0
sys.path.insert(0, {str(tmp_path)!r})
from train_script import Cfg, h
c = Cfg()
del sys.modules["train_script"]
""")

    names = round_trip(life)

    assert builtins.runs == 1
    assert "train_script" not in sys.modules
    assert names["h"]() == 7
    assert type(names["c"]) is names["Cfg"]
    sys.path.remove(str(tmp_path))
    del builtins.runs


def test_a_class_whose_module_nobody_imported_stays_the_librarys(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """`numpy.recarray` says that it lives in `numpy.rec`: a restore must not make another one of it."""
    monkeypatch.delitem(sys.modules, "numpy.rec", raising=False)
    life.run("import numpy as np\nrec = np.zeros(2, dtype=[('a', 'i4')]).view(np.recarray)")

    names = round_trip(life)

    assert type(names["rec"]) is names["np"].recarray
