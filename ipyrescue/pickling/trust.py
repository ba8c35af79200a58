"""Which objects are taken apart by code whose manners are known: the interpreter's, and that of libraries in the tests.

All other code (a `__reduce__` of a cell, an extension module) may sleep, crash, allocate without end or change the very
object that it was asked about. It is looked for by type, past metaclasses, without running any of it. Not known is what
a cell wrote over a method of a library after the library's class was made: only what pickling itself calls is looked at
there.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

_TRUSTED = sys.stdlib_module_names - {"__main__"} | {
    "numpy", "torch", "pandas", "scipy", "sklearn", "pyarrow", "polars", "networkx", "sympy", "PIL", "matplotlib",
    "cloudpickle", "dill", "IPython", "ipykernel", "traitlets", "ipyrescue",
}  # fmt: skip
"""Packages that the fidelity cases pickle."""

_OF_CYTHON = "_cython_"
"""Where Cython's functions have their type, which is pickled by its name."""

_WAYS = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")
"""How a class says how its objects pickle."""
_ASKED = (
    *_WAYS, "__getinitargs__", "__getattribute__", "__getattr__", "__class__", "__dict__", "__torch_function__",
    "__torch_dispatch__", "__array_finalize__",
)  # fmt: skip
"""What pickling may call, whatever the class."""

_ASKED_BY_C = frozenset({
    "items", "__iter__", "__len__", "__length_hint__", "args", "__cause__", "__context__", "__suppress_context__",
})  # fmt: skip
"""What pickling asks the interpreter's own containers and exceptions for; of other classes these are no concern."""
_MODULES_IN_C = frozenset({"builtins", "collections", "datetime", "functools"})
_ASKED_BY: dict[tuple[str, str], frozenset[str]] = {
    ("enum", "Enum"): frozenset({"name", "value", "_name_", "_value_"}),
    ("torch.nn.modules.module", "Module"): frozenset(),
    ("torch.optim.optimizer", "Optimizer"): frozenset({"defaults", "state", "param_groups"}),
    ("sklearn.base", "BaseEstimator"): frozenset(),
}
"""What libraries' classes whose way of pickling is known ask their objects for; others may ask for anything."""
_NEVER_ASKED = frozenset({
    "__init__", "__new__", "__repr__", "__eq__", "__ne__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__",
    "__call__", "__setattr__", "__delattr__", "__init_subclass__", "__subclasshook__", "__class_getitem__",
    "__annotate__", "__annotate_func__",
})  # fmt: skip
_NEVER_ASKED_OF_CLASSES = (_NEVER_ASKED - {"__eq__", "__ne__", "__hash__"}) | {
    "__prepare__", "__str__", "__dir__", "__or__", "__ror__", "__instancecheck__", "__subclasscheck__", "__getitem__",
    "__contains__", "mro",
}  # fmt: skip

_LISTS_OF_ATTRIBUTES = ("__slots__", "__slotnames__", "__dataclass_fields__", "_metadata")
"""Where the interpreter, dataclasses and pandas look up what to read off an object."""
_LISTS = (tuple, list, dict, set, frozenset)

_WRITTEN_IN_C = (
    types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType, types.BuiltinFunctionType,
)  # fmt: skip
_FIELDS = (types.GetSetDescriptorType, types.MemberDescriptorType)

attributes_of = type.__dict__["__dict__"].__get__
"""The attributes of a class, past what its metaclass says they are."""
name_of = type.__dict__["__qualname__"].__get__
"""The qualified name of a class, likewise."""
_module_of = type.__dict__["__module__"]
_lineage = type.__dict__["__mro__"].__get__


