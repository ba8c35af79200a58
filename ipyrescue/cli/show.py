"""`ipyrescue show`: one snapshot, what it holds and what it left out."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import EXITS, Entry, age, choose, open_store, signer, summary
from ipyrescue.cli.output import Column, printable, say, write, write_json, write_table
from ipyrescue.cli.verb import JsonOption, StoreOption, finish
from ipyrescue.environment import in_order
from ipyrescue.manifest import Frame, Snapshot
from ipyrescue.settings import format_duration, format_size
from ipyrescue.store import Store
from ipyrescue.wording import CUTS


def show(
    snapshot: Annotated[str, typer.Argument(metavar="ID", help="An id or its beginning, a label, latest or latest~N.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
    code: Annotated[bool, typer.Option("--code", help="Show the cells that its session had run, and nothing else.")] = (
        False
    ),
) -> None:
    """Show one snapshot: what it holds, what was left out; with --code the cells that its session had run.

    One that another key signed is shown as it describes itself, with exit code 5; a damaged one with exit code 3.
    """
    opened = open_store(store, need_key=False)
    entry = choose(opened, snapshot)
    if entry.snapshot is None:
        assert entry.error is not None, "an entry without a snapshot has an error"
        raise entry.error
    if entry.error is not None:
        say(str(entry.error))
    if code:
        _show_code(opened, entry.snapshot, as_json=as_json)
    elif as_json:
        write_json({"store": str(opened.root), "snapshot": {**summary(entry), **_contents(entry.snapshot)}})
    else:
        _write(entry, entry.snapshot)
    finish(EXITS[entry.state])


def _show_code(store: Store, snapshot: Snapshot, *, as_json: bool) -> None:
    """Print what was typed, read by its hashes and as text only."""
    cells = store.cells(snapshot)
    if as_json:
        write_json({"store": str(store.root), "id": snapshot.id, "cells": [dataclasses.asdict(cell) for cell in cells]})
        return
    for cell in cells:
        write(f"# In [{cell.number}]")
        for line in cell.source.expandtabs(4).splitlines():
            write(printable(line))
        write("")
    if not cells:
        say(f"Snapshot {snapshot.id[:8]} holds no cells.")


def _contents(s: Snapshot) -> dict[str, Any]:
    """What `show` adds to the summary."""
    return {
        "variables": [
            {"name": v.name, "type": v.type, "size_bytes": v.size_bytes, "cell": v.cell, "source": v.source}
            for v in s.variables
        ],
        "imports": [dataclasses.asdict(i) for i in s.imports],
        "skipped": [dataclasses.asdict(item) for item in s.skipped],
        "warnings": list(s.warnings),
        "frames": [dataclasses.asdict(frame) for frame in s.frames],
        "groups": [list(group.names) for group in s.groups if group.names],
        "tensors": [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for g in s.groups for t in g.tensors if t.name
        ],
        "traceback": s.traceback,
        "settings": dataclasses.asdict(s.settings),
        "environment": s.environment,
    }


def _write(entry: Entry, s: Snapshot) -> None:
    facts = {
        "snapshot": s.id if entry.state == "ok" else f"{s.id}  {entry.state.upper()}",
        "signed by": f"{signer(entry.foreign)}; nothing checks what follows" if entry.foreign else "",
        "trust it": f"ipyrescue trust {s.id[:8]}, or use %restore_vars from={s.id[:8]} --safe" if entry.foreign else "",
        "notebook": s.notebook,
        "label": s.label or "",
        "pinned": f"until ipyrescue pin {s.id[:8]} --off" if entry.pinned else "",
        "made": f"{s.created} ({age(s)}) on {s.host}",
        "cut": f"{s.cut}, {CUTS[s.cut]}, {s.trigger}" + (f", {s.reason}" if s.reason else ""),
        "cell": f"[{s.cell}]" if s.cell is not None else "",
        "size": f"{format_size(s.size_bytes)}, {format_size(s.new_bytes)} of it new",
        "paused": format_duration(s.pause_seconds),
    }
    for title, fact in facts.items():
        if fact:
            write(f"{title:<11}{printable(fact)}")
    if s.traceback:
        write("\n" + "\n".join(printable(line) for line in s.traceback.rstrip().splitlines()))
    write("")
    write_table(
        (Column("NAME", fold=True), Column("TYPE", fold=True), Column("SIZE", right=True), Column("CELL", right=True)),
        [(v.name, v.type, format_size(v.size_bytes), _cell(v.cell)) for v in s.variables]
        + [(i.name, f"module {i.module}", "", "") for i in s.imports],
    )
    _write_list("Ran then:", [_frame(frame) for frame in s.frames])
    together = [group.names for group in s.groups if group.kind == "data" and len(group.names) > 1]
    _write_list("Share objects:", [", ".join(names) for names in together])
    _write_list("Left out:", [str(item) for item in s.skipped])
    _write_list("Warnings:", list(s.warnings))
    width = max(map(len, s.environment), default=0)
    _write_list("Made with:", [f"{key:<{width}}  {value}" for key, value in in_order(s.environment)])


def _frame(frame: Frame) -> str:
    return f"{frame.function}(), line {frame.line}" + (f" of cell {_cell(frame.cell)}" if frame.cell else "")


def _cell(cell: int | None) -> str:
    return f"[{cell}]" if cell is not None else ""


def _write_list(title: str, lines: list[str]) -> None:
    if lines:
        write(f"\n{title}")
    for line in lines:
        write(f"  {printable(line)}")
