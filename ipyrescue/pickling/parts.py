"""What a value consists of, for comparing it with another: its kind, what it holds itself, and its parts.

The state of an object is what it has, not what it says: attributes, slots and the items of the builtin type below are
read past every method of the user's, so that a `__getstate__` or `__reduce__` that drops something is found out. Only a
class of an installed library is asked how it pickles, as it may keep caches and handles that are none of its value.
What a snapshot keeps by name (modules, what imports bring, global random streams, `os.environ`) is told by name, and of
what it never keeps (locks, files, the cache of a cached function, the graph of a tensor) the kind counts only.
"""

from __future__ import annotations

import abc
import builtins
import collections
import copyreg
import enum
import functools
import gc
import hashlib
import pickle
import struct
import sys
import sysconfig
import threading
import types
import typing
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import cloudpickle.cloudpickle as cp

from ipyrescue.pickling import array_parts, elsewhere, reducers
from ipyrescue.pickling.array_parts import Memory

_PROTOCOL = 5
_RUN = 1024
"""So many numbers or texts of one type in a row are one part."""


class Incomparable(Exception):  # noqa: N818 - not an error: an answer
    """A value of which nobody can say whether another one is the same; *args[0]* says why."""


Step = tuple[str, Any, Any]


@dataclass
class Parts:
    """What one object is. *label* may be shown; *content* is hashed; *names* are those of its attributes or keys.

    *children* are (kind of step, name, value), in order; *unordered* are the elements of a set; *runs* stand for many
    numbers or texts: where, what, and a hash. With *alike*, any other object with these parts is as good as this one.
    """

    label: str
    content: bytes = b""
    names: tuple[str, ...] = ()
    children: list[Step] = field(default_factory=list)
    unordered: Iterable[Any] = ()
    runs: list[tuple[str, str, bytes]] = field(default_factory=list)
    memory: Memory | None = None
    alike: bool = False


def _by_name(label: str) -> Parts:
    """What an import brings, or what else a name stands for."""
    return Parts(label, alike=True)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    bool: lambda value: b"1" if value else b"0",
    int: _integer,
    float: struct.Struct("<d").pack,
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: _text,
    bytes: bytes,
    range: lambda value: repr(value).encode(),
}
"""Values without parts and without identity, and their bytes."""

_RUNS: dict[type, Callable[[Any], bytes]] = {
    bool: bytes,
    int: lambda run: b" ".join(map(_integer, run)) if max(map(abs, run)) >> 62 else array("q", run).tobytes(),
    float: lambda run: array("d", run).tobytes(),
    str: lambda run: _text(repr(run)),
}

_PROTOCOL_METHODS = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")
_NATIVE = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, collections.deque, object)
_ALIKE = {"datetime", "decimal", "_decimal", "fractions", "re", "pathlib", "pathlib._local", "uuid", "zoneinfo",
          "ipaddress", "types", "typing", "numpy.dtypes"}  # fmt: skip
"""Modules whose objects are values: which of several equal ones this is does not matter."""
_KEEP_THEIR_ITEMS_AS_DICT = (collections.OrderedDict, collections.defaultdict, collections.Counter)
_CODE_FIELDS = (
    "co_name", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags", "co_names", "co_varnames",
    "co_freevars", "co_cellvars", "co_code",
)  # fmt: skip
_NOT_OF_A_CLASS = {"__dict__", "__weakref__", "__slotnames__", "_abc_impl", "__module__", "__qualname__",
                   "__firstlineno__", "__static_attributes__"}  # fmt: skip
