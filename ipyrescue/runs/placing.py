"""Where the outputs of a run go, and which notebook has those of before: never over what a person wrote.

Turns a record and what stands on the disk into a Place. Writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyrescue.errors import RunError
from ipyrescue.runs import document
from ipyrescue.runs.document import Document
from ipyrescue.runs.outputs import Written, free_name
from ipyrescue.runs.plan import Code
from ipyrescue.runs.record import Record


@dataclass(frozen=True)
class Place:
    """Where the outputs go, what stands there that may be replaced, and the notebook of earlier outputs, if any.

    *refused* says why it is not the file where they stood, or were to stand.
    """

    path: Path
    written: Written | None
    earlier: Any | None
    refused: str | None = None


def aside(record: Record) -> Path:
    """The name for outputs that cannot go where they were to go."""
    return Path(record.source).with_suffix(".run.ipynb")


def place(record: Record, source_data: bytes) -> Place:
    """For a run that begins or goes on; *source_data* are the bytes of its notebook, which may be its output too.

    Never over another notebook, cells of ours that were edited there, or a file that somebody saved after the run had
    ended. Raises RunError.
    """
    source, path = Path(record.source), Path(record.output or aside(record))
    resumes = record.attempt > 0
    if _is_same(path, source):
        return Place(path, Written.of(source, source_data), document.read(source)[0] if resumes else None)
    if not path.exists():
        return Place(path, None, None)
    there, data = _read(path)
    earlier = there if resumes else None
    refused = _refusal(path, there, data, record)
    if refused is None:
        return Place(path, Written.of(path, data), earlier)
    wanted = Path(record.options.output or aside(record))
    free = free_name(aside(record) if _is_same(wanted, source) else wanted)
    return Place(free, None, earlier, f"{refused}: the outputs go to {free}.")


def lost(papers: Document, record: Record) -> list[Code]:
    """The cells that are done and unchanged, and whose outputs no notebook has any more."""
    cells = {code.chain: code for code in papers.cells}
    done = [cells[one.chain] for one in record.done if one.chain in cells]
    return [code for code in done if papers.state(code) is None]


def _refusal(path: Path, there: Any | None, data: bytes, record: Record) -> str | None:
    if there is None or not document.is_as_written(there):
        return f"{path} is left as it is, because no run wrote these cells"
    left = record.outputs.written if record.outputs is not None else None
    if left is not None and hashlib.sha256(data).hexdigest() != left.hash:
        return f"{path} is left as it is, because somebody has saved it since the run ended"
    return None


def _read(path: Path) -> tuple[Any | None, bytes]:
    with contextlib.suppress(RunError):
        return document.read(path)
    return None, b""


def _is_same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
