"""Parameters of a notebook, as papermill has them: texts of a command line into a cell that follows the tagged one.

From papermill (https://papermill.readthedocs.io): the cell tagged `parameters` holds the defaults; after it, or at the
top where there is none, stands a cell tagged `injected-parameters`, replaced if it is there; a text is typed as
papermill's `-p` types it (`_resolve_type` in papermill/cli.py): None, a boolean, an integer, a number, else a text.
"""

from __future__ import annotations

import ast
import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import nbformat

TAG = "parameters"
INJECTED_TAG = "injected-parameters"


def typed(text: str) -> Any:
    """The value that a text of the command line stands for."""
    constants = {"True": True, "False": False, "None": None}
    if text in constants:
        return constants[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def inject(notebook: Any, parameters: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Put the values of these names into *notebook*; return what is to be said about them."""
    if not parameters:
        return ()
    values = dict(parameters)
    lines = ["# Parameters", *(f"{name} = {_literal(typed(text))}" for name, text in values.items())]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": [INJECTED_TAG]})
    cells = notebook.cells
    injected, tagged = _place(cells, INJECTED_TAG), _place(cells, TAG)
    if injected is not None:
        _insert(notebook, cell, injected, replaces=True)
    else:
        _insert(notebook, cell, 0 if tagged is None else tagged + 1)
    return tuple(_warnings(values, None if tagged is None else notebook.cells[_place(cells, TAG)].source))


def _place(cells: Sequence[Any], tag: str) -> int | None:
    return next((place for place, cell in enumerate(cells) if tag in cell.metadata.get("tags", ())), None)


def _insert(notebook: Any, cell: Any, place: int, *, replaces: bool = False) -> None:
    if replaces and "id" in notebook.cells[place]:
        cell["id"] = notebook.cells[place]["id"]
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        cell.pop("id", None)
    notebook.cells[place : place + replaces] = [cell]


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def _warnings(values: Iterable[str], source: str | None) -> Iterable[str]:
    if source is None:
        yield "No cell is tagged `parameters`, so the parameters stand before the first cell, and later cells win."
        return
    with contextlib.suppress(SyntaxError):
        known = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        unknown = [name for name in values if name not in known]
        if unknown:
            yield f"The cell tagged `parameters` knows no {', '.join(unknown)}."