_TPFLAGS_HEAPTYPE = 1 << 9
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class Anatomy:
    """Takes values apart.

    *namespace* is the one that cell functions call their globals; *classes* are the names of the classes of cells that
    other groups hold, by id, and stand for them.
    """

    def __init__(self, namespace: Mapping[str, Any], classes: Mapping[int, str]) -> None:
        self._namespace = namespace
        self._classes = classes
        self._places = elsewhere.Places()
        self._kinds: dict[type, tuple[str, bool]] = {}
        self._libraries: dict[str, bool] = {}
        self._speakers: dict[type, tuple[Any, bool]] = {}

    def beside(self, own: Iterable[int]) -> Anatomy:
        """The same for a group that holds the classes with the ids *own* itself: those are taken apart."""
        other, inside = copy(self), set(own)
        other._classes = {key: name for key, name in self._classes.items() if key not in inside}
        other._kinds = {}
        return other

    def parts(self, value: Any) -> Parts:
        """Take one object apart. Raises `Incomparable`."""
        kind = type(value)
        if kind in _PLAIN and id(value) not in self._places:
            return _EXACT[kind](self, value)
        found = self._parts(kind, value)
        found.alike = found.alike or type.__getattribute__(kind, "__module__") in _ALIKE
        return found

    def _parts(self, kind: type, value: Any) -> Parts:
        place = self._places.of(value)
        if place is not None:
            return _by_place(place)
        exact = _EXACT.get(kind)
        if exact is not None:
            return exact(self, value)
        if issubclass(kind, type):
            return self._class(value)
        if issubclass(kind, types.ModuleType):
            return self._module(value)
        if issubclass(kind, _LOCKS) or reducers.never_saved(kind):
            return Parts(self.label(kind))
        return self._by_kind(kind, value)

    def _by_kind(self, kind: type, value: Any) -> Parts:
        stream = _global_stream(value)
        if stream:
            return _by_name(stream)
        layout = array_parts.known(value)
        if layout is not None:
            found = self._attributes(kind, value, without=("_mmap", "node"))
            found.label, found.memory = f"{found.label} {layout.words}".rstrip(), layout.memory
            found.content += layout.content
            found.children = [*((".", name, part) for name, part in layout.others), *found.children]
            return found
        for base, apart in _BASES:
            if issubclass(kind, base):
                return apart(self, value)
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "optim") and issubclass(kind, torch.optim.Optimizer):
            return self._optimizer(kind, value)
        if torch is not None and hasattr(torch, "jit") and issubclass(kind, torch.jit.ScriptModule):
            return self._scripted(kind, value)
        speaker, by_library = self._speaker(kind)
        if speaker is not None and by_library:
            return self._reduced(kind, value, speaker)
        return self._native(kind, value)

    # --- kinds ------------------------------------------------------------------------------------------------------

    def label(self, kind: type) -> str:
        """A type as a person would say it."""
        return self._kind(kind)[0]

    def _kind(self, kind: type) -> tuple[str, bool]:
        """The label of a type, and whether the type itself is a part of its instances: no other group has it."""
        known = self._kinds.get(kind)
        if known is None:
            name, module = _name(kind), type.__getattribute__(kind, "__module__")
            if id(kind) in self._classes:
                known = self._classes[id(kind)], False
            elif self._is_importable(kind):
                known = name if module == "builtins" else f"{module}.{name}", False
            else:
                known = name, True
            self._kinds[kind] = known
        return known

    def _is_importable(self, value: Any) -> bool:
        try:
            return value in _SINGLETONS or reducers._is_builtin_class(value) or reducers.importable(value)
        except Exception:  # noqa: BLE001 - a metaclass may raise when its class is asked for anything
            return False

    def _speaker(self, kind: type) -> tuple[Any, bool]:
        """Who says how objects of *kind* pickle: a class or a function of `copyreg`; and whether it is a library's."""
        if kind not in self._speakers:
            registered = copyreg.dispatch_table.get(kind)
            if registered is not None:
                self._speakers[kind] = registered, self._is_library(getattr(registered, "__module__", ""))
            else:
                base = next(self._say(kind), None)
                self._speakers[kind] = base, base is not None and self._is_librarys(base)
        return self._speakers[kind]

    def _say(self, kind: type) -> Iterator[type]:
        """The bases of *kind* that say how to pickle, but for the builtin ones, whose items are read."""
        read = (*_NATIVE, *_KEEP_THEIR_ITEMS_AS_DICT, *_torch_modules())
        for base in type.__getattribute__(kind, "__mro__"):
            own = type.__getattribute__(base, "__dict__")
            if base not in read and any(name in own for name in _PROTOCOL_METHODS):
                yield base

    def _is_librarys(self, kind: type) -> bool:
        if not kind.__flags__ & _TPFLAGS_HEAPTYPE:
            return True  # written in C, like the iterators of builtin types, which have no importable name
        return self._is_library(type.__getattribute__(kind, "__module__")) and self._is_importable(kind)

    def _is_library(self, module: Any) -> bool:
        """Whether a module was installed: what is not the user's to mend is taken at its word."""
        if module not in self._libraries:
            self._libraries[module] = isinstance(module, str) and _was_installed(sys.modules.get(module))
        return self._libraries[module]

    # --- objects ----------------------------------------------------------------------------------------------------

    def _attributes(self, kind: type, value: Any, without: Iterable[str] = ()) -> Parts:
        """Attributes and slots, in the order of their names."""
        label, inline = self._kind(kind)
        found = {name: held for name, held in _held(kind, value) if name not in without}
        names = sorted(found, key=str)
        children: list[Step] = [(".", "__class__", kind)] if inline else []
        children += [(".", name, found[name]) for name in names]
        return Parts(label, names=tuple(f".{name}" for name in names), children=children)

    def _native(self, kind: type, value: Any) -> Parts:
        """An object by what it has: attributes, and the items of the builtin type below it."""
        found = self._attributes(kind, value, without=_none_of_a_module(kind, value))
        base = next(base for base in kind.__mro__ if base in _NATIVE)
        if base is not object:
            below = _NATIVE_PARTS[base](self, value)
            found.label += below.label.removeprefix(base.__name__)
            found.content, found.unordered, found.runs = below.content, below.unordered, below.runs
            found.names += below.names
            found.children += below.children
            if issubclass(kind, collections.defaultdict):
                found.children.append((".", "default_factory", collections.defaultdict.default_factory.__get__(value)))  # type: ignore[attr-defined]
            return found
        beneath = next((b for b in self._say(kind) if self._is_librarys(b)), None)
        if beneath is not None and not found.names:
            return self._reduced(kind, value, beneath)
        if beneath is not None and _reduces(beneath):
            state = self._reduced(kind, value, beneath)
            found.children += [(" ", number, part) for number, (_, _, part) in enumerate(state.children)]
        elif not found.names and not _layout(kind) and kind.__basicsize__ > object.__basicsize__:
            raise Incomparable(f"{found.label} does not show what it holds")
        return found

    def _reduced(self, kind: type, value: Any, speaker: Any) -> Parts:
        """An object by what its library says of it."""
        label, inline = self._kind(kind)
        if kind.__module__ == "pyarrow.lib":
            getattr(value, "null_count", None)  # counted when it is asked for, and then part of what pyarrow says
        try:
            reduced = _reduce(kind, value, speaker)
        except Exception as error:  # noqa: BLE001 - code of a library, which may raise anything
            raise Incomparable(f"{label} does not say what it holds ({type(error).__name__})") from error
        if isinstance(reduced, str):
            return _by_name(f"{label} {reduced}")
        make, arguments, *rest = (*reduced, *(None,) * (6 - len(reduced)))
        state, items, pairs, _ = rest
        children: list[Step] = [(".", "__class__", kind)] if inline else []
        children += [(" ", "made by", make), *((" ", f"argument {i}", part) for i, part in enumerate(arguments))]
        children += _state_steps(state)
        children += [("[", i, part) for i, part in enumerate(items or ())]
        for number, (key, part) in enumerate(pairs or ()):
            children += [("key", number, key), ("[", key, part)]
        return Parts(label, names=tuple(f".{name}" for kind_, name, _ in children if kind_ == "."), children=children)

    def _optimizer(self, kind: type, value: Any) -> Parts:
        """An optimizer; that its steps are counted for a scheduler is a wrapper that a restore makes anew."""
        counted = getattr(vars(value).get("step"), "_wrapped_by_lr_sched", False)
        found = self._attributes(kind, value, without=("step",) if counted else ())
        found.content = repr(counted).encode()
        found.children = [(k, name, _with_what_loading_adds(held) if name == "defaults" else held)
                          for k, name, held in found.children]  # fmt: skip
        return found

    def _scripted(self, kind: type, value: Any) -> Parts:
        """A scripted module: its tensors, and its code as text."""
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        code = getattr(value, "code", "")
        return Parts(self.label(kind), _text(str(code)), tuple(tensors), [(".", name, t) for name, t in tensors.items()])

    def _module(self, module: types.ModuleType) -> Parts:
        own = types.ModuleType.__getattribute__(module, "__dict__")
        name = own.get("__name__")
        if sys.modules.get(name) is module:
            return _by_name(f"module {name}")
        names = [name for name in own if not (name.startswith("__") and name.endswith("__"))]
        return Parts(f"module {name}", names=tuple(f".{n}" for n in names), children=[(".", n, own[n]) for n in names])

    def _class(self, cls: Any) -> Parts:
        label, inline = self._kind(cls)
        if not inline:
            return _by_name(f"class {label}")
        if issubclass(cls, enum.Enum):
            return self._enum(cls)
        own = {name: part for name, part in type.__getattribute__(cls, "__dict__").items()
               if name not in _NOT_OF_A_CLASS and not _is_slot(cls, part) and not _is_inherited(cls, name, part)
               }  # fmt: skip
        if type(cls) not in (type, abc.ABCMeta) and self._is_librarys(type(cls)):
            # What the metaclass of a library keeps in the class it makes anew.
            own = {name: part for name, part in own.items() if not name.startswith("__") or callable(part)}
        names = sorted(own)
        children: list[Step] = [(".", "__class__", type(cls))]
        children += [(" ", f"base {i}", base) for i, base in enumerate(cls.__bases__)]
        children += [(".", name, own[name]) for name in names]
        return Parts(f"class {_name(cls)}", names=tuple(f".{name}" for name in names), children=children)

    def _enum(self, cls: Any) -> Parts:
        """An enum: its members in their order, and the functions that the cell gave it."""
        own = {n: v for n, v in vars(cls).items() if isinstance(v, (types.FunctionType, property, classmethod))}
        own = {n: v for n, v in own.items() if not n.startswith("_")}
        members = cls.__members__
        children: list[Step] = [(" ", f"base {i}", base) for i, base in enumerate(cls.__bases__)]
        for name, member in members.items():
            children += [(".", name, member._value_), (" ", f"{name} beside its value", _beside_value(member))]
        children += [(".", name, own[name]) for name in sorted(own)]
        return Parts(f"enum {_name(cls)}", repr((*members, *sorted(own))).encode(), children=children)

    # --- functions --------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Parts:
        if self._is_importable(function):
            return _by_name(f"function {function.__module__}.{function.__qualname__}")
        said = (function.__qualname__, function.__module__, function.__doc__)
        children: list[Step] = [
            (".", "__defaults__", function.__defaults__),
            (".", "__kwdefaults__", function.__kwdefaults__),
            (".", "__annotations__", function.__annotations__),
            *((" ", f"closure {name}", cell) for name, cell in zip(
                function.__code__.co_freevars, function.__closure__ or (), strict=False)),
            *((".", name, part) for name, part in sorted(function.__dict__.items())),
            *((" ", f"global {name}", part) for name, part in self._captured(function)),
        ]  # fmt: skip
        return Parts(f"function {function.__name__}", _text(repr(said)) + code_digest(function.__code__),
                     children=children)  # fmt: skip

    def _captured(self, function: types.FunctionType) -> list[tuple[str, Any]]:
        """What a function takes from globals that are neither the namespace nor a module's."""
        home = function.__globals__
        module = sys.modules.get(home.get("__name__", ""))
        if home is self._namespace or (module is not None and vars(module) is home):
            return []
        return [(name, home[name]) for name in sorted(cp._extract_code_globals(function.__code__)) if name in home]

    def _builtin(self, function: Any) -> Parts:
        home, module = function.__self__, sys.modules.get(function.__module__ or "")
        if home is None or isinstance(home, types.ModuleType) or getattr(module, function.__name__, None) is function:
            return _by_name(f"function {function.__module__}.{function.__qualname__}")
        return Parts(f"method {function.__name__}", children=[(".", "__self__", home)])

    def _cached(self, cached: Any) -> Parts:
        if reducers.importable_by_name(cached):
            return _by_name(f"function {cached.__module__}.{cached.__qualname__}")
        own = {name: part for name, part in vars(cached).items() if name != "cache_parameters"}
        return Parts("cached function", repr(cached.cache_parameters()).encode(),
                     children=[(".", name, own[name]) for name in sorted(own)])  # fmt: skip


