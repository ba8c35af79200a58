"""Objects taken apart by code of unknown manners: what it does to its process costs that object, and nothing here."""

from __future__ import annotations

import copyreg
import errno
import fractions
import os
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pandas
import pytest
from namespaces import reborn

from ipyrescue.capture.fence import Fence
from ipyrescue.errors import CheckpointError
from ipyrescue.pickling.buffers import Copies, OnDevice, Reference
from ipyrescue.pickling.trust import Trust

if TYPE_CHECKING:
    from namespaces import Life

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fence is made of Linux's fork")

HOSTILE = """
import os, time, ctypes
class Sleeps:
    def __reduce__(self): time.sleep(1e6)
class Exits:
    def __getstate__(self): os._exit(0)
class Crashes:
    def __reduce__(self): ctypes.string_at(0)
"""
OWN_CODE = """
import numpy as np
class Own:
    def __init__(self, held): self.held = held
    def __reduce__(self): return Own, (self.held,)
"""


class CountingFence(Fence):
    """A fence that knows how many children it had."""

    def __init__(self) -> None:
        super().__init__(deadline_seconds=0.5)
        self.children = 0

    def run(self, work: Any) -> Any:
        self.children += 1
        return super().run(work)


@pytest.fixture
def fenced(life: Life) -> Life:
    life.fence = CountingFence()
    return life


def reasons(life: Life) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in life.checkpoint().skipped}


def test_objects_that_end_their_process_are_named_and_the_rest_is_saved(fenced: Life) -> None:
    fenced.run(
        f"{HOSTILE}\nkept = [1, 2]\nsleeps, exits, crashes = Sleeps(), Exits(), Crashes()\nboxed = [sleeps, kept]"
    )

    assert reasons(fenced) == {
        "sleeps": "Sleeps, whose pickling did not end within 0.5 s",
        "exits": "Exits, whose pickling ends the process (exit status 0)",
        "crashes": "Crashes, whose pickling crashes the process (SIGSEGV)",
        "boxed": "list that holds Sleeps, whose pickling did not end within 0.5 s",
    }
    after = reborn(fenced)
    after.restore()
    assert after.names["kept"] == [1, 2]
    assert after.names["Sleeps"].__name__ == "Sleeps", "a class is no instance"


def test_what_ended_a_child_is_not_tried_again(fenced: Life) -> None:
    """Neither in the next snapshot, nor, when two of a kind did it, in any other of that kind."""
    fenced.run(f"{HOSTILE}\nmany = [Exits(), 1]\nmore = Exits()\nrest = [[Exits()] for _ in range(20)]")
    first = reasons(fenced)
    children = fenced.fence.children

    assert reasons(fenced) == first
    assert children == 3, "two that died, and one that came to the end"
    assert fenced.fence.children == children, "now none is needed"


def test_what_ended_a_child_is_tried_again_after_a_while(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that was held at the fork is free by then; nobody pays for it with the rest of the session."""
    fenced.run(f"{HOSTILE}\nexits = Exits()")
    reasons(fenced)
    later = time.monotonic() + 601
    monkeypatch.setattr("ipyrescue.pickling.fenced.time", types.SimpleNamespace(monotonic=lambda: later))
    children = fenced.fence.children

    assert set(reasons(fenced)) == {"exits"}
    assert fenced.fence.children > children


def test_plain_data_and_known_libraries_need_no_child(fenced: Life) -> None:
    """The price of the fence is paid by who holds code of unknown manners only."""
    fenced.run("""
import abc, collections, dataclasses, datetime, enum, functools, re, typing
import numpy as np, pandas as pd, torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)
    def forward(self, x): return self.fc(x)
    def training_step(self, batch): return self(batch)
    def train(self, mode=True): return super().train(mode)
    def extra_repr(self): return "mine"
    def state_dict(self, *a, **k): return super().state_dict(*a, **k)
    def parameters(self, recurse=True): return super().parameters(recurse)
    @torch.no_grad()
    def predict(self, x): return self(x)
    @property
    def device(self): return self.fc.weight.device
class Colour(enum.Enum): RED = 1
class Point(typing.NamedTuple):
    x: int
    def norm(self): return abs(self.x)
    def __repr__(self): return "point"
