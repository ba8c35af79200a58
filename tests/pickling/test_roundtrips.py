"""What is in a namespace comes back as it was: identity, memory, code, bit for bit."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from namespaces import Life, reborn, round_trip

TRAINING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("scratch", torch.ones(2), persistent=False)
    def forward(self, x):
        return self.norm(self.second(self.first(x)))

model = Net()
opt = torch.optim.AdamW(model.parameters(), lr=0.1)
sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda epoch: 0.5 ** epoch)
def train(steps):
    for _ in range(steps):
        opt.zero_grad()
        model(torch.randn(4, 8)).square().mean().backward()
        opt.step()
        sched.step()
train(3)
weight = model.first.weight
"""


def test_an_optimizer_still_points_at_the_parameters(life: Life) -> None:
    """`opt.param_groups` holds the very parameters, and its state is keyed by them."""
    life.run(TRAINING)

    names = round_trip(life)

    parameters = list(names["model"].parameters())
    assert all(a is b for a, b in zip(parameters, names["opt"].param_groups[0]["params"], strict=True))
    assert all(p in names["opt"].state for p in parameters)
    assert names["sched"].optimizer is names["opt"]
    assert names["weight"] is names["model"].first.weight is names["model"].second.weight
    assert names["weight"].grad is not None


def test_training_goes_on_bit_for_bit(life: Life) -> None:
    """Training after a restore equals training that was never interrupted, random numbers included."""
    life.run(TRAINING)
    life.checkpoint()
    life.run("train(5)")
    after = reborn(life)
    after.restore()
    after.run("train(5)")

    then, now = life.names["model"].state_dict(), after.names["model"].state_dict()

    assert then.keys() == now.keys()
    assert all(torch.equal(then[key], now[key]) for key in then)
    assert life.names["sched"].state_dict()["last_epoch"] == after.names["sched"].state_dict()["last_epoch"]


def test_tensors_are_listed_by_dotted_name(life: Life) -> None:
    """A reader finds `model.first.weight` and the optimizer's moments in the manifest, without unpickling."""
    life.run(TRAINING)

    snapshot = life.checkpoint()

    tensors = {t.name: t for group in snapshot.groups for t in group.tensors}
    assert tensors["model.first.bias"].dtype == "float32"
    assert tensors["model.first.bias"].shape == (8,)
    assert "opt.state.0.exp_avg" in tensors


def test_arrays_are_listed_by_dotted_name(life: Life) -> None:
    """Also in containers, and without torch's help; what an object holds has no path that a reader could follow."""
    life.run(
        "import numpy as np\nx = np.arange(3)\nlogs = {'loss': [np.ones(2), 1]}\nboxed = np.array([x + 1, 0], object)"
    )

    snapshot = life.checkpoint()

    assert {t.name for g in snapshot.groups for t in g.tensors if g.kind == "data"} == {"x", "logs.loss.0", ""}