def _with_what_loading_adds(defaults: Any) -> Any:
    """The defaults of an optimizer with what every `Optimizer.__setstate__` puts into them."""
    return {**defaults, "differentiable": defaults.get("differentiable", False)} if type(defaults) is dict else defaults


def _torch_modules() -> tuple[type, ...]:
    nn = getattr(sys.modules.get("torch"), "nn", None)
    return (nn.Module,) if nn is not None and hasattr(nn, "Module") else ()


def _none_of_a_module(kind: type, module: Any) -> tuple[str, ...]:
    """The attributes of a torch module that do not count: what was compiled, and hooks that are empty.

    `Module.__setstate__` adds those that a half-made module has not got.
    """
    if not issubclass(kind, _torch_modules()):
        return ()
    empty = (name for name, held in vars(module).items() if not held)
    return ("_compiled_call_impl", *(n for n in empty if "hook" in n or n == "_non_persistent_buffers_set"))


def _by_place(place: tuple[str, str]) -> Parts:
    module, name = place
    if name.endswith("()"):
        raise Incomparable("it holds the shell of this kernel, which a fresh process does not have")
    return _by_name(f"{module}.{name}")


def _global_stream(value: Any) -> str | None:
    """The name of a global random stream, which goes by name so that a seed reaches it."""
    numpy, torch = sys.modules.get("numpy.random.mtrand"), sys.modules.get("torch")
    streams = {
        "the stream of random": sys.modules["random"]._inst if "random" in sys.modules else None,
        "the stream of numpy.random": getattr(numpy, "_rand", None),
        "the stream of torch": getattr(torch, "default_generator", None),
    }
    return next((name for name, stream in streams.items() if stream is value), None)


