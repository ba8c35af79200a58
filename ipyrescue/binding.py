"""bind: values under names, in the live namespace or beside it, with a journal by which all of it can be taken back.

The last stage of a restore. Knows names and values; no snapshots, no bytes.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any

from ipyrescue.errors import RestoreError

_ABSENT = object()


class Beside(dict[str, Any]):
    """The globals of functions that are restored beside the live names: what was restored with them, else the live.

    Python asks `__missing__` for a global wherever a function's globals are not exactly a dict.
    """

    def __init__(self, live: MutableMapping[str, Any]) -> None:
        super().__init__(__builtins__=live.get("__builtins__", builtins))
        self._live = live

    def __missing__(self, name: str) -> Any:
        return self._live[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._live

    def borrowed(self, code: types.CodeType) -> set[str]:
        """The variables that *code* finds among the live ones only."""
        wanted = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        return {
            name
            for name in wanted - self.keys()
            if name in self._live and not issubclass(type(self._live[name]), types.ModuleType)
        }


def borrowed_names(value: Any) -> list[str]:
    """The live variables that a function finds, or those of a class, though it was restored beside them; sorted.

    A snapshot of it holds copies of them: it knows one namespace, and what is not that belongs to the function.
    """
    held = type.__getattribute__(value, "__dict__").values() if issubclass(type(value), type) else (value,)
    functions = [function for function in held if type(function) is types.FunctionType]
    found = [f.__globals__.borrowed(f.__code__) for f in functions if type(f.__globals__) is Beside]
    return sorted(set().union(*found))


class Before:
    """What a restore found: the objects that it replaced, by reference, and how else it can be taken back."""

    def __init__(self, target: MutableMapping[str, Any]) -> None:
        self._target = target
        self._values: dict[str, Any] = {}
        self._changes: list[tuple[str, Callable[[], object]]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The names that were bound, sorted."""
        return tuple(sorted(self._values))

    @property
    def new(self) -> tuple[str, ...]:
        """Those that were not there before, sorted."""
        return tuple(sorted(name for name, value in self._values.items() if value is _ABSENT))

    @property
    def replaced(self) -> tuple[str, ...]:
        """Those that are bound to another object now than before, sorted."""
        old = [(name, value) for name, value in self._values.items() if value is not _ABSENT]
        return tuple(sorted(name for name, value in old if value is not self._target.get(name)))

    @property
    def changes(self) -> tuple[str, ...]:
        """What else was changed, in words."""
        return tuple(words for words, _ in self._changes)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed."""
        return not self._values and not self._changes

    def note_name(self, name: str) -> None:
        """Keep what is bound to *name*, before it is bound to something else."""
        self._values.setdefault(name, self._target.get(name, _ABSENT))

    def note_change(self, words: str, undo: Callable[[], object]) -> None:
        """Keep how to undo a change of something else than a name."""
        self._changes.append((words, undo))

    def come_back(self) -> None:
        """Make everything what it was: names that were not there go, the others are the same objects again."""
        for _, undo in reversed(self._changes):
            undo()
        for name, value in self._values.items():
            if value is _ABSENT:
                self._target.pop(name, None)
            else:
                self._target[name] = value


class Journal:
    """Binds names and notes what was there before, so that all of it can be undone, at once or later.

    Names go into *namespace*, each behind *prefix*, or *into* another mapping. As a context it takes everything back
    whatever raises, and raises `RestoreError` for an exception.
    """

    def __init__(
        self, namespace: dict[str, Any], *, prefix: str = "", into: MutableMapping[str, Any] | None = None
    ) -> None:
        self.is_beside = bool(prefix) or into is not None
        self.globals: dict[str, Any] = Beside(namespace) if self.is_beside else namespace
        self._target = namespace if into is None else into
        self._prefix = prefix
        self.before = Before(self._target)
        self.bound: dict[str, Any] = {}

    def bind(self, name: str, value: Any) -> None:
        """Bind one name of the snapshot."""
        here = self._prefix + name
        self.before.note_name(here)
        if self.is_beside:
            self.globals[name] = value
        self._target[here] = value
        self.bound[name] = value

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        self.before.come_back()
        if isinstance(error, Exception):
            raise RestoreError(f"Nothing was restored, the namespace is as it was: {error}") from error
