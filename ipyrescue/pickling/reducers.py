"""How things refuse or come apart: functions, closures, classes and modules that no import brings back.

What a cell defines goes by value. A function's globals come back as the live namespace, so it sees every later
change; closure cells are created empty and filled once the function stands, so that cells shared by two closures
stay shared and recursion through a closure closes again. Classes, code objects and the odd types of `typing`
come apart by cloudpickle's reducers (https://github.com/cloudpipe/cloudpickle), without its class tracker, which
would rewrite a live class of the same id while decoding. Bytecode belongs to one minor version of Python: a code object
says which, and no other makes it again.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import operator
import os
import random
import site
import socket
import sys
import sysconfig
import threading
import types
import typing
import weakref
from collections.abc import Mapping
from typing import Any

import cloudpickle.cloudpickle as cp

from ipyrescue import environment
from ipyrescue.addresses import address_of
from ipyrescue.errors import RestoreError
from ipyrescue.pickling import placeholders

Reduced = tuple[Any, ...]


class Refused(TypeError):  # noqa: N818 - a refusal is data in the end, not an error
    """An object of a kind that is never saved: *args[0]* is the reason in words."""


class OtherPythonError(RestoreError):
    """Bytecode of another Python, which could crash this one if it ran: *args[0]* says of which."""


_NEVER = {
    io.TextIOWrapper: "an open file",
    io.BufferedReader: "an open file",
    io.BufferedWriter: "an open file",
    io.BufferedRandom: "an open file",
    io.FileIO: "an open file",
    socket.socket: "a socket",
    threading.Thread: "a thread",
    types.GeneratorType: "generator",
    types.CoroutineType: "coroutine",
    types.AsyncGeneratorType: "async generator",
    types.FrameType: "a running frame",
    types.TracebackType: "a traceback",
}
_NEVER_BY_NAME = {
    ("_asyncio", "Task"): "a task of an event loop",
    ("_asyncio", "Future"): "a future of an event loop",
}
_SINGLETON_TYPES = (type(None), type(...), type(NotImplemented))


class LiveNamespace:
    """Stands in a stream for the globals of cell functions: the namespace into which a restore binds."""

    def __reduce__(self) -> Reduced:
        return placeholders.namespace, ()


LIVE_NAMESPACE = LiveNamespace()


def never_saved(kind: type) -> str | None:
    """Why objects of *kind* are never saved: open files, sockets, threads, what is bound to the interpreter."""
    for base in kind.__mro__:
        reason = _NEVER.get(base) or _NEVER_BY_NAME.get((base.__module__, base.__name__))
        if reason:
            return reason
    return None


def importable(value: Any) -> bool:
    """Whether an import brings this very function, class or module back."""
    return bool(cp._should_pickle_by_reference(value)) or _is_found_by_import(value)


def _is_found_by_import(value: Any) -> bool:
    """Whether a module that nobody has imported yet has *value*: `numpy.recarray` says that it lives in `numpy.rec`.

    Only an installed library is asked: to import a module of the user would run it.
    """
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or module in sys.modules or "<locals>" in value.__qualname__:
        return False
    if not _is_of_library(module):
        return False
    with contextlib.suppress(Exception):
        return operator.attrgetter(value.__qualname__)(importlib.import_module(module)) is value
    return False


def _is_of_library(module: str) -> bool:
    """Whether *module* is inside a package that is imported already, and installed or the interpreter's own."""
    package, dot, _ = module.partition(".")
    home = sys.modules.get(package)
    file = vars(home).get("__file__") if issubclass(type(home), types.ModuleType) else None
    if not dot or type(file) is not str:
        return False
    return package in sys.stdlib_module_names or os.path.realpath(file).startswith(_LIBRARIES)


_LIBRARIES = tuple(os.path.join(os.path.realpath(folder), "") for folder in (
    sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages(), site.getusersitepackages(),
))  # fmt: skip


def is_cell_class(value: Any) -> bool:
    """Whether *value* is a class that no import brings back."""
    return issubclass(type(value), type) and not _is_builtin_class(value) and not importable(value)


def _is_builtin_class(cls: type) -> bool:
    return cls in _SINGLETON_TYPES or (type(cls) is type and cls in cp._BUILTIN_TYPE_NAMES)


def reduce_importable_class(cls: type) -> Any:
    """Reduce a class by reference, the interpreter's own nameless ones included.

    A string is a name to `pickle`, which keeps dill from taking the class apart after all.
    """
    return cp._class_reduce(cls) if _is_builtin_class(cls) else cls.__qualname__


