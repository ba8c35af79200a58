"""An exception that says that memory ran out, into hints: what holds the memory, by name, and what frees it.

Looks at the namespace, at the traceback and at the counters of torch's allocator; the report is texts and numbers only,
so it keeps nothing alive itself. No code of the user runs: types are known by identity, and classes of libraries are
read past the methods of what inherits from them. Torch is never imported, only asked when it is there.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Literal, NamedTuple

import psutil

from ipyrescue.incarnations.cause import advice
from ipyrescue.kernel.memory import memory_limit
from ipyrescue.settings import format_size
from ipyrescue.store.lives import Cause
from ipyrescue.wording import clean, count, listed, shortened

Kind = Literal["cuda", "cpu"]

_SHOWN = 5
_WALKED_SECONDS = 0.03
_WALKED_VALUES = 20_000
_CHAIN = 5
_NAME_CHARACTERS = 40
_TITLE_COLUMNS = 11
_HISTORY = ("Out", "_oh", "_", "__", "___")
_PLAIN_CONTAINERS = (list, tuple, set, frozenset, deque)
_PLAIN_MAPPINGS = (dict, defaultdict, OrderedDict)
_NO_ROOM_ON_THE_CPU = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
_FREE_A_TRACEBACK = "run a cell with 1/0 in it, then import gc; gc.collect()"


class Block(NamedTuple):
    """Memory of one tensor or array: *key* tells it from others, *has_graph* is a tensor with an autograd graph."""

    key: int
    size_bytes: int
    device: str
    has_graph: bool


class Device(NamedTuple):
    """What torch's allocator says of one device, in bytes."""

    name: str
    allocated_bytes: int
    reserved_bytes: int
    peak_bytes: int
    total_bytes: int


class Facts(NamedTuple):
    """Counters at the moment of the report: of the devices in use, of the process and of what limits it."""

    devices: tuple[Device, ...] = ()
    rss_bytes: int = 0
    limit_bytes: int | None = None


@dataclass(frozen=True)
class Holder:
    """A *name* and the memory that it keeps alone, or was the first to keep.

    *place* is the function it stands in, *graphs* how many of its tensors have an autograd graph.
    """

    name: str
    place: str
    size_bytes: int
    device: str
    graphs: int = 0

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else f" ({self.device})"
        return f"{self.name} {format_size(self.size_bytes)}{where}"


@dataclass(frozen=True)
class Shortage:
    """Who holds the memory that ran out: variables and names in the frames of the traceback, the largest first.

    Not *complete*: there was more than can be looked at while a cell waits.
    """

    kind: Kind
    facts: Facts
    variables: tuple[Holder, ...] = ()
    frames: tuple[Holder, ...] = ()
    complete: bool = True

    def __str__(self) -> str:
        """Lines for a terminal, ASCII."""
        what = "CUDA memory" if self.kind == "cuda" else "Memory"
        rows = [*self._counters(), *self._holders()]
        if not self.complete:
            rows.append(("", "There is more than could be looked at."))
        lines = [f"{what} ran out. What holds it, and what frees it:"]
        lines += [f"  {title:<{_TITLE_COLUMNS}}{text}" for title, text in rows]
        lines += [f"  {'':<{_TITLE_COLUMNS}}- {sentence}" for sentence in self.sentences()]
        return "\n".join(lines).encode("ascii", "backslashreplace").decode("ascii")

    def sentences(self) -> Iterator[str]:
        """What frees memory, what is most likely first."""
        if self.frames:
            held = format_size(sum(holder.size_bytes for holder in self.frames))
            yield f"The traceback keeps {held} alive. To let go of it: {_FREE_A_TRACEBACK}"
        graphs = [holder for holder in self.variables if holder.graphs > 1]
        if graphs:
            name, number = graphs[0].name, count(graphs[0].graphs, "tensor")
            yield f"{name} holds {number} with autograd graphs, which keep what they were made from: .item() is enough"
        if any(holder.name.startswith(("Out", "_")) for holder in self.variables):
            yield "Outputs of cells are kept as Out[n] and _: %reset -f out"
        kind = "cuda_out_of_memory" if self.kind == "cuda" else "out_of_memory"
        yield from advice(Cause(kind, "", ""))

    def _counters(self) -> Iterator[tuple[str, str]]:
        for device in self.facts.devices:
            allocated, reserved, peak, total = map(format_size, device[1:])
            of = f" of {total}" if device.total_bytes else ""
            yield device.name, f"{allocated} in tensors (at most {peak} so far), {reserved} held by the allocator{of}"
        if self.kind == "cpu":
            limit = self.facts.limit_bytes
            of = f" of {format_size(limit)}" if limit is not None else ""
            yield "process", f"{format_size(self.facts.rss_bytes)}{of}"

    def _holders(self) -> Iterator[tuple[str, str]]:
        for title, holders in (("variables", self.variables), ("traceback", self.frames)):
            if holders:
                yield title, listed([str(holder) for holder in holders], most=_SHOWN)