@dataclasses.dataclass(frozen=True, slots=True)
class Row: y: int
class Bag(dict):
    def total(self): return sum(self.values())
class Wrong(Exception):
    def __init__(self, code): super().__init__(code); self.code = code
    def __str__(self): return f"wrong {self.code}"
class Level(enum.IntEnum):
    LOW = 1
    @property
    def label(self): return self.name.title()
    def __str__(self): return "level"
    @classmethod
    def _missing_(cls, value): return cls.LOW
class Only(type):
    def __call__(cls, *arguments): return super().__call__(*arguments)
class Text(torch.utils.data.Dataset, metaclass=Only):
    def __init__(self, lines): self.lines = lines
    def __getitem__(self, i): return self.lines[i]
    def __len__(self): return len(self.lines)
    def __iter__(self): return iter(self.lines)
    def items(self): return self.lines
@dataclasses.dataclass
class Config:
    rate: float = 0.1
    activation: object = len
    row: object = Row(1)
    @property
    def doubled(self): return 2 * self.rate
    def __post_init__(self): pass
@functools.total_ordering
class Card:
    __slots__ = ("rank", "__weakref__")
    def __init__(self, rank): self.rank = rank
    def __eq__(self, other): return self.rank == other.rank
    def __lt__(self, other): return self.rank < other.rank
    def __hash__(self): return hash(self.rank)
    def __call__(self): return self
    @functools.cached_property
    def name(self): return str(self.rank)
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape, typing.Generic[typing.TypeVar("T")]):
    def area(self): return 1
class Scaler(TransformerMixin, BaseEstimator):
    def fit(self, x, y=None): return self
    def transform(self, x): return x
    def get_params(self, deep=True): return {}
class Slow(torch.optim.SGD):
    def step(self, closure=None): return super().step(closure)
net = Net()
slow = Slow(net.parameters(), lr=0.1)
mine = [Level.LOW, Text(["a"]), Config(), Card(1), Square(), Scaler()]
opt = torch.optim.AdamW(net.parameters())
loader = torch.utils.data.DataLoader(torch.arange(4))
frame, fit = pd.DataFrame({"a": [1, 2], "b": ["x", None]}), LinearRegression().fit([[1.0]], [1.0])
odd = [Colour.RED, Point(1), Row(2), Bag(a=1), Wrong("w"), functools.partial(int, base=2), re.compile("a"), print, len]
times = [datetime.datetime.now(), collections.Counter("aab"), collections.defaultdict(list), np.random.default_rng(1)]
def square(x): return x * x
""")

    assert reasons(fenced) == {}
    assert fenced.fence.children == 0


LOUD = """
import collections, copyreg, dataclasses, datetime, enum, fractions, functools, json, pathlib, pandas as pd
import numpy as np, sys, torch, types, weakref
from heard import say
class Asked:
    def __getattribute__(self, name): say(name); return object.__getattribute__(self, name)
    def __reduce__(self): return Asked, ()
    def __call__(self): pass
class Proxied:
    __class__ = property(lambda self: say("__class__"))
    def __reduce__(self): return Proxied, ()
asked, keyed = Asked(), {Asked(): 1}
proxy = weakref.proxy(asked)
class Text(str):
    def __format__(self, spec): say("__format__"); return ""
texts = {Text("k"): 1}
class Like(ValueError):
    def __eq__(self, other): say("__eq__"); return True
caused = ValueError("because of"); caused.__cause__ = Like()
wrapped = [types.MethodType(Asked(), 1), functools.lru_cache(len)]; wrapped[1].__wrapped__ = Asked()
class Lookalikes:
    held = Proxied()
    def method(self): pass

class Replay:
    @torch.no_grad()
    def __getstate__(self): say("__getstate__"); return {}
class Bound:
    __getstate__ = functools.partialmethod(lambda self: say("partialmethod"))
class Base: __slots__ = ("x",)
class Shadowing(Base):
    __slots__ = ()
    x = property(lambda self: say("slot"))
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen: x: int
class Melted(Frozen):
    __slots__ = ()
    x = property(lambda self: say("field"))
class Names(list):
    def __iter__(self): say("__slots__"); return super().__iter__()
class Slotted: pass
Slotted.__slots__ = Names(["x"])
methods = [Replay(), Bound(), Shadowing(), object.__new__(Melted), Slotted()]