def reduce_function(
    function: types.FunctionType, namespace: dict[str, Any], other_globals: dict[int, dict[str, Any]]
) -> Any:
    """Take a function of a cell apart, or say that an import brings it back."""
    if importable(function):
        return function.__qualname__
    home, captured = _globals_of(function, namespace, other_globals)
    state = {
        "captured": captured,
        "cells": [(cell, cell.cell_contents) for cell in function.__closure__ or () if _is_filled(cell)],
        "attributes": function.__dict__ or None,
        "fields": {name: getattr(function, name) for name in _FUNCTION_FIELDS if hasattr(function, name)},
    }
    arguments = (function.__code__, home, function.__name__, None, function.__closure__)
    return make_function, arguments, state, None, None, set_function_state


_FUNCTION_FIELDS = (
    "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__",
)  # fmt: skip


def _globals_of(
    function: types.FunctionType, namespace: dict[str, Any], other_globals: dict[int, dict[str, Any]]
) -> tuple[Any, dict[str, Any] | None]:
    """A function's globals as what a stream can hold, and those of their entries that must travel with it."""
    live = function.__globals__
    if live is namespace:
        return LIVE_NAMESPACE, None
    module = sys.modules.get(live.get("__name__", ""))
    if module is not None and module.__dict__ is live:
        return ModuleGlobals(module.__name__), None
    for value in list(namespace.values()):
        if value is live:
            return live, None
        if type(value) is types.ModuleType and vars(value) is live:
            return DictOf(value), None
    shared = other_globals.setdefault(id(live), {})
    return shared, {name: live[name] for name in cp._extract_code_globals(function.__code__) if name in live}