TENSORS = {
    "float32": "torch.randn(3, 4)",
    "bfloat16": "torch.randn(5).bfloat16()",
    "float16": "torch.randn(5).half()",
    "complex64": "torch.randn(4, dtype=torch.complex64)",
    "bool": "torch.tensor([True, False])",
    "int64 0-d": "torch.tensor(7)",
    "empty": "torch.empty(0, 3)",
    "transposed": "torch.arange(12.).reshape(3, 4).T",
    "expanded": "torch.ones(1, 3).expand(4, 3)",
    "conjugate view": "torch.randn(3, dtype=torch.complex64).conj()",
    "negative zero and NaN payload": "torch.tensor([-0.0, float('nan')])",
    "sparse": "torch.eye(4).to_sparse()",
    "csr": "torch.eye(4).to_sparse_csr()",
    "fp8": "torch.randn(4).to(torch.float8_e4m3fn)",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", TENSORS.values(), ids=TENSORS)
def test_a_tensor_of_any_kind_comes_back(life: Life, source: str) -> None:
    """Values, dtype, shape and layout survive, bit for bit."""
    life.run(f"import torch\nt = {source}")

    then, now = life.names["t"], round_trip(life)["t"]

    assert (then.dtype, then.shape, then.layout) == (now.dtype, now.shape, now.layout)
    if then.layout is torch.strided:
        assert then.stride() == now.stride()
        then, now = (t.resolve_conj().contiguous().view(torch.uint8) for t in (then.flatten(), now.flatten()))
        assert torch.equal(then, now)
    else:
        assert torch.equal(then.to_dense(), now.to_dense())


def test_views_share_memory_across_libraries(life: Life) -> None:
    """A tensor, its view, the array it was made from and the array's view stay one piece of memory."""
    life.run("""
import numpy as np, torch
array = np.arange(10.)
backwards = array[::-2]
tensor = torch.from_numpy(array)
middle = tensor[3:5]
""")

    names = round_trip(life)
    names["array"][3] = 99.0

    assert names["tensor"][3] == 99.0
    assert names["middle"][0] == 99.0
    assert names["backwards"][3] == 99.0


def test_two_names_of_one_object_stay_one(life: Life) -> None:
    """Aliases, cycles and shared containers keep their identity, also inside other objects."""
    life.run("""
history = []
config = {"history": history, "lr": 0.1}
class Trainer: pass
trainer = Trainer()
trainer.config = config
trainer.itself = trainer
also = trainer
big = [{"n": i} for i in range(5000)]
row = big[17]
""")

    names = round_trip(life)

    assert names["config"]["history"] is names["history"]
    assert names["trainer"].config is names["config"]
    assert names["trainer"].itself is names["trainer"] is names["also"]
    assert names["big"][17] is names["row"]


def test_immutable_values_do_not_tie_names_together(life: Life) -> None:
    """Sharing a string, a dtype, a class or a module is no reason to encode names as one."""
    life.run("""
import numpy as np
word = "shared"
first = {"word": word, "kind": np.dtype("float32"), "of": dict, "size": (3, 3)}
second = {"word": word, "kind": np.dtype("float32"), "of": dict, "size": first["size"]}
a = np.zeros(4); b = np.zeros(4)
""")

    snapshot = life.checkpoint()

    assert all(len(group.names) <= 1 for group in snapshot.groups)


def test_classes_of_cells_come_back_with_their_instances(life: Life) -> None:
    """`isinstance`, Enum identity, dataclass equality, slots, metaclasses, generics and NamedTuples hold."""
    life.run("""
import dataclasses, enum, typing
class Color(enum.Enum):
    RED = 1
@dataclasses.dataclass
class Point:
    x: int = 3
class Slots:
    __slots__ = ("a",)
class Meta(type):
    made = []
    def __new__(m, n, b, d):
        cls = super().__new__(m, n, b, d); m.made.append(cls); return cls
class Made(metaclass=Meta): pass
class Pair(typing.NamedTuple):
    a: int
    b: str = "x"
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def get(self) -> T: ...
class Base:
    def who(self): return "base"
class Child(Base):
    def who(self): return "child of " + super().who()
red, point, slots, made, pair, box, child = Color.RED, Point(4), Slots(), Made(), Pair(1), Box(), Child()
slots.a = 5
""")

    names = round_trip(life)

    assert names["red"] is names["Color"].RED
    assert names["point"] == names["Point"](4)
    assert names["slots"].a == 5
    assert names["Meta"].made == [names["Made"]]
    assert names["pair"] == names["Pair"](1, "x")
    assert type(names["box"]) is names["Box"]
    assert names["child"].who() == "child of base"


def test_functions_see_the_live_namespace(life: Life) -> None:
    """A restored function's globals are the namespace itself; recursion and shared closure cells hold."""
    life.run("""
factor = 10
def scale(x): return x * factor
def factorial(n): return 1 if n < 2 else n * factorial(n - 1)
def counter():
    n = 0
    def up():
        nonlocal n; n += 1; return n
    def now(): return n
    return up, now
up, now = counter()
up()
def make():
    def inner(n): return 0 if n == 0 else 1 + inner(n - 1)
    return inner
inner = make()
""")

    names = round_trip(life)
    names["factor"] = 3

    assert names["scale"].__globals__ is names
    assert names["scale"](2) == 6
    assert names["factorial"](5) == 120
    assert names["inner"](4) == 4
    assert (names["up"](), names["now"]()) == (2, 2)


def test_a_hash_that_needs_a_global_finds_it(life: Life) -> None:
    """Imports and functions are bound before containers whose keys hash by them."""
    life.run("""
import zlib
class Key:
    def __init__(self, x): self.x = x
    def __hash__(self): return zlib.crc32(self.x)
    def __eq__(self, other): return self.x == other.x
table = {Key(b"a"): 1}
""")

    names = round_trip(life)

    assert names["table"][names["Key"](b"a")] == 1


def test_decoding_leaves_live_classes_alone(life: Life) -> None:
    """A restore into a namespace with an edited class builds fresh classes and does not rewrite the live one."""
    life.run("class Net:\n    lr = 1\n    def f(self): return 'old'\nnet = Net()")
    life.checkpoint()
    live = life.run("Net.lr = 2")["Net"]

    life.restore()

    assert live.lr == 2
    assert life.names["Net"].lr == 1
    assert isinstance(life.names["net"], life.names["Net"])


def test_what_refuses_costs_only_its_name(life: Life) -> None:
    """A generator, an open file and what holds them are Skipped with reasons; the rest is saved."""
    life.run("""
import threading
gen = (i for i in range(3))
holder = {"inside": gen}
file = open(__import__("os").devnull)
lock = threading.Lock()
kept = [1, 2]
""")

    snapshot = life.checkpoint()

    reasons = {s.name: s.reason for s in snapshot.skipped}
    assert reasons["gen"] == "generator"
    assert "generator" in reasons["holder"]
    assert reasons["file"] == "an open file"
    assert {"kept", "lock"} <= {v.name for v in snapshot.variables}
    life.names["file"].close()


def test_random_streams_are_read_not_drawn_from(life: Life) -> None:
    """A checkpoint leaves every global random stream where it was; a full restore rewinds it."""
    import random

    life.run("x = 1")
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    life.checkpoint()
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    after = reborn(life)
    after.restore()

    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


def test_the_users_pickle_and_cloudpickle_are_unchanged(life: Life) -> None:
    """While dill and cloudpickle work for us, `pickle` of the user refuses what it refused before."""
    import pickle

    before = set(pickle._Pickler.dispatch)
    life.run("import threading\nlock = threading.Lock()")
    round_trip(life)

    assert set(pickle._Pickler.dispatch) == before
    with pytest.raises(TypeError):
        pickle.dumps(life.names["lock"])


def test_dill_is_asked_only_for_what_it_knows(life: Life) -> None:
    """A generator, a connection and a loader's iterator are refused at once; a `super` object goes by dill."""
    life.run("""
import functools, sqlite3, torch
gen = (i for i in "ab")
connection = sqlite3.connect(":memory:")
iterator = iter(torch.utils.data.DataLoader([1, 2]))
parent = super(bool, True)
@functools.lru_cache
def cached(x): return x + 1
""")

    snapshot = life.checkpoint()
    after = reborn(life)
    after.restore()

    encoders = {name: group.encoder for group in snapshot.groups for name in group.names}
    assert {s.name for s in snapshot.skipped} == {"gen", "connection", "iterator"}
    assert (encoders["parent"], encoders["cached"]) == ("dill", "pickle")
    assert after.names["cached"](1) == 2
    assert after.names["parent"].__add__(1) == 2
    life.names["connection"].close()


def test_what_typing_makes_in_a_cell_comes_back(life: Life) -> None:
    """NewType and ParamSpec pickle by a name of `__main__`, which a new kernel does not have: they go by value."""
    life.run("""
import typing
UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
users = {"first": UserId}
""")

    names = round_trip(life)

    assert names["UserId"](5) == 5
    assert names["users"]["first"] is names["UserId"]
    assert names["UserId"].__supertype__ is int
    assert names["P"].__name__ == "P"


def test_unrelated_variables_are_groups_of_their_own(life: Life) -> None:
    """What everybody shares ties nobody together: texts, types, modules, constants, and what libraries share."""
    life.run("""
import collections, dataclasses, datetime, decimal, enum, json, logging, math, pathlib, re, sys, zoneinfo
from typing import List, Literal, Optional
import numpy as np, pandas as pd, torch
Point = collections.namedtuple("Point", "x y")
def maybe(x: Optional[int]) -> List[str]: return x
def perhaps(x: Optional[int]) -> List[str]: return x
number, point, zone, union, generic = np.float64(1), Point(1, (2,)), zoneinfo.ZoneInfo("UTC"), int | str, dict[str, int]
stamp = pd.Timestamp(1)
class Colour(enum.Enum): RED = 1
class Net(torch.nn.Module): pass
def square(x): return x * x
text, pair, moment, path = "a text", (1, ("two", 3.0)), datetime.datetime(2026, 1, 1), pathlib.PurePath("a")
everything = lambda: {
    "text": text, "pair": pair, "moment": moment, "path": path, "colour": Colour.RED, "type": Net, "module": json,
    "dtype": np.dtype("f4"), "torch": torch.float32, "device": torch.device("cpu"), "sqrt": math.sqrt,
    "loads": json.loads, "logger": logging.getLogger("a"), "decimal": decimal.Decimal(1), "none": None, "flag": True,
    "pattern": re.compile("a"), "nan": math.nan, "big": 10 ** 30, "range": range(5), "bytes": b"abc",
    "NA": pd.NA, "NaT": pd.NaT, "ufunc": np.sin, "optional": Optional[int], "lists": List[str], "literal": Literal["a"],
    "union": union, "generic": generic, "missing": dataclasses.MISSING, "zone": zone, "version": sys.version_info,
    "stamp": stamp, "delta": pd.Timedelta(1), "interval": pd.Interval(0, 1), "period": pd.Period("2026"),
    "number": number, "point": point, "utc": pd.DatetimeTZDtype(tz="UTC"),
    "nullable": pd.Int64Dtype(), "record": np.dtype("i4,f4"), "aware": datetime.datetime(2026, 1, 1, tzinfo=zone),
}
one, two = everything(), everything()
first, second = pd.DataFrame({"x": [1]}), pd.DataFrame({"y": ["a"]})
third, fourth = pd.Series([1]), pd.Series(["a"], name="s")
fifth, sixth = pd.MultiIndex.from_product([[1], ["a"]]), pd.Categorical(["a"])
""")

    groups = [group.names for group in life.checkpoint().groups]

    assert [names for names in groups if len(names) > 1] == []


def test_globals_is_the_namespace_itself(life: Life) -> None:
    """`g = globals()` sees what comes later, and copies nothing."""
    life.run("x = [1]; g = globals()")

    after = reborn(life)
    life.checkpoint()
    after.restore()

    assert after.names["g"] is after.names


def test_functions_of_exec_share_their_namespace(life: Life) -> None:
    """What `exec(code, ns)` defines looks into `ns`, and writes there."""
    life.run("""
ns = {"x": 1, "out": []}
exec("def get(): return x\\ndef put(v):\\n    global x\\n    x = v", ns)
get = ns["get"]
""")

    names = round_trip(life)

    names["ns"]["put"](7)
    assert names["get"] is names["ns"]["get"]
    assert names["get"].__globals__ is names["ns"]
    assert names["get"]() == names["ns"]["x"] == 7


def test_the_dictionary_of_an_object_is_its_own_again(life: Life) -> None:
    """`config = vars(args)` sees what `args` is given, whoever holds it and in whatever order they are named."""
    life.run("""
import argparse, types, torch
holder = {"config": None}
config = vars(args := argparse.Namespace(lr=1, log=[]))
holder["config"] = config
args.holder = holder
of_net = (net := torch.nn.Linear(2, 2)).__dict__
inner = vars(space := types.SimpleNamespace(a=1))
class Slotted:
    __slots__ = ("x", "__dict__")
slotted = Slotted(); slotted.x = 1; slotted.y = [2]; of_slotted = vars(slotted)
class Made:
    def __setstate__(self, state): self.__dict__.update(state, again=True)
of_made = vars(made := Made()); made.x = 1
class Copied:
    def __getstate__(self): return self.__dict__.copy()
    def __setstate__(self, state): self.__dict__ = state
of_copied = vars(copied := Copied()); copied.x = 1
""")

    names = round_trip(life)

    assert names["config"] is vars(names["args"]) is names["holder"]["config"]
    assert names["args"].holder is names["holder"]
    assert names["of_net"] is vars(names["net"])
    assert names["inner"] is vars(names["space"])
    assert names["of_made"] is vars(names["made"])
    assert names["of_made"] == {"x": 1, "again": True}
    assert names["of_copied"] is vars(names["copied"])
    assert names["copied"].x == 1
    assert (names["slotted"].x, names["slotted"].y, names["of_slotted"]) == (1, [2], {"y": [2]})


def test_an_object_that_is_its_own_dictionary_is_so_again(life: Life) -> None:
    """The idiom `self.__dict__ = self`, alone, nested and beside a dictionary of the same class that has none."""
    life.run("""
class AttrDict(dict):
    def __init__(self, own=True, **items):
        super().__init__(**items)
        if own: self.__dict__ = self
plain = AttrDict(own=False, a=1)
cfg = AttrDict(lr=1, deeper=AttrDict(n=2), plain=plain)
cfg.me = cfg
""")

    names = round_trip(life)

    cfg = names["cfg"]
    assert vars(cfg) is cfg is cfg.me
    assert vars(cfg.deeper) is cfg["deeper"]
    assert (cfg.lr, cfg.deeper.n, vars(cfg.plain)) == (1, 2, {})
    assert cfg.plain is names["plain"]


def test_functions_of_a_loose_module_share_its_variables(life: Life) -> None:
    """A module that no import finds is a value; what it defines goes on looking into it, under any name."""
    life.run("""
import types
loose = types.ModuleType("loose")
exec("count = 0\\ndef bump():\\n    global count\\n    count += 1\\n    return count\\nclass Kept: pass", vars(loose))
bump, kept, modules = loose.bump, loose.Kept(), {"loose": loose}
bump()
""")

    names = round_trip(life)

    assert names["bump"] is names["loose"].bump
    assert names["modules"]["loose"] is names["loose"]
    assert type(names["kept"]) is names["loose"].Kept
    assert names["bump"]() == names["loose"].bump() - 1 == names["loose"].count - 1 == 2
    assert "loose" not in sys.modules


def test_views_show_the_dictionary_that_they_are_of(life: Life) -> None:
    """`d.keys()`, `d.values()` and `d.items()` see what `d` is given."""
    life.run("d = {'a': 1}; keys, values, items = d.keys(), d.values(), d.items(); alone = {'b': 2}.values()")

    names = round_trip(life)

    names["d"]["c"] = 3
    assert [*names["keys"]] == ["a", "c"]
    assert [*names["values"]] == [1, 3]
    assert [*names["items"]] == [("a", 1), ("c", 3)]
    assert [*names["alone"]] == [2]


def test_a_class_inside_another_keeps_its_whole_name(life: Life) -> None:
    life.run("class Outer:\n    class Inner: pass\ninner = Outer.Inner()")

    names = round_trip(life)

    assert type(names["inner"]).__qualname__ == "Outer.Inner"
    assert names["Outer"].Inner is type(names["inner"])
