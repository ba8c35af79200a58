"""Which objects are taken apart by code whose manners are known: the interpreter's, and that of libraries in the tests.

All other code (a `__reduce__` of a cell, an extension module) may sleep, crash, allocate without end or change the very
object that it was asked about. It is looked for by type, past metaclasses, without running any of it.
"""

from __future__ import annotations

import copyreg
import sys
import types
from typing import Any

_TRUSTED = sys.stdlib_module_names - {"__main__"} | {
    "numpy", "torch", "pandas", "scipy", "sklearn", "pyarrow", "polars", "networkx", "sympy", "PIL", "matplotlib",
    "cloudpickle", "dill", "IPython", "ipykernel", "traitlets", "ipyrescue",
}  # fmt: skip
"""Packages that the fidelity cases pickle."""

_OF_CYTHON = "_cython_"
"""Where Cython's functions have their type, which is pickled by its name."""

_ASKED = (
    "__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__", "__getattribute__",
    "__getattr__", "__class__", "__dict__", "__torch_function__", "__torch_dispatch__", "__array_finalize__",
)  # fmt: skip
"""What pickling may call."""
_ASKED_OF = {dict: ("items", "__iter__"), list: ("__iter__", "__len__"), set: ("__iter__",), frozenset: ("__iter__",)}
_WRITTEN_IN_C = (
    types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
    types.BuiltinFunctionType, types.GetSetDescriptorType,
)  # fmt: skip


class Trust:
    """Answers for types, each once."""

    def __init__(self) -> None:
        self._known: dict[type, bool] = {}

    def knows(self, kind: type) -> bool:
        """Whether pickling an object of *kind* runs code of known manners only, what it holds aside."""
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = _is_known(kind)
        return known


def _is_known(kind: type) -> bool:
    registered = copyreg.dispatch_table.get(kind)
    if registered is not None:
        return _is_trusted_code(registered, kind)
    asked = [*_ASKED, *(name for base, names in _ASKED_OF.items() if issubclass(kind, base) for name in names)]
    return all(_is_trusted_method(kind, name) for name in asked)


def _is_trusted_method(kind: type, name: str) -> bool:
    for base in type.__getattribute__(kind, "__mro__"):
        own = type.__getattribute__(base, "__dict__")
        if name in own:
            return _is_trusted_code(own[name], base)
    return True


def _is_trusted_code(code: Any, home: type) -> bool:
    """Whether *code*, found in class *home*, is of a trusted package; what a decorator wrote is the decorator's."""
    if type(code) in (classmethod, staticmethod):
        code = code.__func__
    if type(code) is types.GetSetDescriptorType:
        return True
    if type(code) is types.FunctionType:
        return _is_trusted_name(code.__globals__.get("__name__"))
    if type(code) in _WRITTEN_IN_C and isinstance(getattr(code, "__module__", None), str):
        return _is_trusted_name(code.__module__)
    return _is_trusted_name(type.__getattribute__(home, "__module__"))


def _is_trusted_name(module: Any) -> bool:
    return type(module) is str and (module.partition(".")[0] in _TRUSTED or module.startswith(_OF_CYTHON))
