"""Sections of one Markdown document, each rewritten by the command that measured it, between markers of its own."""

from __future__ import annotations

from pathlib import Path

_TITLE = "# Benchmarks\n"


def write_section(path: Path, name: str, text: str) -> None:
    """Replace the section *name* of the document at *path*, or append it; what stands outside of it stays."""
    begin, end = f"<!-- {name}: begin, written by `make {name}` -->", f"<!-- {name}: end -->"
    document = path.read_text() if path.exists() else _TITLE
    section = f"{begin}\n\n{text.strip()}\n\n{end}"
    before, found, rest = document.partition(begin)
    if found:
        after = rest.partition(end)[2]
        path.write_text(f"{before}{section}{after}")
    else:
        path.write_text(f"{document.rstrip()}\n\n{section}\n")
