"""What an object consists of, for comparing it with another: its kind, what it holds itself, and its parts.

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
import random
import sys
import sysconfig
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import cloudpickle.cloudpickle as cp

from ipyrescue.pickling import array_parts, elsewhere, reducers
from ipyrescue.pickling.parts import (
    BELOW,
    EXACT,
    OF_SUBCLASSES,
    PLAIN,
    Incomparable,
    Parts,
    Step,
    by_name,
    code_digest,
    text,
)

_PROTOCOL = 5
_SAY_HOW = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")
_READ_ITEM_BY_ITEM = (*BELOW, object, collections.OrderedDict, collections.defaultdict, collections.Counter)
_ALIKE = {"datetime", "decimal", "_decimal", "fractions", "re", "pathlib", "pathlib._local", "uuid", "zoneinfo",
          "ipaddress", "types", "typing", "numpy.dtypes"}  # fmt: skip
"""Modules whose objects are values: which of several equal ones this is does not matter."""
_NOT_OF_A_CLASS = {"__dict__", "__weakref__", "__slotnames__", "_abc_impl", "__module__", "__qualname__",
                   "__firstlineno__", "__static_attributes__"}  # fmt: skip
_NOT_BESIDE_A_MEMBER = {"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"}
_NOT_OF_A_LAYOUT = ("_mmap", "node")
"""Attributes of memory maps and of torch's symbolic numbers that belong to one process."""
_TPFLAGS_HEAPTYPE = 1 << 9
"""Python C API: set for every class but those that are written in C and have no dictionary of their own."""
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_SINGLETONS = (type(None), type(...), type(NotImplemented))
_STANDARD_LIBRARY = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


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
        if kind in PLAIN and id(value) not in self._places:
            return EXACT[kind](value)
        found = self._parts(kind, value)
        found.alike = found.alike or _said_of(kind, "__module__") in _ALIKE
        return found

    def _parts(self, kind: type, value: Any) -> Parts:
        name = self._name_of(value)
        if name is not None:
            return by_name(name)
        own = _OWN.get(kind)
        if own is not None:
            return own(self, value)
        if kind in EXACT:
            return EXACT[kind](value)
        for base, apart in _OWN_OF_SUBCLASSES:
            if issubclass(kind, base):
                return apart(self, value)
        for base, apart_alone in OF_SUBCLASSES:
            if issubclass(kind, base):
                return apart_alone(value)
        if issubclass(kind, _LOCKS) or reducers.never_saved(kind):
            return Parts(self.label(kind))
        layout = array_parts.known(value)
        return self._laid_out(kind, value, layout) if layout is not None else self._object(kind, value)

    def _name_of(self, value: Any) -> str | None:
        """What stands for a value that belongs to the process: its place, or the name of a global random stream."""
        place = self._places.of(value)
        if place is not None and place[1].endswith("()"):
            raise Incomparable("it holds the shell of this kernel, which a fresh process does not have")
        return ".".join(place) if place is not None else _global_stream(value)

    def _object(self, kind: type, value: Any) -> Parts:
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "optim") and issubclass(kind, torch.optim.Optimizer):
            return self._optimizer(kind, value)
        if torch is not None and hasattr(torch, "jit") and issubclass(kind, torch.jit.ScriptModule):
            return self._scripted(kind, value)
        speaker, is_librarys = self._speaker(kind)
        return self._reduced(kind, value, speaker) if is_librarys else self._held_by(kind, value)

    # --- kinds ------------------------------------------------------------------------------------------------------

    def label(self, kind: type) -> str:
        """A type as a person would say it."""
        return self._kind(kind)[0]

    def _kind(self, kind: type) -> tuple[str, bool]:
        """The label of a type, and whether the type itself is a part of its instances: no other group has it."""
        known = self._kinds.get(kind)
        if known is None:
            name, module = _name(kind), _said_of(kind, "__module__")
            if id(kind) in self._classes:
                known = self._classes[id(kind)], False
            elif _is_importable(kind):
                known = name if module == "builtins" else f"{module}.{name}", False
            else:
                known = name, True
            self._kinds[kind] = known
        return known

    def _speaker(self, kind: type) -> tuple[Any, bool]:
        """Who says how objects of *kind* pickle: a class or a function of `copyreg`; and whether it is a library's."""
        if kind not in self._speakers:
            registered = copyreg.dispatch_table.get(kind)
            if registered is not None:
                self._speakers[kind] = registered, self._is_library(getattr(registered, "__module__", ""))
            else:
                base = next(_speakers(kind), None)
                self._speakers[kind] = base, base is not None and self._is_of_a_library(base)
        return self._speakers[kind]

    def _is_of_a_library(self, kind: type) -> bool:
        is_of_c = not _said_of(kind, "__flags__") & _TPFLAGS_HEAPTYPE
        return is_of_c or (self._is_library(_said_of(kind, "__module__")) and _is_importable(kind))

    def _is_library(self, module: Any) -> bool:
        """Whether a module was installed: what is not the user's to mend is taken at its word."""
        if module not in self._libraries:
            self._libraries[module] = isinstance(module, str) and _was_installed(sys.modules.get(module))
        return self._libraries[module]

    # --- objects ----------------------------------------------------------------------------------------------------

    def _attributes(self, kind: type, value: Any, without: Iterable[str] = ()) -> Parts:
        """Attributes and slots, in the order of their names."""
        label, is_part = self._kind(kind)
        found = {name: held for name, held in _held(kind, value) if name not in without}
        names = sorted(found, key=str)
        children: list[Step] = [(".", "__class__", kind)] if is_part else []
        children += [(".", name, found[name]) for name in names]
        return Parts(label, names=tuple(f".{name}" for name in names), children=children)

    def _laid_out(self, kind: type, value: Any, layout: array_parts.Layout) -> Parts:
        """A tensor or an array, with the attributes that hang on it."""
        found = self._attributes(kind, value, without=_NOT_OF_A_LAYOUT)
        found.label = f"{found.label} {layout.words}".rstrip()
        found.content, found.memory = layout.content, layout.memory
        found.children = [*((".", name, part) for name, part in layout.others), *found.children]
        return found

    def _held_by(self, kind: type, value: Any) -> Parts:
        """An object by what it has: attributes, and what the type below its class has."""
        found = self._attributes(kind, value, without=_none_of_a_module(kind, value))
        below = next((base for base in _said_of(kind, "__mro__") if base in BELOW), None)
        beneath = next((base for base in _speakers(kind) if self._is_of_a_library(base)), None)
        if below is not None:
            _add_items(found, below, value)
        elif beneath is not None and (_reduces(beneath) or not found.names):
            state = self._reduced(kind, value, beneath)
            found.children += [(" ", f"{_name(beneath)} {n}", part) for n, (_, _, part) in enumerate(state.children)]
        elif not found.names and not _layout(kind) and _said_of(kind, "__basicsize__") > object.__basicsize__:
            raise Incomparable(f"{found.label} does not show what it holds")
        return found

    def _reduced(self, kind: type, value: Any, speaker: Any) -> Parts:
        """An object by what its library says of it."""
        label, is_part = self._kind(kind)
        try:
            reduced = _reduce(kind, value, speaker)
        except Exception as error:
            raise Incomparable(f"{label} does not say what it holds ({type(error).__name__})") from error
        if isinstance(reduced, str):
            return by_name(f"{label} {reduced}")
        make, arguments, state, items, pairs = _five(reduced)
        children: list[Step] = [(".", "__class__", kind)] if is_part else []
        children += [(" ", "made by", make), *((" ", f"argument {i}", part) for i, part in enumerate(arguments))]
        children += _steps_of_state(state)
        children += [("[", i, part) for i, part in enumerate(items or ())]
        for number, (key, part) in enumerate(pairs or ()):
            children += [("key", number, key), ("[", key, part)]
        return Parts(label, names=tuple(f".{name}" for step, name, _ in children if step == "."), children=children)

    def _optimizer(self, kind: type, value: Any) -> Parts:
        """An optimizer; that its steps are counted for a scheduler is a wrapper that a restore makes anew."""
        counted = getattr(vars(value).get("step"), "_wrapped_by_lr_sched", False)
        found = self._attributes(kind, value, without=("step",) if counted else ())
        found.content = repr(counted).encode()
        found.children = [
            (step, name, _with_what_loading_adds(part) if name == "defaults" else part)
            for step, name, part in found.children
        ]
        return found

    def _scripted(self, kind: type, value: Any) -> Parts:
        """A scripted module: its tensors, and its code as text."""
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        code, children = text(str(getattr(value, "code", ""))), [(".", name, part) for name, part in tensors.items()]
        return Parts(self.label(kind), code, tuple(tensors), children)

    def _exception(self, error: BaseException) -> Parts:
        found = self._attributes(type(error), error)
        causes = error.__cause__, error.__context__, error.__suppress_context__
        arguments = vars(BaseException)["args"].__get__(error)
        before = [(".", "args", arguments), *((" ", f"cause {i}", cause) for i, cause in enumerate(causes))]
        found.children = [*before, *found.children]
        return found

    def _module(self, module: types.ModuleType) -> Parts:
        own = types.ModuleType.__getattribute__(module, "__dict__")
        name = own.get("__name__")
        if sys.modules.get(name) is module:
            return by_name(f"module {name}")
        names = [name for name in own if not (name.startswith("__") and name.endswith("__"))]
        return Parts(f"module {name}", names=tuple(f".{n}" for n in names), children=[(".", n, own[n]) for n in names])

    # --- classes ----------------------------------------------------------------------------------------------------

    def _class(self, cls: Any) -> Parts:
        label, is_part = self._kind(cls)
        if not is_part:
            return by_name(f"class {label}")
        if issubclass(cls, enum.Enum):
            return _enum(cls)
        own = {name: part for name, part in _said_of(cls, "__dict__").items() if _is_said(cls, name, part)}
        if type(cls) not in (type, abc.ABCMeta) and self._is_of_a_library(type(cls)):
            # What the metaclass of a library keeps in the class it makes anew.
            own = {name: part for name, part in own.items() if not name.startswith("__") or callable(part)}
        names = sorted(own)
        children: list[Step] = [(".", "__class__", type(cls))]
        children += [(" ", f"base {i}", base) for i, base in enumerate(cls.__bases__)]
        children += [(".", name, own[name]) for name in names]
        return Parts(f"class {_name(cls)}", names=tuple(f".{name}" for name in names), children=children)

    def _of_typing(self, value: Any) -> Parts:
        """A type variable, or a `NewType`."""
        names = ("__name__", "__bound__", "__constraints__", "__supertype__", "__covariant__", "__contravariant__")
        return Parts(self.label(type(value)), children=[(".", name, getattr(value, name, None)) for name in names])

    # --- functions --------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Parts:
        if _is_importable(function):
            return by_name(f"function {function.__module__}.{function.__qualname__}")
        said = repr((function.__qualname__, function.__module__, function.__doc__))
        closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        children: list[Step] = [
            *((".", name, getattr(function, name)) for name in ("__defaults__", "__kwdefaults__", "__annotations__")),
            *((" ", f"closure {name}", cell) for name, cell in closure),
            *((".", name, part) for name, part in sorted(function.__dict__.items())),
            *((" ", f"global {name}", part) for name, part in self._captured(function)),
        ]
        return Parts(f"function {function.__name__}", text(said) + code_digest(function.__code__), children=children)

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
            return by_name(f"function {function.__module__}.{function.__qualname__}")
        return Parts(f"method {function.__name__}", children=[(".", "__self__", home)])

    def _cached(self, cached: Any) -> Parts:
        if reducers.importable_by_name(cached):
            return by_name(f"function {cached.__module__}.{cached.__qualname__}")
        own = {name: part for name, part in vars(cached).items() if name != "cache_parameters"}
        children = [(".", name, own[name]) for name in sorted(own)]
        return Parts("cached function", repr(cached.cache_parameters()).encode(), children=children)


