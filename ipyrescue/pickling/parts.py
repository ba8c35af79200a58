"""What the builtin things of Python consist of, for comparing them: kind, content, and parts in their order.

Nothing here depends on who asks: containers, numbers, texts, buffers, descriptors, weak references, code. Objects,
classes and functions are the business of `anatomy`.
"""

from __future__ import annotations

import collections
import gc
import hashlib
import pickle
import struct
import types
import weakref
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ipyrescue.addresses import address_of
from ipyrescue.pickling.array_parts import Memory

_RUN = 1024
"""So many numbers or texts of one type in a row are one part."""
_SHORTEST_RUN = 9


class Incomparable(Exception):  # noqa: N818 - not an error: an answer
    """A value of which nobody can say whether another one is the same; *args[0]* says why."""


Step = tuple[str, Any, Any]


@dataclass(slots=True)
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


def by_name(label: str) -> Parts:
    """What an import brings, or what else a name stands for."""
    return Parts(label, alike=True)


def text(value: str) -> bytes:
    """The bytes of any text, lone surrogates included."""
    return value.encode("utf-8", "surrogatepass")


def hashed(content: Any) -> bytes:
    """A hash of bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


# --- values without parts -------------------------------------------------------------------------------------------


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _integers(run: Any) -> bytes:
    try:
        return array("q", run).tobytes()
    except OverflowError:
        return b" ".join(_integer(value).hex().encode() for value in run)


def _two_floats(real: float, imaginary: float) -> bytes:
    return struct.pack("<dd", real, imaginary)


ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    bool: lambda value: b"1" if value else b"0",
    int: _integer,
    float: struct.Struct("<d").pack,
    complex: lambda value: _two_floats(value.real, value.imag),
    str: text,
    bytes: bytes,
    range: lambda value: repr(value).encode(),
}
"""Values without parts and without identity, and their bytes."""

_RUNS: dict[type, Callable[[Any], bytes]] = {
    bool: bytes,
    int: _integers,
    float: lambda run: array("d", run).tobytes(),
    str: lambda run: text(repr(run)),
}


# --- containers -----------------------------------------------------------------------------------------------------


def _sequence(kind: str, items: Any) -> Parts:
    """A list or tuple; long runs of numbers or texts of one type are hashed at once."""
    label = f"{kind} of {len(items)}"
    kinds = set(map(type, items)) if len(items) >= _SHORTEST_RUN else set()
    pack = _RUNS.get(next(iter(kinds))) if len(kinds) == 1 else None
    if pack is None:
        return Parts(label, children=[("[", i, item) for i, item in enumerate(items)])
    name = next(iter(kinds)).__name__
    spans = [(at, min(at + _RUN, len(items))) for at in range(0, len(items), _RUN)]
    return Parts(label, runs=[(f"{begin}:{end}", name, hashed(pack(items[begin:end]))) for begin, end in spans])


def _mapping(kind: str, pairs: Any) -> Parts:
    """A dictionary, in its order."""
    items = list(pairs)
    label = f"{kind} of {len(items)}"
    if all(type(key) is str for key, _ in items):
        names = tuple(f"[{key!r}]" for key, _ in items)
        return Parts(label, names=names, children=[("[", key, part) for key, part in items])
    children: list[Step] = []
    for number, (key, part) in enumerate(items):
        children += [("key", number, key), ("[", key, part)]
    return Parts(label, children=children)


def _set(kind: str, elements: Any) -> Parts:
    return Parts(f"{kind} of {len(elements)}", unordered=elements)


def _items_of(value: Any) -> Any:
    """The items of a dictionary, past the methods of its class."""
    is_ordered = issubclass(type(value), collections.OrderedDict)
    return collections.OrderedDict.items(value) if is_ordered else dict.items(value)


def _deque(value: Any) -> Parts:
    longest = collections.deque.maxlen.__get__(value)
    return _sequence(f"deque (at most {longest})", list(collections.deque.__iter__(value)))


# --- memory ---------------------------------------------------------------------------------------------------------


def _byte_array(value: Any) -> Parts:
    with memoryview(value) as view:
        size_bytes = view.nbytes
        memory = Memory("cpu", address_of(view), size_bytes, value) if size_bytes else None
    return Parts(f"bytearray of {size_bytes}", memory=memory)


def _view(view: memoryview) -> Parts:
    facts = (view.format, view.shape, view.readonly)
    if type(view.obj) not in (bytes, bytearray) or not view.c_contiguous:
        return Parts("memoryview", repr(facts).encode() + hashed(view.tobytes()))
    offset = address_of(view) - address_of(memoryview(view.obj)) if view.nbytes else 0
    return Parts("memoryview", repr((*facts, offset)).encode(), children=[(".", "obj", view.obj)])


def _out_of_band(buffer: Any) -> Parts:
    with buffer.raw() as view:
        return Parts(f"buffer of {view.nbytes}", hashed(view))


# --- references and descriptors -------------------------------------------------------------------------------------


def _proxy(proxy: Any) -> Parts:
    try:
        return Parts("weak proxy", children=[(" ", "target", proxy.__str__.__self__)])
    except ReferenceError:
        return Parts("weak proxy of what is gone")


def _cell(cell: types.CellType) -> Parts:
    try:
        return Parts("closure cell", children=[(" ", "contents", cell.cell_contents)])
    except ValueError:
        return Parts("empty closure cell")


def _descriptor(value: Any) -> Parts:
    home = getattr(value, "__objclass__", None)
    return by_name(f"{type(value).__name__} {getattr(home, '__qualname__', '')}.{value.__name__}")


def _attributes_of(label: str, *names: str) -> Callable[[Any], Parts]:
    """How to take apart what is known by these attributes of C."""
    return lambda value: Parts(label, children=[(".", name, getattr(value, name)) for name in names])


EXACT: dict[type, Callable[[Any], Parts]] = {
    list: lambda value: _sequence("list", value),
    tuple: lambda value: _sequence("tuple", value),
    dict: lambda value: _mapping("dict", value.items()),
    set: lambda value: _set("set", value),
    frozenset: lambda value: _set("frozenset", value),
    bytearray: _byte_array,
    memoryview: _view,
    slice: _attributes_of("slice", "start", "stop", "step"),
    pickle.PickleBuffer: _out_of_band,
    types.CodeType: lambda value: Parts("code", code_digest(value)),
    types.CellType: _cell,
    types.MethodType: _attributes_of("method", "__func__", "__self__"),
    types.MethodWrapperType: _attributes_of("method", "__name__", "__self__"),
    types.WrapperDescriptorType: _descriptor,
    types.MethodDescriptorType: _descriptor,
    types.ClassMethodDescriptorType: _descriptor,
    types.GetSetDescriptorType: _descriptor,
    types.MemberDescriptorType: _descriptor,
    types.MappingProxyType: lambda value: Parts("mappingproxy", children=[(" ", "of", gc.get_referents(value)[0])]),
    property: _attributes_of("property", "fget", "fset", "fdel", "__doc__"),
    classmethod: _attributes_of("classmethod", "__func__"),
    staticmethod: _attributes_of("staticmethod", "__func__"),
    super: _attributes_of("super", "__thisclass__", "__self__"),
    weakref.ProxyType: _proxy,
    weakref.CallableProxyType: _proxy,
    weakref.finalize: lambda _: Parts("weakref.finalize"),
}
"""How things of exactly these types come apart."""

PLAIN = frozenset({list, tuple, dict, set, frozenset})

OF_SUBCLASSES: list[tuple[type, Callable[[Any], Parts]]] = [
    (weakref.ReferenceType, lambda value: Parts("weak reference", children=[(" ", "target", value())])),
    (weakref.WeakSet, lambda value: _set("weakref.WeakSet", list(value))),
    (weakref.WeakValueDictionary, lambda value: _mapping("weak dict", weakref.WeakValueDictionary.items(value))),
    (weakref.WeakKeyDictionary, lambda value: _mapping("weak dict", weakref.WeakKeyDictionary.items(value))),
]
"""How things of these types and of their subclasses come apart."""

BELOW: dict[type, Callable[[Any], Parts]] = {
    dict: lambda value: _mapping("dict", _items_of(value)),
    list: lambda value: _sequence("list", list.__getitem__(value, slice(None))),
    tuple: lambda value: _sequence("tuple", tuple.__getitem__(value, slice(None))),
    set: lambda value: _set("set", list(set.__iter__(value))),
    frozenset: lambda value: _set("frozenset", list(frozenset.__iter__(value))),
    collections.deque: _deque,
    str: lambda value: Parts("str", text(str.__str__(value))),
    bytes: lambda value: Parts("bytes", bytes.__getitem__(value, slice(None))),
    bytearray: _byte_array,
    int: lambda value: Parts("int", _integer(int.__int__(value))),
    float: lambda value: Parts("float", struct.pack("<d", float.__float__(value))),
    complex: lambda value: Parts("complex", _two_floats(complex.real.__get__(value), complex.imag.__get__(value))),
}
"""What an object has of the builtin type below its class, read past the methods of that class."""


# --- code -----------------------------------------------------------------------------------------------------------

_CODE_FIELDS = (
    "co_name", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags", "co_names", "co_varnames",
    "co_freevars", "co_cellvars", "co_code",
)  # fmt: skip


def code_digest(code: types.CodeType) -> bytes:
    """A hash of what a function does: its bytecode, names and constants, those inside it included."""
    said = [repr(getattr(code, name)) for name in _CODE_FIELDS]
    said += [_constant(constant) for constant in code.co_consts]
    return hashed(text("\n".join(said)))


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return code_digest(value).hex()
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    atom = ATOMS.get(type(value))
    return f"{type(value).__name__} {atom(value).hex()}" if atom is not None else type(value).__name__