class DictOf:
    """Stands in a stream for the dictionary of an object, which is the object's own again; filled with *content*."""

    def __init__(self, owner: Any, content: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        self.owner = owner
        self.content = content

    def __reduce__(self) -> Reduced:
        return vars, (self.owner,)


def dict_of(value: Any) -> Any:
    """The dictionary that holds the attributes of an object, past every property; None where it has none."""
    for base in type.__getattribute__(type(value), "__mro__"):
        descriptor = type.__getattribute__(base, "__dict__").get("__dict__")
        if type(descriptor) in (types.GetSetDescriptorType, types.MemberDescriptorType):
            return descriptor.__get__(value)
    return None


def set_own_state(owner: Any, state: Any) -> None:
    """Give an object the state that is its own dictionary, as `pickle` does, or the object itself as dictionary."""
    if hasattr(type(owner), "__setstate__"):
        owner.__setstate__(state)
    elif dict_of(owner) is not state:
        object.__setattr__(owner, "__dict__", state)


def set_state_around_dict(owner: Any, state: tuple[dict[str, Any], Any]) -> None:
    """Give an object its state as `pickle` does, and leave it the dictionary that others hold too."""
    own, told = state
    if hasattr(type(owner), "__setstate__"):
        owner.__setstate__(told)
    else:
        attributes, slots = told if type(told) is tuple else (told, None)
        own.update(attributes or {})
        for name, value in (slots or {}).items():
            setattr(owner, name, value)
    made = dict_of(owner)
    if made is not own:
        own.update(made)
        object.__setattr__(owner, "__dict__", own)


def reduce_module(module: types.ModuleType) -> Any:
    """Reduce a module that no import brings back to an empty one, which is filled once it can be referred to."""
    if importable(module):
        return cp._module_reduce(module)
    state = {name: value for name, value in vars(module).items() if name != "__builtins__"}
    return types.ModuleType, (module.__name__,), state, None, None, set_module_state


def set_module_state(module: types.ModuleType, state: dict[str, Any]) -> None:
    """Fill a module."""
    vars(module).update(state)
    vars(module)["__builtins__"] = __builtins__


def reduce_keys(view: Any) -> Reduced:
    """Reduce the keys of a dictionary to those of the same one."""
    return dict.keys, (gc.get_referents(view)[0],)


def reduce_values(view: Any) -> Reduced:
    """Reduce the values of a dictionary to those of the same one."""
    return dict.values, (gc.get_referents(view)[0],)


def reduce_items(view: Any) -> Reduced:
    """Reduce the items of a dictionary to those of the same one."""
    return dict.items, (gc.get_referents(view)[0],)


class ModuleGlobals:
    """Stands in a stream for the globals of an importable module, home of a nameless function."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> Reduced:
        return module_globals, (self.module,)


def module_globals(name: str) -> dict[str, Any]:
    """Import a module and return its namespace."""
    return importlib.import_module(name).__dict__


def reduce_code(code: types.CodeType) -> Reduced:
    """Reduce a code object to its parts and the Python that they are for."""
    return make_code, (python(), *cp._code_reduce(code)[1])


def make_code(made_by: str, *parts: Any) -> types.CodeType:
    """Make a code object; its bytecode is refused where another Python made it. Raises `OtherPythonError`."""
    if made_by != python():
        raise OtherPythonError(f"made by {made_by}, this is {python()}")
    return types.CodeType(*parts)


def python() -> str | None:
    """The Python whose bytecode this process runs."""
    return environment.python(environment.process())


def make_function(
    code: types.CodeType, home: dict[str, Any], name: str, _defaults: None, closure: tuple[Any, ...] | None
) -> types.FunctionType:
    """Make a function whose closure cells may still be empty."""
    return types.FunctionType(code, home, name, None, closure)


def set_function_state(function: types.FunctionType, state: dict[str, Any]) -> None:
    """Fill what a function refers to, once the function itself can be referred to."""
    if state["captured"] is not None:
        function.__globals__.update(state["captured"])
        function.__globals__.setdefault("__builtins__", __builtins__)
    for cell, contents in state["cells"]:
        cell.cell_contents = contents
    function.__dict__.update(state["attributes"] or {})
    for name, value in state["fields"].items():
        setattr(function, name, value)


def reduce_method(method: types.MethodType) -> Any:
    """Reduce a class method of a library by its name: its function alone is nothing that an import finds."""
    owner, name = method.__self__, method.__func__.__name__
    if issubclass(type(owner), type) and importable(owner) and getattr(owner, name, None) == method:
        return getattr, (owner, name)
    return NotImplemented


def reduce_cell(cell: types.CellType, *, filled_later: bool) -> Reduced:
    """Reduce a closure cell to an empty one, which the function that owns it fills; alone, it keeps its contents."""
    if filled_later or not _is_filled(cell):
        return make_cell, ()
    return make_cell, (), cell.cell_contents, None, None, set_cell


def set_cell(cell: types.CellType, contents: Any) -> None:
    """Fill a closure cell that no function owns."""
    cell.cell_contents = contents


def make_cell() -> types.CellType:
    """Make an empty closure cell."""
    return types.CellType()


def reduce_cached(cached: Any) -> Any:
    """Reduce a function of a cell under `functools.lru_cache`, which would go by a name of `__main__`; empty again."""
    if importable_by_name(cached):
        return cached.__qualname__
    parameters = cached.cache_parameters()
    beside = {name: value for name, value in vars(cached).items() if name not in vars(cached.__wrapped__)}
    arguments = (cached.__wrapped__, parameters["maxsize"], parameters["typed"])
    return make_cached, arguments, {name: v for name, v in beside.items() if name not in _SET_BY_WRAPS} or None


_SET_BY_WRAPS = frozenset({*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "cache_parameters"})


def make_cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Wrap a function in an empty cache."""
    return functools.lru_cache(maxsize, typed)(function)


def reduce_new_type(new_type: Any) -> Any:
    """Reduce a `typing.NewType` of a cell, which would go by a name of `__main__`."""
    if importable_by_name(new_type):
        return new_type.__qualname__
    return typing.NewType, (new_type.__name__, new_type.__supertype__), {"__module__": new_type.__module__}


def reduce_type_parameter(parameter: Any) -> Any:
    """Reduce a `ParamSpec` or `TypeVarTuple` of a cell, which would go by a name of `__main__`."""
    if importable_by_name(parameter):
        return parameter.__name__
    return type(parameter), (parameter.__name__,)


def importable_by_name(value: Any) -> bool:
    """Whether a module other than `__main__` has *value* under its own name."""
    name = getattr(value, "__qualname__", value.__name__)
    return value.__module__ != "__main__" and getattr(sys.modules.get(value.__module__), name, None) is value


def reduce_random(stream: random.Random) -> Any:
    """Reduce a random stream; the one behind `random.randint` and its kin goes by name, so that a seed reaches it."""
    return "_inst" if stream is random._inst else NotImplemented


def reduce_global_stream(stream: Any) -> Any:
    """The same for NumPy's legacy stream and torch's default generator."""
    numpy, torch = sys.modules.get("numpy.random.mtrand"), sys.modules.get("torch")
    if numpy is not None and stream is getattr(numpy, "_rand", None):
        return "_rand"
    return "default_generator" if torch is not None and stream is torch.default_generator else NotImplemented


def reduce_missing(_value: Any) -> str:
    """Reduce `dataclasses.MISSING` by name: dataclasses ask for its identity."""
    return "MISSING"


def reduce_lock(_lock: Any) -> Reduced:
    """Reduce a lock to a new one that nobody holds: whoever held it is gone."""
    return make_lock, ()


def make_lock() -> Any:
    """Make a lock. `threading.Lock` itself goes by a name that Python 3.13 changed."""
    return threading.Lock()


def reduce_reentrant_lock(_lock: Any) -> Reduced:
    """Reduce a reentrant lock to a new one that nobody holds."""
    return threading.RLock, ()


def reduce_exception(error: BaseException) -> Any:
    """Reduce an exception with what raised it, without calling an `__init__` whose arguments need not be `args`."""
    kind = type(error)
    if kind.__reduce__ is not BaseException.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__:
        own: Any = error.__reduce__()
        make, arguments, attributes = own if len(own) == 3 else (*own, None)
    elif kind.__reduce_ex__ is not object.__reduce_ex__:
        return NotImplemented
    else:
        make, arguments, attributes = make_exception, (kind, error.args), error.__dict__ or None
    causes = (error.__cause__, error.__context__, error.__suppress_context__)
    if causes[0] is None and causes[1] is None and not causes[2]:
        return make, arguments, attributes
    return make, arguments, (attributes, *causes), None, None, set_exception_state


def set_exception_state(error: BaseException, state: Reduced) -> None:
    """Give an exception its attributes, and those that came before it."""
    attributes, cause, context, suppress = state
    if attributes is not None:
        error.__setstate__(attributes)
    error.__cause__, error.__context__, error.__suppress_context__ = cause, context, suppress


def make_exception(cls: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """Make an exception that has these `args`."""
    return cls.__new__(cls, *arguments)


def reduce_weak_reference(reference: weakref.ReferenceType[Any]) -> Reduced:
    """Reduce a weak reference to one to the same object; a callback is not kept."""
    return make_weak_reference, (reference(),)


def make_weak_reference(value: Any) -> Any:
    """Make a weak reference; a dead one where its object was gone already."""
    return weakref.ref(_Gone() if value is None else value)


def reduce_weak_method(reference: Any) -> Reduced:
    """Reduce a weak reference to a method to one to the same method."""
    method = reference()
    return (weakref.WeakMethod, (method,)) if method is not None else (make_weak_reference, (None,))


def reduce_weak_proxy(proxy: Any) -> Reduced:
    """Reduce a weak proxy to one of the same object, which forwarded attributes tell; a dead one is refused."""
    try:
        return weakref.proxy, (proxy.__str__.__self__,)
    except ReferenceError:
        raise Refused("a weak proxy of an object that is gone") from None


def reduce_weak_values(values: Any) -> Reduced:
    """Reduce a dictionary with weak values to one that is filled anew."""
    return weakref.WeakValueDictionary, (), None, None, iter(list(values.items()))


def reduce_mapping_proxy(proxy: Any) -> Reduced:
    """Reduce a read-only view of a dictionary to one of the same dictionary."""
    return types.MappingProxyType, (gc.get_referents(proxy)[0],)


def reduce_memoryview(view: memoryview) -> Reduced:
    """Reduce a view of Python's own bytes to one of the same bytes."""
    if not view.c_contiguous or type(view.obj) not in (bytes, bytearray):
        raise Refused("a memoryview of another kind of memory")
    offset = address_of(view) - address_of(memoryview(view.obj)) if view.nbytes else 0
    return make_memoryview, (view.obj, offset, view.nbytes, view.format, view.shape, view.readonly)


def make_memoryview(
    home: Any, offset: int, size_bytes: int, kind: str, shape: tuple[int, ...], readonly: bool
) -> memoryview:
    """View a part of *home* as elements of *kind*."""
    view = memoryview(home)[offset : offset + size_bytes]
    if view.format != kind or view.shape != shape:
        view = view.cast(kind, shape)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


class _Gone:
    """Something that dies at once, for a weak reference to point at."""


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
