"""Classes of cells: taken apart to what their bodies said, made again without running the hooks of making a class.

A class that is decoded was made before: its `__init_subclass__`, its metaclass's `__new__` and `__init__` have had
their effect, which comes back with the variables that hold it. So decoding calls `type.__new__` (or that of the nearest
metaclass that an import brings), keeps the `__init_subclass__` of other cell classes from running, and sets attributes
past every `__setattr__`. The dictionary of a class comes apart by cloudpickle
(https://github.com/cloudpipe/cloudpickle), without its class tracker, which would rewrite a live class of the same id.
"""

from __future__ import annotations

import abc
import enum
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle.cloudpickle as cp

Reduced = tuple[Any, ...]

_AT_CREATION = ("__module__", "__qualname__", "__slots__", "__orig_bases__", "__class__")
_KEPT_BY_COPYREG = "__slotnames__"
"""There once an instance was pickled: with it the class would not be the same bytes again."""
_MADE_WITH_A_FLAG = "_iter_member_"
"""Each Python gives a flag its own function of this name, which would come apart to bytecode."""
_OF_AN_ENUM_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})


def reduce_class(cls: type, is_cell_class: Callable[[Any], bool]) -> Reduced:
    """Take a class of a cell apart; decoding always builds a fresh one."""
    if issubclass(cls, enum.Enum):
        return _reduce_enum(cls)
    meta = type(cls)
    home = _home(meta, is_cell_class)
    bases = cp._get_bases(cls) if home is None else cls.__bases__
    body = {"__qualname__": cls.__qualname__, **{n: cls.__dict__[n] for n in _AT_CREATION if n in cls.__dict__}}
    quiet = tuple(c for c in cls.__mro__[1:] if "__init_subclass__" in c.__dict__ and is_cell_class(c))
    return make_class, (meta, home, cls.__name__, bases, body, quiet), _state(cls), None, None, set_class_state


def _home(meta: type, is_cell_class: Callable[[Any], bool]) -> type | None:
    """The metaclass whose `__new__` makes the class, or None where a library's metaclass is to do all that it does."""
    if meta not in (type, abc.ABCMeta) and not is_cell_class(meta):
        return None
    return next(m for m in meta.__mro__ if "__new__" in m.__dict__ and not is_cell_class(m))


def _state(cls: type) -> Reduced:
    attributes, _ = cp._class_getstate(cls)
    kept = {
        name: value
        for name, value in attributes.items()
        if name not in _AT_CREATION and name != _KEPT_BY_COPYREG and not _is_slot(cls, value)
    }  # fmt: skip
    return kept, kept.pop("_abc_impl", None)


def _is_slot(cls: type, value: Any) -> bool:
    """Whether *value* is what `__slots__` and the interpreter put into a class."""
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return any(type(value) is kind for kind in kinds) and value.__objclass__ is cls


def make_class(
    meta: type, home: type | None, name: str, bases: tuple[Any, ...], body: dict[str, Any], quiet: tuple[type, ...]
) -> type:
    """Make a class that has no attributes yet; none of the hooks that cells define is run."""
    if home is None:
        return types.new_class(name, bases, {"metaclass": meta}, lambda namespace: namespace.update(body))
    with _hushed(quiet):
        made: type = home.__new__(meta, name, bases, dict(body))
    return made


@contextmanager
def _hushed(classes: tuple[type, ...]) -> Iterator[None]:
    """Keep the `__init_subclass__` of *classes* from running; they are fresh ones, which nobody else sees yet."""
    hooks = {cls: cls.__dict__["__init_subclass__"] for cls in classes if "__init_subclass__" in cls.__dict__}
    for cls in hooks:
        type.__setattr__(cls, "__init_subclass__", classmethod(_do_nothing))
    try:
        yield
    finally:
        for cls, hook in hooks.items():
            type.__setattr__(cls, "__init_subclass__", hook)


def _do_nothing(_cls: Any, /, **_keywords: Any) -> None:
    """Stand for an `__init_subclass__` that has run before."""


def set_class_state(cls: type, state: Reduced) -> None:
    """Fill a class, once it can be referred to; virtual subclasses of an ABC are registered again."""
    attributes, registered = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    if "__firstlineno__" in attributes:  # Python 3.13 deletes it when `__module__` or another attribute is set
        type.__setattr__(cls, "__firstlineno__", attributes["__firstlineno__"])
    for subclass in registered or ():
        abc.ABCMeta.register(cls, subclass)  # type: ignore[arg-type]


# --- enums ------------------------------------------------------------------------------------------------------


def _reduce_enum(cls: Any) -> Reduced:
    """Take an enum apart: names and values (aliases too), its methods, and what members hold beside their value."""
    members = {name: member._value_ for name, member in cls.__members__.items()}
    attributes, _ = cp._enum_getstate(cls)
    attributes = {n: value for n, value in attributes.items() if n not in members and n != _MADE_WITH_A_FLAG}
    held = {name: _beside_value(member) for name, member in cls.__members__.items()}
    arguments = (cls.__bases__, cls.__name__, cls.__qualname__, members, cls.__module__)
    return make_enum, arguments, (attributes, {name: d for name, d in held.items() if d}), None, None, set_enum_state


def _beside_value(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _OF_AN_ENUM_MEMBER}


def make_enum(bases: tuple[type, ...], name: str, qualname: str, members: dict[str, Any], module: str) -> Any:
    """Make an enum that has its members, and no methods yet."""
    return cp._make_skeleton_enum(bases, name, qualname, members, module, None, None)


def set_enum_state(cls: Any, state: Reduced) -> None:
    """Give an enum its methods, and its members what they hold beside their value."""
    attributes, held = state
    cp._class_setstate(cls, (attributes, {}))
    for name, beside in held.items():
        vars(cls[name]).update(beside)