_OWN: dict[type, Callable[[Anatomy, Any], Parts]] = {
    types.FunctionType: Anatomy._function,
    types.BuiltinFunctionType: Anatomy._builtin,
    functools._lru_cache_wrapper: Anatomy._cached,
    **{
        getattr(typing, name): Anatomy._of_typing
        for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "NewType")
        if hasattr(typing, name)
    },
}
_OWN_OF_SUBCLASSES: list[tuple[type, Callable[[Anatomy, Any], Parts]]] = [
    (type, Anatomy._class),
    (types.ModuleType, Anatomy._module),
    (BaseException, Anatomy._exception),
]


def cell_classes(namespace: Mapping[str, Any], names: Iterable[str]) -> dict[int, str]:
    """The classes of cells among *names*, by id."""
    found: dict[int, str] = {}
    for name in names:
        value = namespace.get(name)
        if issubclass(type(value), type) and not _is_importable(value):
            found.setdefault(id(value), name)
    return found


def _global_stream(value: Any) -> str | None:
    """The name of a global random stream, which goes by name so that a seed reaches it."""
    streams = {
        "the stream of random": random._inst,
        "the stream of numpy.random": getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None),
        "the stream of torch": getattr(sys.modules.get("torch"), "default_generator", None),
    }
    return next((name for name, stream in streams.items() if stream is value is not None), None)


