"""bind: values under names, in the live namespace or beside it, with a journal by which all of it can be taken back.

The last stage of a restore. Knows names and values; no snapshots, no bytes.
"""

from __future__ import annotations

import builtins
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


class Journal:
    """Binds names and remembers what was there, so that all of it can be undone, at once or later.

    Names go into *namespace*, each behind *prefix*, or *into* another mapping. As a context it rolls back whatever
    raises, and raises `RestoreError` for an exception.
    """

    def __init__(
        self, namespace: dict[str, Any], *, prefix: str = "", into: MutableMapping[str, Any] | None = None
    ) -> None:
        self.is_beside = bool(prefix) or into is not None
        self.globals: dict[str, Any] = Beside(namespace) if self.is_beside else namespace
        self._target = namespace if into is None else into
        self._prefix = prefix
        self._before: dict[str, Any] = {}
        self._bound: dict[str, Any] = {}
        self._undoings: list[Callable[[], object]] = []

    @property
    def bound(self) -> dict[str, Any]:
        """What was bound so far, under the names of the snapshot."""
        return dict(self._bound)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are bound now, with their prefix, sorted."""
        return tuple(sorted(self._before))

    @property
    def replaced(self) -> tuple[str, ...]:
        """Those of them that were bound to another object before, sorted."""
        before = self._before.items()
        return tuple(sorted(n for n, value in before if value is not _ABSENT and value is not self._target.get(n)))

    def bind(self, name: str, value: Any) -> None:
        """Bind one name of the snapshot."""
        here = self._prefix + name
        self._before.setdefault(here, self._target.get(here, _ABSENT))
        if self.is_beside:
            self.globals[name] = value
        self._target[here] = value
        self._bound[name] = value

    def changed(self, undo: Callable[[], object]) -> None:
        """Note that something else was changed too; *undo* makes it what it was."""
        self._undoings.append(undo)

    def roll_back(self) -> None:
        """Make everything what it was: names that were not there go, the others are the same objects again."""
        for undo in reversed(self._undoings):
            undo()
        for name, value in self._before.items():
            if value is _ABSENT:
                self._target.pop(name, None)
            else:
                self._target[name] = value

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        self.roll_back()
        if isinstance(error, Exception):
            raise RestoreError(f"Nothing was restored, the namespace is as it was: {error}") from error