class Failed(Exception): args = property(lambda self: say("args"))
class Caused(Exception): __cause__ = property(lambda self: say("__cause__"))
class Decoding(json.JSONDecodeError): msg = property(lambda self: say("msg"), lambda self, value: None)
class Queue(collections.deque):
    def __iter__(self): say("__iter__"); return super().__iter__()
class Set(set):
    def __len__(self): say("__len__"); return 0
class Ordered(collections.OrderedDict):
    def items(self): say("items"); return super().items()
class Zone(datetime.tzinfo):
    def __getinitargs__(self): say("__getinitargs__"); return ()
class Half(fractions.Fraction):
    _numerator = property(lambda self: say("_numerator"), lambda self, value: None)
class Frame(pd.DataFrame):
    _metadata = ["source"]
    source = property(lambda self: say("source"))
builtins = [Failed(), Caused(), Queue([1]), Set([1]), Ordered(a=1), Zone(), Half(1, 2)]
decoding = Decoding("m", "", 0)
frame = Frame({"a": [1]})
class Register:
    def __call__(self, value): say("copyreg"); return int, (1,)
copyreg.pickle(pd.Timedelta, Register())
copyreg.pickle(fractions.Fraction, functools.partial(lambda _, value: (say("copyreg partial"), (int, (1,)))[1], 1))
registered = [pd.Timedelta(1), fractions.Fraction(1, 2)]

class Array(np.ndarray):
    dtype = property(lambda self: say("dtype") or np.dtype(float))
    flags = property(lambda self: say("flags"))
class Hearing(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *arguments, **keywords):
        say("__torch_function__"); return super().__torch_function__(*arguments, **keywords)
class Strided(torch.Tensor): layout = property(lambda self: say("layout") or torch.strided)
class Net(torch.nn.Module):
    def named_modules(self, *a, **k): say("named_modules"); return []
    _parameters = property(lambda self: say("_parameters") or {}, lambda self, value: None)
class Groups(torch.optim.SGD):
    param_groups = property(lambda self: say("param_groups") or vars(self)["groups"],
                            lambda self, value: vars(self).update(groups=value))
array, strided, net = np.zeros(3).view(Array), torch.zeros(3).as_subclass(Strided), Net()
hearing = torch.zeros(3).as_subclass(Hearing)
layer = torch.nn.Linear(1, 1)
groups, opt = Groups(layer.parameters(), lr=0.1), torch.optim.SGD(layer.parameters(), lr=0.1)
opt.state[layer.weight]["lazy"] = Proxied()
opt.step = Asked()

class Getting(type):
    def __getattribute__(cls, name): say(f"metaclass {name}"); return type.__getattribute__(cls, name)
class Hashing(type):
    def __hash__(cls): say("metaclass __hash__"); return 1
class Equal(type):
    def __eq__(cls, other): say("metaclass __eq__"); return cls is other
    __hash__ = type.__hash__
class Meta(enum.EnumMeta):
    def __getattribute__(cls, name): say(f"enum {name}"); return super().__getattribute__(name)
class Named(type): __name__ = property(lambda cls: say("metaclass __name__") or "N", lambda cls, name: None)
class A(metaclass=Getting):
    def method(self): pass
class B(metaclass=Hashing): pass
class C(metaclass=Equal): pass
class N(metaclass=Named): pass
class Holding: held = C
class Kind(enum.Enum, metaclass=Meta): ONE = 1
class Valued(enum.Enum):
    ONE = 1
    value = property(lambda self: say("value"))
of_classes = [A(), B(), C(), N(), Kind.ONE, Valued.ONE]
a, b, c, n, kind = A(), B(), C(), N(), Kind.ONE

class Module(types.ModuleType):
    def __getattribute__(self, name): say(f"module {name}"); return super().__getattribute__(name)
module = Module("somewhere")
"""


def test_code_of_unknown_manners_is_not_run_in_this_process(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever way pickling, or what is done before and after it, might ask for an object, its class or its key."""
    said: list[str] = []
    heard = types.ModuleType("heard")
    heard.say = said.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "heard", heard)
    for kind in (fractions.Fraction, pandas.Timedelta):
        monkeypatch.setitem(copyreg.dispatch_table, kind, None)
    fenced.fence.deadline_seconds = 10
    fenced.run(LOUD)
    said.clear()

    fenced.checkpoint()

    assert sorted(set(said)) == []


