"""A case: a cell, and what must be true of its names after a SIGKILL and a restore in a new kernel.

Plain data; knows neither kernels nor rivals. The names that a case binds are its own: all the cases of a session live
in one namespace, as the cells of a notebook do.
"""

from __future__ import annotations

import importlib
import symtable
from dataclasses import dataclass

SESSIONS = (
    ("identity", "memory", "tensors"),
    ("modules", "training"),
    ("arrays", "libraries"),
    ("classes", "functions", "values"),
    ("session",),
    ("hostile",),
    ("rules",),
)
"""The families that share a namespace and a kill: to import torch takes longer than to judge a hundred cases."""

FAMILIES = tuple(name for session in SESSIONS for name in session)

EXACT, NAMED, LOST = "exact", "named", "lost"


@dataclass(frozen=True)
class Case:
    """One thing that people have in a namespace.

    *holds* are cells that must end in something true (or just end); *same* are expressions whose value must be, down
    to the last bit, what it was before the kill. Both are judged live first. *named* says, as `name: words`, what the
    reports must tell because it cannot come back. *known* explains why a case is not yet as it should be.
    """

    name: str
    setup: str
    holds: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    known: str = ""

    @property
    def expected(self) -> str:
        """The verdict that this case is to get."""
        return NAMED if self.named else EXACT


@dataclass(frozen=True)
class Family:
    """The cases of one topic; *prelude* are the imports that all of them use, *examples* are for a reader's eye."""

    name: str
    title: str
    examples: str
    prelude: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one case: `exact`, `named` or `lost`, and why it is not exact."""

    case: str
    outcome: str
    why: str = ""


def case(
    name: str,
    setup: str,
    holds: str | list[str] = (),  # type: ignore[assignment]
    same: str | list[str] = (),  # type: ignore[assignment]
    named: str | list[str] = (),  # type: ignore[assignment]
    known: str = "",
) -> Case:
    """Write a case shortly: one text stands for a list of one."""
    return Case(name, setup.strip("\n"), _several(holds), _several(same), _several(named), known)


def load(name: str) -> Family:
    """Read one family from its file."""
    module = importlib.import_module(f"fidelity.families.{name}")
    return Family(name, module.TITLE, module.EXAMPLES, module.PRELUDE, tuple(module.CASES))


def bound_names(source: str) -> set[str]:
    """The names that a cell binds."""
    symbols = symtable.symtable(source, "<case>", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}


def _several(texts: str | list[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)