def hints(error: BaseException | None, namespace: Mapping[str, Any]) -> str | None:
    """A few lines after a cell that ran out of memory; None after any other error. Never raises."""
    try:
        short = _shortage_in(error)
        if short is None:
            return None
        kind, of = short
        return str(report(kind, of, namespace, facts_now(kind)))
    except Exception:  # noqa: BLE001 - a hook, and memory is short: no hints are better than another error
        return None


def report(kind: Kind, error: BaseException, namespace: Mapping[str, Any], facts: Facts) -> Shortage:
    """Find who holds memory of this *kind*, in *namespace* and in the traceback of *error*."""
    walk = _Walk(kind)
    variables = [walk.holder(name, value) for name, value in _in_order(namespace)]
    frames = [
        walk.holder(name, value, place)
        for frame in _frames(error, namespace)
        for place in (f"{frame.f_code.co_name}()",)
        for name, value in frame.f_locals.items()
    ]
    return Shortage(kind, facts, _largest(variables), _largest(frames), complete=walk.may_go_on)


def kind_of(error: BaseException) -> Kind | None:
    """Which memory an exception says has run out, if it says so."""
    kind = type(error)
    torch: Any = sys.modules.get("torch")
    known = getattr(torch, "OutOfMemoryError", None) or getattr(getattr(torch, "cuda", None), "OutOfMemoryError", None)
    if isinstance(known, type) and issubclass(kind, known):
        return "cuda"
    if issubclass(kind, MemoryError):
        return "cpu"
    if not issubclass(kind, RuntimeError):
        return None
    arguments = _of_exception("args", error)
    text = arguments[0] if arguments and type(arguments[0]) is str else ""
    if any(words in text for words in _NO_ROOM_ON_THE_CPU):
        return "cpu"
    return "cuda" if "CUDA" in text and "out of memory" in text else None


def facts_now(kind: Kind) -> Facts:
    """The counters of torch and of the process; they ask no driver."""
    limit = memory_limit() if kind == "cpu" else None
    return Facts(tuple(_devices()) if kind == "cuda" else (), psutil.Process().memory_info().rss, limit)


def _devices() -> Iterator[Device]:
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return
    for number in range(cuda.device_count()):
        reserved = cuda.memory_reserved(number)
        if reserved:
            of_device = cuda.memory_allocated(number), reserved, cuda.max_memory_allocated(number)
            yield Device(f"cuda:{number}", *of_device, cuda.get_device_properties(number).total_memory)


def _shortage_in(error: BaseException | None) -> tuple[Kind, BaseException] | None:
    """The exception of a chain that says that memory ran out, and which."""
    for _ in range(_CHAIN):
        if error is None:
            break
        kind = kind_of(error)
        if kind is not None:
            return kind, error
        cause = _of_exception("__cause__", error)
        error = cause if cause is not None else _of_exception("__context__", error)
    return None


def _of_exception(name: str, error: BaseException) -> Any:
    """An attribute that every exception has, past a property of the same name."""
    return BaseException.__dict__[name].__get__(error)


