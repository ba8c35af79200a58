"""Names that stand in a stream for what only the decoding session has: memory, the live namespace, cell classes.

A stream refers to these functions by name; `ipyrescue.pickling.pickler.GroupUnpickler` resolves the names to
the session's own methods. Called in any other way, they say that the stream needs a session.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ipyrescue.errors import RestoreError


def _refuse(*_: Any) -> NoReturn:
    raise RestoreError("This stream belongs to an ipyrescue snapshot. Read it with %restore_vars.")


def storage(key: int) -> Any:
    """Stand for the memory of storage number *key* of the group."""
    _refuse(key)


def namespace() -> Any:
    """Stand for the live namespace, into which functions defined in cells look for their globals."""
    _refuse()


def cell_class(key: str) -> Any:
    """Stand for a class defined in a cell, which a group of its own holds."""
    _refuse(key)
