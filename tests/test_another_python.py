"""Snapshots of another Python: data come back, bytecode never runs, and what cannot come is named."""

from __future__ import annotations

import pytest
from namespaces import Life, reborn

from ipyrescue import environment

NAMESPACE = """
import collections, enum, pathlib, random, threading, torch
from dataclasses import dataclass

config = {"lr": 1e-3, "layers": [64, 32]}
weights = torch.arange(4.0)
linear = torch.nn.Linear(2, 2)
path = pathlib.Path("runs") / "1"
grouped = collections.defaultdict(list, a=[1])
rng = random.Random(3)
lock = threading.Lock()

class Plain: pass
class Color(enum.Enum):
    RED = 1
class Access(enum.IntFlag):
    READ = 4
    WRITE = 2
plain, red, access = Plain(), Color.RED, Access.READ

def double(x): return 2 * x
code = double.__code__
table = {"double": double, "deep": [[lambda: 1]]}
by_dill = {"parent": super(bool, True), "function": double}
doubled = collections.defaultdict(lambda: 2)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
@dataclass
class Point:
    x: int
point = Point(4)
nets = [net]
"""
DATA = {"config", "weights", "linear", "path", "grouped", "rng", "lock", "plain", "red", "access"}
DATA |= {"Plain", "Color", "Access"}
BYTECODE = {"double", "code", "table", "by_dill", "doubled", "Net", "Point"}
DEPENDANTS = {"net", "opt", "point", "nets"}


@pytest.fixture
def made_by_another(life: Life, monkeypatch: pytest.MonkeyPatch) -> Life:
    """A life whose snapshot says that Python 3.9 made it."""
    life.run(NAMESPACE)
    ours = environment.process()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "process", lambda: {**ours, environment.PYTHON: "3.9.18"})
        life.checkpoint()
    return life


def test_data_come_back_and_the_rest_is_named(made_by_another: Life) -> None:
    """Bytecode of another Python could crash this one; what needs none is bound."""
    after = reborn(made_by_another)

    restored = after.restore()

    assert {g.encoder for g in restored.snapshot.groups if "by_dill" in g.names} == {"dill"}
    here = environment.python(environment.process())
    reasons = {skipped.name: skipped.reason for skipped in restored.skipped}
    assert reasons.keys() == BYTECODE | DEPENDANTS
    assert {reasons[name] for name in BYTECODE} == {f"made by Python 3.9, this is {here}"}
    assert reasons["net"] == reasons["opt"] == f"needs Net, which did not come back: {reasons['Net']}"
    assert set(restored.names) >= DATA
    assert after.names["plain"].__class__ is after.names["Plain"]
    assert after.names["red"] is after.names["Color"].RED
    assert after.names["rng"].random() == made_by_another.names["rng"].random()


def test_the_python_stands_among_the_differences(made_by_another: Life) -> None:
    (difference,) = reborn(made_by_another).restore().differences

    assert (difference.key, difference.then) == ("python", "3.9.18")
    assert "a kernel of Python 3.9" in difference.advice


def test_what_belongs_to_classes_comes_with_those_of_this_python(made_by_another: Life) -> None:
    """The report has the line: run the cells of the classes, then --keep-classes."""
    after = reborn(made_by_another)
    (told,) = (warning for warning in after.restore().warnings if "--keep-classes" in warning)
    assert "Net, Point cannot come from Python 3.9" in told
    after.run(NAMESPACE.partition("class Net")[0] + "class Net" + NAMESPACE.partition("class Net")[2])
    weight = after.names["net"].fc.weight
    names = told.partition("%restore_vars ")[2].split()[:-2]
    assert set(names) == DEPENDANTS

    restored = after.restore(*names, keep_classes=True)

    before, now = made_by_another.names, after.names
    assert set(restored.names) == DEPENDANTS
    assert now["net"].fc.weight is not weight
    assert now["net"].fc.weight.equal(before["net"].fc.weight)
    assert type(now["net"]) is now["Net"]
    assert now["opt"].param_groups[0]["params"][0] is now["net"].fc.weight is now["nets"][0].fc.weight
    assert now["point"] == now["Point"](4)


def test_a_class_that_fails_before_its_bytecode_fails_for_the_same_reason(
    made_by_another: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dataclass keeps beside its methods has other fields in each Python."""
    from ipyrescue.pickling import classes

    def fail(*_: object) -> None:
        raise AttributeError("no attribute 'match_args'")

    monkeypatch.setattr(classes, "make_class", fail)

    reasons = {skipped.name: skipped.reason for skipped in reborn(made_by_another).restore().skipped}

    assert reasons["Point"].startswith("made by Python 3.9, this is Python ")
    assert reasons["Point"].endswith("(AttributeError: no attribute 'match_args')")


def test_the_same_python_says_nothing(life: Life) -> None:
    life.run(NAMESPACE)
    life.checkpoint()
    after = reborn(life)

    restored = after.restore()

    assert restored.differences == ()
    assert restored.skipped == ()
    assert after.names["double"](2) == 4


def test_a_class_method_of_a_library_goes_by_its_name(life: Life) -> None:
    """Its bytecode is the library's: another Python has its own."""
    life.run("import pathlib, pandas\nread, home = pandas.DataFrame.from_dict, pathlib.Path.cwd")
    life.checkpoint()
    after = reborn(life)
    after.restore()

    assert after.names["read"] == life.names["read"]
    assert after.names["home"]() == life.names["home"]()


@pytest.mark.parametrize("module", ["pathlib._local", "numpy._core.multiarray"])
def test_what_moved_is_found_where_it_was(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 pickles paths by a module that 3.12 does not have, NumPy 2 arrays by one that 1.24 does not have."""
    import pickle
    import sys

    from ipyrescue.pickling.pickler import GroupUnpickler

    old = module.replace("._local", "").replace("_core", "core")
    name = "PurePath" if "pathlib" in module else "_reconstruct"
    monkeypatch.setitem(sys.modules, module, None)
    home = type(sys)(old)
    setattr(home, name, marker := object())
    monkeypatch.setitem(sys.modules, old, home)
    stream = b"\x80\x05" + pickle.SHORT_BINUNICODE + bytes([len(module)]) + module.encode()
    stream += pickle.SHORT_BINUNICODE + bytes([len(name)]) + name.encode() + pickle.STACK_GLOBAL + pickle.STOP

    assert GroupUnpickler(stream, [], {"namespace": dict}).load() is marker


def test_what_is_nowhere_fails_as_before() -> None:
    from ipyrescue.pickling.pickler import GroupUnpickler

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        GroupUnpickler(b"cno_such_module\nx\n.", [], {"namespace": dict}).load()