def _was_installed(module: Any) -> bool:
    own = vars(module) if isinstance(module, types.ModuleType) else {}
    if not own or own.get("__name__") == "__main__":
        return False
    file = own.get("__file__")
    if not isinstance(file, str):
        return getattr(own.get("__spec__"), "origin", None) in ("built-in", "frozen") or module is builtins
    return "site-packages" in file or "dist-packages" in file or file.startswith(_STANDARD_LIBRARY)


_STANDARD_LIBRARY = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


def _name(kind: type) -> str:
    name: str = type.__getattribute__(kind, "__qualname__")
    return name


# --- attributes -----------------------------------------------------------------------------------------------------


def _held(kind: type, value: Any) -> Iterator[tuple[str, Any]]:
    """What an object has in its dictionary and its slots, past every property."""
    for name, descriptor in _layout(kind):
        try:
            held = descriptor.__get__(value)
        except AttributeError:  # a slot that is empty
            continue
        if name == "__dict__" and type(held) is dict:
            yield from held.items()
        elif name != "__dict__":
            yield name, held


@functools.lru_cache(maxsize=4096)
def _layout(kind: type) -> tuple[tuple[str, Any], ...]:
    """Where objects of a class keep what they have: the dictionary, and each slot by its name."""
    found: dict[str, Any] = {}
    for base in type.__getattribute__(kind, "__mro__"):
        own = type.__getattribute__(base, "__dict__")
        if type(own.get("__dict__")) is types.GetSetDescriptorType:
            found.setdefault("__dict__", own["__dict__"])
        if "__slots__" in own:
            slots = {name: d for name, d in own.items() if type(d) is types.MemberDescriptorType}
            found = {**slots, **found}
    return tuple(found.items())


