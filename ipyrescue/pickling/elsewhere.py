"""Things that a variable only points at: they belong to the interpreter or to a library, and come back by name.

`os.environ` is not copied (it holds whatever secrets the environment does), `sys.stdout` is the new kernel's, and a
sentinel such as `dataclasses.MISSING` or `numpy`'s own stays the one whose identity its library asks for.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ipyrescue.pickling import placeholders

Reduced = tuple[Any, ...]

_PLACES = (
    ("os", "environ"), ("os", "environb"), ("sys", "modules"), ("sys", "path"), ("sys", "stdout"), ("sys", "stderr"),
    ("sys", "stdin"), ("sys", "argv"),
)  # fmt: skip
_NAMESPACE = ("__main__", "__dict__")


class Places:
    """Where things of this process live, by identity; sentinels are looked for when the first one is met."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, str]] = {}
        self._sentinels: dict[int, tuple[str, str]] | None = None
        for module, name in _PLACES:
            if module in sys.modules and hasattr(sys.modules[module], name):
                self._known[id(getattr(sys.modules[module], name))] = module, name
        self._known[id(vars(sys.modules["__main__"]))] = _NAMESPACE
        if shell := _shell():
            self._known[id(shell)] = "IPython.core.getipython", "get_ipython()"

    def __contains__(self, identity: int) -> bool:
        return identity in self._known

    def of(self, value: Any) -> tuple[str, str] | None:
        """Module and name of *value*, or None where it is a value like others."""
        known = self._known.get(id(value))
        if known is None and type(value) is object:
            if self._sentinels is None:
                self._sentinels = _find_sentinels()
            known = self._sentinels.get(id(value))
        return known


class Pointer:
    """Stands in a stream for what lives elsewhere."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def __reduce__(self) -> Reduced:
        return reduce(self._place)


def reduce(place: tuple[str, str]) -> Reduced:
    """Reduce something to its place; `globals()` to the namespace into which a restore binds."""
    return (placeholders.namespace, ()) if place == _NAMESPACE else (fetch, place)


def fetch(module: str, name: str) -> Any:
    """Return what stands at a place in this process."""
    home = importlib.import_module(module)
    return getattr(home, name.removesuffix("()"))() if name.endswith("()") else getattr(home, name)


def class_constants() -> set[int]:
    """The identities of mutable class attributes that pandas writes into the state of every instance."""
    generic: Any = sys.modules.get("pandas.core.generic")
    pending, found = [generic.NDFrame] if hasattr(generic, "NDFrame") else [], set()
    while pending:
        kind = pending.pop()
        found.add(id(kind._metadata))
        pending.extend(kind.__subclasses__())
    return found


def _shell() -> Any:
    """The interactive shell of this process, without importing IPython."""
    module = sys.modules.get("IPython.core.getipython")
    return None if module is None else module.get_ipython()


def _find_sentinels() -> dict[int, tuple[str, str]]:
    """Every plain `object()` that a module other than `__main__` holds by a name."""
    found: dict[int, tuple[str, str]] = {}
    mine = sys.modules["__main__"]
    for module, home in list(sys.modules.items()):
        if type(home) is type(sys) and home is not mine and home.__name__ != mine.__name__:
            for name, value in list(vars(home).items()):
                if type(value) is object:
                    found.setdefault(id(value), (module, name))
    return found