# --- what is importable, and what was installed ---------------------------------------------------------------------


def _said_of(kind: type, name: str) -> Any:
    """What `type` itself knows of a class, past its metaclass."""
    return type.__getattribute__(kind, name)


def _name(kind: type) -> str:
    name: str = _said_of(kind, "__qualname__")
    return name


def _is_importable(value: Any) -> bool:
    try:
        return value in _SINGLETONS or reducers._is_builtin_class(value) or reducers.importable(value)
    except Exception:  # noqa: BLE001 - a metaclass may raise when its class is asked for anything
        return False


def _was_installed(module: Any) -> bool:
    own = vars(module) if isinstance(module, types.ModuleType) else {}
    if not own or own.get("__name__") == "__main__":
        return False
    file = own.get("__file__")
    if not isinstance(file, str):
        return getattr(own.get("__spec__"), "origin", None) in ("built-in", "frozen") or module is builtins
    return "site-packages" in file or "dist-packages" in file or file.startswith(_STANDARD_LIBRARY)


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
    for base in _said_of(kind, "__mro__"):
        own = _said_of(base, "__dict__")
        if type(own.get("__dict__")) is types.GetSetDescriptorType:
            found.setdefault("__dict__", own["__dict__"])
        if "__slots__" in own:
            slots = {name: d for name, d in own.items() if type(d) is types.MemberDescriptorType}
            found = {**slots, **found}
    return tuple(found.items())