def _is_slot(cls: type, value: Any) -> bool:
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return type(value) in kinds and value.__objclass__ is cls


def _is_inherited(cls: type, name: str, value: Any) -> bool:
    """Whether a class says what it has anyway."""
    return any(vars(base).get(name, cls) is value for base in cls.__bases__)


def _beside_value(member: Any) -> dict[str, Any]:
    own = {"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"}
    return {name: held for name, held in vars(member).items() if name not in own}


# --- what libraries say ---------------------------------------------------------------------------------------------


def _reduces(speaker: Any) -> bool:
    own = vars(speaker)
    return "__reduce_ex__" in own or "__reduce__" in own


def _reduce(kind: Any, value: Any, speaker: Any) -> Any:
    """Ask the library's own method, past those of the user's class above it."""
    if not isinstance(speaker, type):
        return speaker(value)
    if "__reduce_ex__" in vars(speaker):
        return speaker.__reduce_ex__(value, _PROTOCOL)  # type: ignore[call-overload]
    if "__reduce__" in vars(speaker):
        return speaker.__reduce__(value)
    return kind.__reduce_ex__(value, _PROTOCOL)


def _state_steps(state: Any) -> list[Step]:
    """The parts of a state: attributes by name where it is what `object` says of itself."""
    whole = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or (type(part) is dict and all(type(n) is str for n in part)) for part in whole):
        return [(" ", "state", state)]
    merged = {name: held for part in whole if part for name, held in part.items()}
    return [(".", name, merged[name]) for name in sorted(merged)]


