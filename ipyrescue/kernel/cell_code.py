"""Which code was typed into a cell of this notebook, in this session or in the one that was restored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import CodeType
from typing import Any

from ipyrescue.capture.headers import in_linecache

_OF_CELLS = re.compile(
    r"<ipython-input-.*>|<timed (?:exec|eval)>"  # IPython's own; what %%time runs
    r"|.*[/\\]ipykernel_\d+[/\\]\d+\.py"  # ipykernel's, of any kernel
)
_LOOKING = re.compile(r"%(?:snapshots\b.*|checkpoint_vars\s+--status\b.*|restore_vars\b.*\s--(?:dry-run|list)\b.*)")


def only_looks(source: str) -> bool:
    """Whether a cell is nothing but magics of ours that change no variable: it leaves nothing to be saved."""
    lines = [line.strip() for line in source.splitlines()]
    said = [line for line in lines if line and not line.startswith("#")]
    return bool(said) and all(_LOOKING.fullmatch(line) for line in said)


class CellCode:
    """Tells code of cells by its file name. *cells* maps a name of the namespace to the cell that bound it."""

    def __init__(self, shell: Any, cells: Mapping[str, int]) -> None:
        self._shell = shell
        self._cells = cells

    def is_cell(self, code: CodeType) -> bool:
        """Whether a cell defined it. What was restored bears the file names of the kernel that died."""
        filename = code.co_filename
        return filename in self._numbers() or _OF_CELLS.fullmatch(filename) is not None

    def number(self, code: CodeType) -> int | None:
        """The execution count of the cell that defined it; of restored code, of the cell that bound its name."""
        known = self._numbers().get(code.co_filename)
        if known is not None:
            return known
        name: str = getattr(code, "co_qualname", code.co_name)
        return self._cells.get(name.partition(".")[0])

    def source(self, code: CodeType) -> str | None:
        """The text that *code* was compiled from; %%time compiles what stands below it without leaving a trace."""
        if not code.co_filename.startswith("<timed"):
            return in_linecache(code)
        first, _, body = self._shell.history_manager.input_hist_raw[-1].lstrip().partition("\n")
        return self._shell.transform_cell(body) if first.startswith("%%time") else None

    def _numbers(self) -> Mapping[str, int]:
        numbers: Mapping[str, int] = getattr(self._shell.compile, "_filename_map", {})
        return numbers