def _add_items(found: Parts, below: type, value: Any) -> None:
    """Add what an object has of the builtin type below its class."""
    items = BELOW[below](value)
    found.label += items.label.removeprefix(below.__name__)
    found.content, found.unordered, found.runs = items.content, items.unordered, items.runs
    found.memory = items.memory
    found.names += items.names
    found.children += items.children
    if issubclass(type(value), collections.defaultdict):
        factory = vars(collections.defaultdict)["default_factory"].__get__(value)
        found.children.append((".", "default_factory", factory))


def _is_said(cls: type, name: str, value: Any) -> bool:
    """Whether the body of a class says *name*, and does not only repeat what its bases have."""
    is_slot = type(value) in (types.MemberDescriptorType, types.GetSetDescriptorType) and value.__objclass__ is cls
    return (
        name not in _NOT_OF_A_CLASS
        and not is_slot
        and not any(vars(b).get(name, cls) is value for b in _said_of(cls, "__bases__"))
    )


def _enum(cls: Any) -> Parts:
    """An enum: its members in their order, and the functions that the cell gave it."""
    own = {n: v for n, v in vars(cls).items() if isinstance(v, (types.FunctionType, property, classmethod))}
    names = sorted(name for name in own if not name.startswith("_"))
    children: list[Step] = [(" ", f"base {i}", base) for i, base in enumerate(cls.__bases__)]
    for name, member in cls.__members__.items():
        beside = {n: held for n, held in vars(member).items() if n not in _NOT_BESIDE_A_MEMBER}
        children += [(".", name, member._value_), (" ", f"beside {name}", beside)]
    children += [(".", name, own[name]) for name in names]
    return Parts(f"enum {_name(cls)}", repr((*cls.__members__, *names)).encode(), children=children)