# --- what Python itself has -----------------------------------------------------------------------------------------


def _sequence(kind: str, items: Any) -> Parts:
    """A list or tuple; long runs of numbers or texts of one type are hashed at once."""
    label = f"{kind} of {len(items)}"
    kinds = set(map(type, items)) if len(items) > 8 else set()
    pack = _RUNS.get(next(iter(kinds))) if len(kinds) == 1 else None
    if pack is None:
        return Parts(label, children=[("[", i, item) for i, item in enumerate(items)])
    name = next(iter(kinds)).__name__
    starts = range(0, len(items), _RUN)
    runs = [(f"{at}:{min(at + _RUN, len(items))}", name, _hashed(pack(items[at : at + _RUN]))) for at in starts]
    return Parts(label, runs=runs)


def _mapping(kind: str, pairs: Any) -> Parts:
    """A dictionary, in its order."""
    items = list(pairs)
    if all(type(key) is str for key, _ in items):
        names = tuple(f"[{key!r}]" for key, _ in items)
        return Parts(f"{kind} of {len(items)}", names=names, children=[("[", key, part) for key, part in items])
    children = []
    for number, (key, part) in enumerate(items):
        children += [("key", number, key), ("[", key, part)]
    return Parts(f"{kind} of {len(items)}", children=children)


def _set(kind: str, elements: Any) -> Parts:
    return Parts(f"{kind} of {len(elements)}", unordered=elements)