def test_everything_comes_back_through_a_child(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes, functions, shared memory and identity: the child's groups are like those of this process."""
    monkeypatch.setattr(Trust, "knows", lambda self, kind: kind.__module__ == "builtins")
    fenced.run("""
import numpy as np, pandas as pd, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(300, 300)
net = Net()
opt = torch.optim.AdamW(net.parameters(), lr=0.5)
net.fc(torch.ones(300)).sum().backward(); opt.step()
sparse = torch.eye(400).to_sparse()
base = np.arange(100_000.0); view = base[10:20]; tensor = torch.from_numpy(base)
frame = pd.DataFrame({"a": base})
small = np.arange(3)
def double(x): return 2 * x + offset
offset = 1
""")

    assert reasons(fenced) == {}
    assert fenced.fence.children == 1
    after = reborn(fenced)
    after.restore()
    now = after.names
    assert type(now["net"]) is now["Net"]
    assert now["opt"].param_groups[0]["params"][0] is now["net"].fc.weight
    assert now["net"].fc.weight.equal(fenced.names["net"].fc.weight)
    assert now["sparse"].to_dense().equal(fenced.names["sparse"].to_dense())
    now["base"][15] = -1
    assert now["view"][5] == -1 == now["tensor"][15]
    assert now["frame"].equals(fenced.names["frame"])
    after.run("offset = 5; doubled = double(1)")
    assert now["doubled"] == 7


def test_memory_is_shared_between_what_the_child_met_and_what_it_did_not(fenced: Life) -> None:
    fenced.run(f"{OWN_CODE}\nbase = np.arange(50_000)\nown = Own(base[5:])\nfresh = Own(np.arange(60_000))")

    assert reasons(fenced) == {}
    after = reborn(fenced)
    after.restore()
    after.names["base"][7] = -1
    assert after.names["own"].held[2] == -1
    assert after.names["fresh"].held[-1] == 59_999


def test_an_object_that_changes_itself_while_it_is_pickled_stays_as_it_was(fenced: Life) -> None:
    fenced.run("""
class Connected:
    def __init__(self): self.line, self.pages = "open", [1]
    def __getstate__(self):
        state = self.__dict__
        del state["line"]
        return state
connected = Connected()
""")

    assert reasons(fenced) == {}
    assert fenced.names["connected"].line == "open"
    after = reborn(fenced)
    after.restore()
    assert vars(after.names["connected"]) == {"pages": [1]}


def test_one_that_dies_only_when_it_is_pickled_with_others_costs_its_group(fenced: Life) -> None:
    fenced.run("""
import os
class Twice:
    times = 0
    def __init__(self, held): self.held = held
    def __getstate__(self):
        Twice.times += 1
        if Twice.times > 1: os._exit(5)
        return self.__dict__
shared, kept = [1], [2]
twice = Twice(shared)
""")

    assert set(reasons(fenced)) == {"twice"}
    after = reborn(fenced)
    after.restore()
    assert (after.names["shared"], after.names["kept"]) == ([1], [2])


def test_one_that_changes_others_from_afar_does_so_in_vain(fenced: Life) -> None:
    """What its code does happens in the child; groups that it has no part in were pickled before."""
    fenced.run(f"""{OWN_CODE}
class Poisons:
    def __getstate__(self):
        shared.append("poison")
        return {{}}
shared = [1]
alias, own, poisons, other = {{"shared": shared}}, Own(1), Poisons(), Own(2)
""")

    assert reasons(fenced) == {}
    assert fenced.names["shared"] == [1]
    after = reborn(fenced)
    after.restore()
    assert after.names["alias"] == {"shared": [1]}
    assert after.names["alias"]["shared"] is after.names["shared"]


def test_a_death_that_nothing_is_marked_for_costs_one_variable(fenced: Life) -> None:
    """The halves of what was set aside are tried, until the one is found; the next snapshot does not look again."""
    fenced.run(f"""{OWN_CODE}
import os
class Closes:
    def __reduce__(self):
        os.closerange(3, 1024)
        return list, ()
first, second, third, closes, last = Own(1), Own(2), Own(3), [Closes()], Own(4)
""")

    assert set(reasons(fenced)) == {"closes"}
    children = fenced.fence.children
    assert set(reasons(fenced)) == {"closes"}
    assert fenced.fence.children == children + 1
    after = reborn(fenced)
    after.restore()
    assert [after.names[name].held for name in ("first", "second", "third", "last")] == [1, 2, 3, 4]


def test_a_class_that_was_run_again_has_another_chance(fenced: Life) -> None:
    fenced.run(f"{HOSTILE}\none, two = Exits(), Exits()")
    assert set(reasons(fenced)) == {"one", "two"}

    fenced.run("class Exits:\n    def __getstate__(self): return {}\none, two = Exits(), Exits()")

    assert reasons(fenced) == {}


def test_a_child_cannot_have_code_run_here(fenced: Life) -> None:
    """What it hands over is read without any class of the user."""
    fenced.run("""
class Loaded(str):
    def __reduce__(self): return (exec, ("raise SystemExit",))
class Odd:
    def __reduce__(self): raise ValueError(Loaded("text"))
odd, kept = Odd(), 1
""")

    assert set(reasons(fenced)) == {"odd"}


def test_without_a_child_to_be_had_all_is_done_here(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_child(work: Any) -> Any:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(fenced.fence, "run", no_child)
    fenced.run(f"{OWN_CODE}\nown = Own([1])")

    assert reasons(fenced) == {}
    after = reborn(fenced)
    after.restore()
    assert after.names["own"].held == [1]


def test_what_ended_a_child_is_not_tried_here_when_there_is_no_other(
    fenced: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = fenced.fence.run

    def one_child(work: Any) -> Any:
        if fenced.fence.children:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return had(work)

    monkeypatch.setattr(fenced.fence, "run", one_child)
    fenced.run(f"{HOSTILE}{OWN_CODE}\nexits, own = Exits(), Own([1])")

    assert set(reasons(fenced)) == {"exits"}


def test_memory_of_a_device_is_left_to_this_process(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has no CUDA context; what it came through without harm is pickled here, and what did harm is not."""
    copy = Copies._copy

    def as_if_on_a_device(self: Copies, device: str, start: int, size_bytes: int, owner: Reference) -> memoryview:
        if self.in_child and size_bytes == 8 * 70_000:
            raise OnDevice(device)
        return copy(self, device, start, size_bytes, owner)

    monkeypatch.setattr(Copies, "_copy", as_if_on_a_device)
    fenced.run(f"{HOSTILE}{OWN_CODE}\nown = Own(np.arange(70_000))\nexits = Exits()")

    assert set(reasons(fenced)) == {"exits"}
    after = reborn(fenced)
    after.restore()
    assert after.names["own"].held[-1] == 69_999


def test_a_copy_that_finds_no_memory_in_the_child_says_so(fenced: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copies._copy

    def no_memory(self: Copies, *where: Any) -> memoryview:
        if self.in_child:
            raise CheckpointError("no memory")
        return copy(self, *where)

    monkeypatch.setattr(Copies, "_copy", no_memory)
    fenced.run(f"{OWN_CODE}\nown = Own(np.arange(70_000))")

    with pytest.raises(CheckpointError, match="no memory"):
        fenced.checkpoint()


def test_what_nests_too_deep_for_a_kernel_is_pickled_on_a_deeper_stack(fenced: Life) -> None:
    fenced.fence.deadline_seconds = 60
    fenced.run("""
class Node:
    def __init__(self, next): self.next = next
head = None
for _ in range(3_000): head = Node(head)
pair = ()
for _ in range(1_000): pair = (pair, pair)
held = [pair]
""")

    assert reasons(fenced) == {}
    after = reborn(fenced)
    after.restore()
    node, length = after.names["head"], 0
    while node is not None:
        node, length = node.next, length + 1
    assert length == 3_000
    assert after.names["held"][0] is after.names["pair"]


def test_what_nests_without_end_is_named(fenced: Life) -> None:
    fenced.run("""
class Endless:
    def __getstate__(self): return Endless()
endless, kept = Endless(), 1
""")

    assert set(reasons(fenced)) == {"endless"}