# --- what libraries say ---------------------------------------------------------------------------------------------


def _speakers(kind: type) -> Iterator[type]:
    """The bases of *kind* that say how to pickle, but for those that are read item by item."""
    read = (*_READ_ITEM_BY_ITEM, *_torch_modules())
    for base in _said_of(kind, "__mro__"):
        own = _said_of(base, "__dict__")
        if base not in read and any(name in own for name in _SAY_HOW):
            yield base


def _reduces(speaker: Any) -> bool:
    own = _said_of(speaker, "__dict__")
    return "__reduce_ex__" in own or "__reduce__" in own


def _reduce(kind: Any, value: Any, speaker: Any) -> Any:
    """Ask the library's own method, past those of the user's class above it."""
    if _said_of(kind, "__module__") == "pyarrow.lib":
        getattr(value, "null_count", None)  # counted when it is asked for, and from then on a part of what pyarrow says
    if not isinstance(speaker, type):
        return speaker(value)
    if "__reduce_ex__" in vars(speaker):
        return vars(speaker)["__reduce_ex__"](value, _PROTOCOL)
    if "__reduce__" in vars(speaker):
        return vars(speaker)["__reduce__"](value)
    return kind.__reduce_ex__(value, _PROTOCOL)


def _five(reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """What makes an object, from what, its state, its items and its pairs; None where nothing is said."""
    return (*reduced, None, None, None)[:5]


def _steps_of_state(state: Any) -> list[Step]:
    """The parts of a state: attributes by name where it is what `object` says of itself."""
    whole = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or (type(part) is dict and all(type(n) is str for n in part)) for part in whole):
        return [(" ", "state", state)]
    merged = {name: held for part in whole if part for name, held in part.items()}
    return [(".", name, merged[name]) for name in sorted(merged)]


def _torch_modules() -> tuple[type, ...]:
    nn = getattr(sys.modules.get("torch"), "nn", None)
    return (nn.Module,) if nn is not None and hasattr(nn, "Module") else ()


def _none_of_a_module(kind: type, module: Any) -> tuple[str, ...]:
    """The attributes of a torch module that do not count: what was compiled, and hooks that are empty.

    `Module.__setstate__` adds those that a half-made module has not got.
    """
    if not issubclass(kind, _torch_modules()):
        return ()
    is_empty = {
        name
        for name, held in _held(kind, module)
        if held is None or (type(held) in (dict, set, collections.OrderedDict) and not held)
    }
    return ("_compiled_call_impl", *(n for n in is_empty if "hook" in n or n == "_non_persistent_buffers_set"))


def _with_what_loading_adds(defaults: Any) -> Any:
    """The defaults of an optimizer with what every `Optimizer.__setstate__` puts into them."""
    return {**defaults, "differentiable": defaults.get("differentiable", False)} if type(defaults) is dict else defaults