def _hashed(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _byte_array(value: Any) -> Parts:
    with memoryview(value) as view:
        if not view.nbytes:
            return Parts("bytearray of 0")
        memory = Memory("cpu", reducers.address_of(view), view.nbytes, value)
    return Parts(f"bytearray of {memory.size_bytes}", memory=memory)


def _view(view: memoryview) -> Parts:
    if view.obj is not None and type(view.obj) in (bytes, bytearray) and view.c_contiguous:
        offset = reducers.address_of(view) - reducers.address_of(memoryview(view.obj)) if view.nbytes else 0
        return Parts("memoryview", repr((view.format, view.shape, view.readonly, offset)).encode(),
                     children=[(".", "obj", view.obj)])  # fmt: skip
    return Parts("memoryview", repr((view.format, view.shape)).encode() + _hashed(view.tobytes()))


def _reference(reference: Any) -> Parts:
    return Parts("weak reference", children=[(" ", "target", reference())])


def _proxy(proxy: Any) -> Parts:
    try:
        return Parts("weak proxy", children=[(" ", "target", proxy.__str__.__self__)])
    except ReferenceError:
        return Parts("weak proxy of what is gone")


def _exception(anatomy: Anatomy, error: BaseException) -> Parts:
    found = anatomy._attributes(type(error), error)
    causes = error.__cause__, error.__context__, error.__suppress_context__
    arguments = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    found.children = [(".", "args", arguments), *((" ", f"cause {i}", c) for i, c in enumerate(causes)),
                      *found.children]  # fmt: skip
    return found


def _of_typing(anatomy: Anatomy, value: Any) -> Parts:
    """A type variable, or a `NewType`."""
    names = ("__name__", "__bound__", "__constraints__", "__supertype__", "__covariant__", "__contravariant__")
    children = [(".", name, getattr(value, name, None)) for name in names]
    return Parts(anatomy.label(type(value)), children=children)


def _described(value: Any) -> Parts:
    home = getattr(value, "__objclass__", None)
    return _by_name(f"{type(value).__name__} {getattr(home, '__qualname__', '')}.{value.__name__}")


def _bound_slot(value: Any) -> Parts:
    return Parts(f"method {value.__name__}", children=[(".", "__self__", value.__self__)])


def _cell(cell: types.CellType) -> Parts:
    try:
        return Parts("closure cell", children=[(" ", "contents", cell.cell_contents)])
    except ValueError:
        return Parts("empty closure cell")


def _property(value: Any) -> Parts:
    return Parts(type(value).__name__, _text(repr(value.__doc__)), children=[
        (".", "fget", value.fget), (".", "fset", value.fset), (".", "fdel", value.fdel)])  # fmt: skip


def _out_of_band(buffer: Any) -> Parts:
    with buffer.raw() as view:
        return Parts(f"buffer of {view.nbytes}", _hashed(view))


_SINGLETONS = (type(None), type(...), type(NotImplemented))
_EXACT: dict[type, Callable[[Anatomy, Any], Parts]] = {
    list: lambda _, value: _sequence("list", value),
    tuple: lambda _, value: _sequence("tuple", value),
    dict: lambda _, value: _mapping("dict", value.items()),
    set: lambda _, value: _set("set", value),
    frozenset: lambda _, value: _set("frozenset", value),
    bytearray: lambda _, value: _byte_array(value),
    memoryview: lambda _, value: _view(value),
    slice: lambda _, value: _sequence("slice", (value.start, value.stop, value.step)),
    pickle.PickleBuffer: lambda _, value: _out_of_band(value),
    types.FunctionType: Anatomy._function,
    types.BuiltinFunctionType: Anatomy._builtin,
    types.MethodType: lambda _, value: Parts("method", children=[
        (".", "__func__", value.__func__), (".", "__self__", value.__self__)]),
    types.MethodWrapperType: lambda _, value: _bound_slot(value),
    types.WrapperDescriptorType: lambda _, value: _described(value),
    types.MethodDescriptorType: lambda _, value: _described(value),
    types.ClassMethodDescriptorType: lambda _, value: _described(value),
    types.GetSetDescriptorType: lambda _, value: _described(value),
    types.MemberDescriptorType: lambda _, value: _described(value),
    types.CellType: lambda _, value: _cell(value),
    types.CodeType: lambda _, value: Parts("code", code_digest(value)),
    types.MappingProxyType: lambda _, value: Parts("mappingproxy", children=[
        (" ", "mapping", gc.get_referents(value)[0])]),
    super: lambda _, value: Parts("super", children=[
        (".", "__thisclass__", value.__thisclass__), (".", "__self__", value.__self__)]),
    property: lambda _, value: _property(value),
    classmethod: lambda _, value: Parts("classmethod", children=[(".", "__func__", value.__func__)]),
    staticmethod: lambda _, value: Parts("staticmethod", children=[(".", "__func__", value.__func__)]),
    functools._lru_cache_wrapper: Anatomy._cached,
    weakref.ProxyType: lambda _, value: _proxy(value),
    weakref.CallableProxyType: lambda _, value: _proxy(value),
    weakref.finalize: lambda _, value: Parts("weakref.finalize"),
    **{getattr(typing, name): _of_typing
       for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "NewType") if hasattr(typing, name)},
}  # fmt: skip