class Trust:
    """Answers for types, each once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[type, bool]] = {}

    def knows(self, kind: type) -> bool:
        """Whether pickling an object of *kind* runs code of known manners only, what it holds aside."""
        known = self._known.get(id(kind))
        if known is None:
            known = self._known[id(kind)] = kind, _is_known(kind)
        return known[1]

    def knows_class(self, cls: type) -> bool:
        """Whether taking *cls* itself apart does; the class of an enum asks its members."""
        if not _is_known_metaclass(type(cls)):
            return False
        if issubclass(cls, enum.Enum):
            return self.knows(cls)
        return _names(attributes_of(cls).get("__slots__")) is not None


def _is_known(kind: type) -> bool:
    if not _is_known_metaclass(type(kind)):
        return False
    registered = copyreg.dispatch_table.get(kind)
    if registered is not None:
        return _is_trusted_callable(registered)
    return (
        all(_is_trusted_method(kind, name) for name in _ASKED)
        and all(_runs_no_code_when_read(kind, name) for name in _read_off(kind))
        and not _stands_in_for_what_is_asked(kind)
    )


def _is_known_metaclass(meta: type) -> bool:
    """Whether asking a class of *meta* for what it is runs no code of unknown manners."""
    if meta is type:
        return True
    asked = {"__getattr__"}.union(*(attributes_of(base) for base in _lineage(meta) if _is_trusted_class(base)))
    return _is_known_metaclass(type(meta)) and not any(
        name in asked and name not in _NEVER_ASKED_OF_CLASSES for name, _ in _own_code(meta)
    )


def _own_code(kind: type) -> Iterator[tuple[str, Any]]:
    """What classes of unknown manners in the lineage of *kind* have of code of theirs, by name."""
    for base in _lineage(kind):
        if not _is_trusted_class(base):
            for name, value in list(attributes_of(base).items()):
                if _may_run(value) and not _is_trusted_code(value, base):
                    yield name, value


# --- what is called ---------------------------------------------------------------------------------------------


def _is_trusted_method(kind: type, name: str) -> bool:
    base = _home(kind, name)
    return base is None or _is_trusted_code(attributes_of(base)[name], base)


def _home(kind: type, name: str) -> type | None:
    return next((base for base in _lineage(kind) if name in attributes_of(base)), None)


def _stands_in_for_what_is_asked(kind: type) -> bool:
    """Whether code of unknown manners overrides what the code that says how *kind* pickles may ask its objects for."""
    may_ask = _may_ask(kind)
    trusted = [base for base in _lineage(kind) if base is not object and _is_trusted_class(base)]
    for name, value in _own_code(kind) if trusted else ():
        overrides = any(name in attributes_of(base) for base in trusted)
        if (overrides and name in _ASKED_BY_C) or name in (may_ask or ()):
            return True
        # A property may stand in for what every object of the library's class holds.
        if may_ask is None and name not in _NEVER_ASKED and (overrides or type(value) is not types.FunctionType):
            return True
    return False


def _may_ask(kind: type) -> frozenset[str] | None:
    """What the library that says how *kind* pickles asks its objects for, or None: it may ask for anything."""
    asked: frozenset[str] = frozenset()
    for home in (_home(kind, way) for way in _WAYS):
        if home is None or not _is_trusted_class(home) or _module(home) in _MODULES_IN_C:
            continue
        of_home = _ASKED_BY.get((_module(home), name_of(home)))
        if of_home is None:
            return None
        asked |= of_home
    return asked


# --- what is read -----------------------------------------------------------------------------------------------


def _read_off(kind: type) -> Iterator[str | None]:
    """The attributes that are read off every object of *kind*; None for a list that is not known to be one."""
    for base in _lineage(kind):
        for listed in _LISTS_OF_ATTRIBUTES:
            names = _names(attributes_of(base).get(listed))
            yield from (None,) if names is None and not _is_trusted_class(base) else names or ()


def _names(listed: Any) -> list[Any] | None:
    """The names in a list of attributes, or None where looking at it could run code."""
    if listed is None or type(listed) is str:
        return [listed] if listed else []
    return list(listed) if any(type(listed) is kind for kind in _LISTS) else None


def _runs_no_code_when_read(kind: type, name: str | None) -> bool:
    if type(name) is not str:
        return False
    base = _home(kind, name)
    if base is None:
        return True
    value = attributes_of(base)[name]
    return type(value) is types.FunctionType or not _defines(type(value), "__get__") or _is_trusted_code(value, base)


# --- whose code it is -------------------------------------------------------------------------------------------


def _may_run(value: Any) -> bool:
    return _defines(type(value), "__call__") or _defines(type(value), "__get__")


def _defines(kind: type, name: str) -> bool:
    return _home(kind, name) is not None


def _is_trusted_code(code: Any, home: type) -> bool:
    """Whether *code*, found in class *home*, is of a trusted package."""
    if any(type(code) is kind for kind in (classmethod, staticmethod)):
        return _is_trusted_code(code.__func__, home)
    if type(code) is property and type(code.fget) is types.FunctionType:
        return _is_trusted_function(code.fget)
    if type(code) is types.FunctionType:
        return _is_trusted_function(code)
    if any(type(code) is kind for kind in _FIELDS):
        return True
    if any(type(code) is kind for kind in _WRITTEN_IN_C) and type(getattr(code, "__module__", None)) is str:
        return _is_trusted_name(code.__module__)
    return _is_trusted_class(home)


def _is_trusted_function(function: types.FunctionType, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a function is a package's, with all that it closes over: what decorates a function calls it."""
    if not _is_trusted_name(dict.get(function.__globals__, "__name__")):
        return False
    seen |= {id(function)}
    return all(id(value) in seen or _is_trusted_callable(value, seen) for value in _closed_over(function))


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # it is still empty
            continue
        if _defines(type(value), "__call__"):
            yield value
    yield from (function.__dict__[name] for name in ("__wrapped__",) if name in function.__dict__)


def _is_trusted_callable(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    if type(value) is types.FunctionType:
        return _is_trusted_function(value, seen)
    if type(value) is types.MethodType or type(value) is functools.partial:
        return _is_trusted_callable(value.__func__ if type(value) is types.MethodType else value.func, seen)
    if type(value) is types.BuiltinFunctionType:
        return True
    return _is_trusted_class(value if issubclass(type(value), type) else type(value))


def _is_trusted_class(cls: type) -> bool:
    return _is_trusted_name(_module(cls))


def _module(cls: type) -> Any:
    says = attributes_of(type(cls)).get("__module__")  # of Cython's classes only their metaclass knows
    try:
        module = (says if type(says) is types.GetSetDescriptorType else _module_of).__get__(cls)
    except AttributeError:  # an extension's class may have none
        return None
    if type(module) is types.MemberDescriptorType:  # its objects have a module each: no class of Python can be so
        return _OF_CYTHON
    return module if type(module) is str else None


def _is_trusted_name(module: Any) -> bool:
    return type(module) is str and (module.partition(".")[0] in _TRUSTED or module.startswith(_OF_CYTHON))
