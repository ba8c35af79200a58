"""The notebook that a run executes: read, refused, numbered; and what its cells show, also from earlier attempts.

Outputs that a cell printed before it runs again stay above a mark and are out of reach of the cell: nothing that it
clears or updates touches them. Knows no kernels, and no files but the one that is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipyrescue.errors import RunError
from ipyrescue.runs.notebook_format import nbformat
from ipyrescue.runs.plan import CONTINUE_TAG, Code, chains, runs

KEY = "ipyrescue"
"""Where notebook and cells hold our metadata."""


def read(path: Path) -> tuple[Any, bytes]:
    """A notebook, in today's format, and the bytes of its file. Raises RunError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"The notebook {path} cannot be read: {error.strerror}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that are missing: they are made up
            notebook = nbformat.reads(data.decode("utf-8"), as_version=4)
            _, notebook = nbformat.validator.normalize(notebook)
        nbformat.validate(notebook)
    except Exception as error:
        raise RunError(
            f"{path} is no notebook that can be run: {type(error).__name__}: {_first_line(error)}"
        ) from error
    return notebook, data


def refuse_other_languages(notebook: Any, path: Path) -> None:
    """Raise RunError where the notebook says that it is not Python."""
    spec, info = notebook.metadata.get("kernelspec", {}), notebook.metadata.get("language_info", {})
    language = str(spec.get("language") or info.get("name") or "python")
    if language.lower() not in ("python", "ipython", "python3"):
        raise RunError(f"{path.name} is a notebook in {language}; ipyrescue runs notebooks in Python.")


def numbered(notebook: Any) -> list[Code]:
    """The cells that run: code, not empty, not tagged to be skipped."""
    places = [place for place, cell in enumerate(notebook.cells) if _runs(cell)]
    cells = [notebook.cells[place] for place in places]
    found = chains(cell.source for cell in cells)
    return [
        Code(number, place, chain, continues=CONTINUE_TAG in cell.metadata.get("tags", ()))
        for number, (place, cell, chain) in enumerate(zip(places, cells, found, strict=True), 1)
    ]


def digest(notebook: Any) -> str:
    """A hash of what a person writes in a notebook: its cells, without what they show."""
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode("utf-8")).hexdigest()


def is_as_written(notebook: Any) -> bool:
    """Whether a run wrote it, and nobody has edited its cells since."""
    said = notebook.metadata.get(KEY)
    return isinstance(said, dict) and said.get("cells") == digest(notebook)


def plain(notebook: Any) -> str:
    """The notebook's cells as the text of a file, without what they show."""
    cells = [
        nbformat.NotebookNode({**cell, "outputs": [], "execution_count": None}) if cell.cell_type == "code" else cell
        for cell in notebook.cells
    ]
    written: str = nbformat.v4.writes(nbformat.NotebookNode({**notebook, "cells": cells}))
    return written


class Document:
    """A notebook that is being run."""

    def __init__(self, notebook: Any, cells: Sequence[Code], earlier: Any | None, run: str) -> None:
        """Take over what the cells showed in *earlier*, as far as they, and all before them, are unchanged."""
        self.notebook = notebook
        self.cells = cells
        self._kept: dict[int, list[Any]] = {}
        shown = {_chain(cell): cell for cell in earlier.cells if _chain(cell)} if earlier is not None else {}
        for code in cells:
            _take_over(notebook.cells[code.index], shown.get(code.chain))
        notebook.metadata[KEY] = {"run": run, "cells": digest(notebook)}

    def cell(self, code: Code) -> Any:
        """The notebook's cell."""
        return self.notebook.cells[code.index]

    def state(self, code: Code) -> str | None:
        """What was last marked."""
        state: str | None = self.cell(code).metadata.get(KEY, {}).get("state")
        return state

    def mark(self, code: Code, state: str) -> None:
        """Note how far a cell has come: `running`, `done`, `failed`, `died`, `stopped`."""
        self.cell(code).metadata[KEY] = {"state": state, "chain": code.chain}

    def settle(self) -> None:
        """Make what was kept a part of the outputs."""
        for place, outputs in self._kept.items():
            self.notebook.cells[place].outputs[:0] = outputs
        self._kept.clear()

    def keep(self, code: Code, mark: str) -> None:
        """Keep what a cell shows by now above a *mark*, before it runs again. Outputs must be settled."""
        cell = self.cell(code)
        self._kept[code.index] = [*cell.outputs, nbformat.v4.new_output("stream", name="stderr", text=f"{mark}\n")]
        cell.outputs = []

    def text(self) -> str:
        """The whole as the text of a notebook file, valid whatever the cells have shown."""
        whole = self._composed()
        try:
            nbformat.validate(whole)
        except nbformat.ValidationError:
            _replace_invalid(whole)
            nbformat.validate(whole)
        written: str = nbformat.v4.writes(whole)
        return written if written.endswith("\n") else written + "\n"

    def _composed(self) -> Any:
        cells = list(self.notebook.cells)
        for place, outputs in self._kept.items():
            cells[place] = nbformat.NotebookNode({**cells[place], "outputs": [*outputs, *cells[place].outputs]})
        return nbformat.NotebookNode({**self.notebook, "cells": cells})


def _runs(cell: Any) -> bool:
    return bool(cell.cell_type == "code" and runs(cell.source, cell.metadata.get("tags", ())))


def _chain(cell: Any) -> str | None:
    said = cell.metadata.get(KEY)
    return said.get("chain") if isinstance(said, dict) and cell.cell_type == "code" else None


def _take_over(cell: Any, shown: Any | None) -> None:
    """What *shown* says of a cell; without it the cell has not run."""
    for name in ("execution", KEY):
        cell.metadata.pop(name, None)
        if shown is not None and name in shown.metadata:
            cell.metadata[name] = shown.metadata[name]
    outputs, count = (list(shown.outputs), shown.execution_count) if shown is not None else ([], None)
    cell.outputs, cell.execution_count = outputs, count


def _replace_invalid(notebook: Any) -> None:
    """Put a sentence in the place of each output that a notebook cannot hold: one must not cost all the others."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = [_valid(output, notebook.nbformat_minor) for output in cell.outputs]


def _valid(output: Any, minor: int) -> Any:
    with contextlib.suppress(nbformat.ValidationError):
        nbformat.validate(output, ref="output", version=4, version_minor=minor)
        return output
    text = f"--- ipyrescue: an output of the type {output.get('output_type')} is left out: it is not valid ---\n"
    return nbformat.v4.new_output("stream", name="stderr", text=text)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