_PLAIN = frozenset({list, tuple, dict, set, frozenset})

_BASES: list[tuple[type, Callable[[Anatomy, Any], Parts]]] = [
    (weakref.ReferenceType, lambda _, value: _reference(value)),
    (weakref.WeakSet, lambda _, value: _set("weakref.WeakSet", list(value))),
    (weakref.WeakValueDictionary, lambda _, v: _mapping("weak dict", weakref.WeakValueDictionary.items(v))),
    (weakref.WeakKeyDictionary, lambda _, v: _mapping("weak dict", weakref.WeakKeyDictionary.items(v))),
    (BaseException, _exception),
]

_NATIVE_PARTS: dict[type, Callable[[Anatomy, Any], Parts]] = {
    dict: lambda _, v: _mapping("dict", (
        collections.OrderedDict.items(v) if isinstance(v, collections.OrderedDict) else dict.items(v))),
    list: lambda _, v: _sequence("list", list.__getitem__(v, slice(None))),
    tuple: lambda _, v: _sequence("tuple", tuple.__getitem__(v, slice(None))),
    set: lambda _, v: _set("set", list(set.__iter__(v))),
    frozenset: lambda _, v: _set("frozenset", list(frozenset.__iter__(v))),
    collections.deque: lambda _, v: _sequence(
        f"deque({collections.deque.maxlen.__get__(v)})", list(collections.deque.__iter__(v))),  # type: ignore[attr-defined]
    str: lambda _, v: Parts("str", _text(str.__str__(v))),
    bytes: lambda _, v: Parts("bytes", bytes.__getitem__(v, slice(None))),
    bytearray: lambda _, v: _byte_array(v),
    int: lambda _, v: Parts("int", _integer(int.__int__(v))),
    float: lambda _, v: Parts("float", struct.pack("<d", float.__float__(v))),
    complex: lambda _, v: Parts("complex", struct.pack("<dd", *(
        part.__get__(v) for part in (complex.real, complex.imag)))),  # type: ignore[attr-defined]
}  # fmt: skip


# --- code -----------------------------------------------------------------------------------------------------------


def code_digest(code: types.CodeType) -> bytes:
    """A hash of what a function does: its bytecode, names and constants, those inside it included."""
    said = [repr(getattr(code, name)) for name in _CODE_FIELDS]
    said += [_constant(constant) for constant in code.co_consts]
    return _hashed(_text("\n".join(said)))


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return code_digest(value).hex()
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    atom = ATOMS.get(type(value))
    return f"{type(value).__name__} {atom(value).hex()}" if atom is not None else type(value).__name__


def cell_classes(namespace: Mapping[str, Any], names: Iterable[str]) -> dict[int, str]:
    """The classes of cells among *names*, by id."""
    found: dict[int, str] = {}
    for name in names:
        value = namespace.get(name)
        if issubclass(type(value), type) and _is_cell_class(value):
            found.setdefault(id(value), name)
    return found


def _is_cell_class(value: Any) -> bool:
    try:
        return reducers.is_cell_class(value)
    except Exception:  # noqa: BLE001 - a metaclass may raise when its class is asked for anything
        return True