def _in_order(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names of the user first: what they keep is theirs; then what IPython keeps of outputs."""
    names = [name for name in list(namespace) if type(name) is str]
    for name in sorted(names, key=lambda name: name.startswith("_") or name in _HISTORY):
        value = namespace.get(name)
        if name == "Out" and type(value) is dict:
            yield from ((f"Out[{number}]", output) for number, output in list(value.items()) if type(number) is int)
        elif name not in _HISTORY:
            yield name, value


def _frames(error: BaseException, namespace: Mapping[str, Any]) -> Iterator[FrameType]:
    traceback: TracebackType | None = _of_exception("__traceback__", error)
    while traceback is not None:
        if traceback.tb_frame.f_locals is not namespace:
            yield traceback.tb_frame
        traceback = traceback.tb_next


def _largest(holders: Iterable[Holder | None]) -> tuple[Holder, ...]:
    return tuple(sorted((holder for holder in holders if holder is not None), key=lambda holder: -holder.size_bytes))


class _Walk:
    """Follows values to the memory below them; memory counts once, for the name that came to it first."""

    def __init__(self, kind: Kind) -> None:
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        nn, optim = getattr(torch, "nn", None), getattr(torch, "optim", None)
        self._kind = kind
        self._tensors = _types(torch, "Tensor") + _types(nn, "Parameter")
        self._arrays = _types(numpy, "ndarray")
        self._owners = _types(nn, "Module") + _types(optim, "Optimizer")
        self._seen: set[int] = set()
        self._values = 0
        self._until = time.perf_counter() + _WALKED_SECONDS

    @property
    def may_go_on(self) -> bool:
        """Whether there is time left to follow values."""
        return self._values < _WALKED_VALUES and time.perf_counter() < self._until

    def holder(self, name: str, value: Any, place: str = "") -> Holder | None:
        """What *name* keeps that no name before it did."""
        blocks = [block for block in self._blocks(value) if block.size_bytes]
        if not blocks:
            return None
        size_bytes, graphs = sum(block.size_bytes for block in blocks), sum(block.has_graph for block in blocks)
        return Holder(shortened(clean(name), _NAME_CHARACTERS), place, size_bytes, blocks[0].device, graphs)

    def _blocks(self, value: Any) -> Iterator[Block]:
        """The memory below *value*, as far as it may be followed in the time."""
        waiting, met = [value], {id(value)}
        while waiting and self.may_go_on:
            self._values += 1
            found = waiting.pop()
            block = self._block(found)
            if block is not None:
                if block.key not in self._seen:
                    self._seen.add(block.key)
                    yield block
                waiting += self._gradient(found)
                continue
            below = [item for item in self._below(found) if id(item) not in met]
            met.update(map(id, below))
            waiting += below

    def _block(self, value: Any) -> Block | None:
        kind = type(value)
        if _is_one_of(kind, self._tensors):
            return _of_tensor(value, self._kind)
        if self._kind == "cpu" and _is_one_of(kind, self._arrays):
            return _of_array(value)
        if self._kind == "cpu" and (kind is bytes or kind is bytearray):
            return Block(id(value), len(value), "cpu", has_graph=False)
        return None

    def _gradient(self, value: Any) -> list[Any]:
        if not _is_one_of(type(value), self._tensors) or not value.is_leaf or value.grad is None:
            return []
        return [value.grad]

    def _below(self, value: Any) -> list[Any]:
        kind = type(value)
        if _is_one_of(kind, _PLAIN_CONTAINERS):
            return list(value)[:_WALKED_VALUES]
        if _is_one_of(kind, _PLAIN_MAPPINGS):
            return list(dict.values(value))[:_WALKED_VALUES]
        for owner in self._owners:
            if issubclass(kind, owner):  # its own __dict__, past a property of that name
                return list(owner.__dict__["__dict__"].__get__(value).values())
        return []


def _of_tensor(tensor: Any, kind: Kind) -> Block | None:
    try:
        device = tensor.device
        if device.type != kind:
            return None
        storage = tensor.untyped_storage()
        return Block(storage.data_ptr(), storage.nbytes(), str(device), has_graph=tensor.grad_fn is not None)
    except (RuntimeError, NotImplementedError):  # a sparse one has no storage of its own
        return None


def _of_array(array: Any) -> Block:
    owner = array
    while type(owner.base) is type(array):
        owner = owner.base
    return Block(id(owner), int(owner.nbytes), "cpu", has_graph=False)


def _types(module: Any, name: str) -> tuple[type, ...]:
    found = getattr(module, name, None)
    return (found,) if isinstance(found, type) else ()


def _is_one_of(kind: type, known: tuple[type, ...]) -> bool:
    """By identity: a metaclass may answer `==` with code of its own."""
    return any(kind is one for one in known)
