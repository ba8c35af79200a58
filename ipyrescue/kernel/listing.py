"""Snapshots that exist, shown: manifests into a table of many, a page about one, two compared. Knows no store."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ipyrescue.cells import Cell
from ipyrescue.comparing import Difference, left_out
from ipyrescue.environment import in_order
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.tables import Line, Table
from ipyrescue.manifest import Frame, Snapshot
from ipyrescue.settings import format_age, format_size
from ipyrescue.store.catalog import Foreign
from ipyrescue.wording import CUTS, age, clock, count, seconds_of

SHOWN = 100
"""So many snapshots a table shows; a browser takes seconds for thousands."""

_BAD = ("damaged", "foreign")
_CHANGED = (
    "Changed means that the saved bytes differ, by so many at most: what is saved is cut into pieces of up to a "
    "megabyte. Variables that share objects count as changed together."
)


@dataclass(frozen=True)
class SnapshotRow:
    """One line of the table. *mark* says what is wrong with it: `interrupted`, `damaged`, `foreign`; else empty.

    *pinned*: it stays until it is unpinned. Of a foreign one *signed_by* is the key's fingerprint, *owner_uid* the
    file's owner, *host* where it says that it was made; all the rest is what it says, too.
    """

    id: str
    notebook: str = ""
    created: str = ""
    trigger: str = ""
    label: str = ""
    cell: int | None = None
    cut: str = ""
    size_bytes: int | None = None
    new_bytes: int | None = None
    variables: int | None = None
    mark: str = ""
    pinned: bool = False
    signed_by: str = ""
    owner_uid: int | None = None
    host: str = ""

    @classmethod
    def of(cls, snapshot: Snapshot, *, mark: str = "", pinned: bool = False) -> SnapshotRow:
        """Make the row of a snapshot; an interrupted one is marked by itself."""
        return cls(
            id=snapshot.id,
            notebook=snapshot.notebook,
            created=snapshot.created,
            trigger=snapshot.trigger,
            label=snapshot.label or "",
            cell=snapshot.cell,
            cut=snapshot.cut,
            size_bytes=snapshot.size_bytes,
            new_bytes=snapshot.new_bytes,
            variables=snapshot.variable_count,
            mark=mark or ("" if snapshot.consistent else "interrupted"),
            pinned=pinned,
        )

    @classmethod
    def of_another_key(cls, foreign: Foreign, *, pinned: bool) -> SnapshotRow:
        """Make the row of a snapshot that another key signed, as it describes itself."""
        row = cls.of(foreign.snapshot, mark="foreign", pinned=pinned)
        return dataclasses.replace(row, signed_by=foreign.fingerprint, owner_uid=foreign.owner_uid, host=foreign.host)

    @property
    def note(self) -> str:
        """What is to be said beside it."""
        signer = f"key {self.signed_by} of uid {self.owner_uid} on {self.host}" if self.signed_by else ""
        return ", ".join(filter(None, (self.mark, signer, "pinned" if self.pinned else "")))


@dataclass(frozen=True, repr=False)
class SnapshotsTable(Report):
    """The snapshots of one notebook, or with *every_notebook* of all. *now* is in seconds since the epoch."""

    rows: tuple[SnapshotRow, ...]
    now: float
    notebook: str
    every_notebook: bool = False

    def lines(self) -> list[Line]:
        """Say how many there are, and what to type."""
        whose = "in this store" if self.every_notebook else f"of {self.notebook}"
        if not self.rows:
            return [Line(f"There are no snapshots {whose}. To make one: %checkpoint_vars")]
        told = [Line(f"{count(len(self.rows), 'snapshot')} {whose}. To take one: %restore_vars from=ID")]
        older = len(self.rows) - len(self._shown)
        if older:
            told.append(Line(f"{count(older, 'older one')} not shown here. `ipyrescue ls --all` lists them", "hint"))
        return told

    def table(self) -> Table:
        """Show them as they come; columns in which nothing stands are left out."""
        columns = ("id", "when", "notebook", "label", "trigger", "cell", "cut", "variables", "size", "new", "note")
        rows = tuple(self._cells(row) for row in self._shown)
        return Table(columns, rows, numbers=("variables", "size", "new")).without_empty()

    def as_json(self) -> dict[str, Any]:
        """Return every row under the names of its fields."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"report": "snapshots", "notebook": self.notebook, "snapshots": rows}

    @property
    def _shown(self) -> list[SnapshotRow]:
        """The newest, and whatever is not as it should be."""
        return [row for position, row in enumerate(self.rows) if position < SHOWN or row.mark in _BAD]

    def _cells(self, row: SnapshotRow) -> tuple[str, ...]:
        made = seconds_of(row.created)
        when = f"{clock(made, now=self.now)} ({format_age(self.now - made)})" if made is not None else ""
        return (
            row.id[:8],
            when,
            row.notebook if self.every_notebook else "",
            row.label,
            row.trigger,
            _cell(row.cell),
            row.cut if row.mark != row.cut else "",
            str(row.variables) if row.variables is not None else "",
            format_size(row.size_bytes) if row.size_bytes is not None else "",
            format_size(row.new_bytes) if row.new_bytes is not None else "",
            row.note,
        )


@dataclass(frozen=True, repr=False)
class SnapshotReport(Report):
    """One snapshot in full: what it holds, what it left out, and where it was taken."""

    snapshot: Snapshot
    now: float
    pinned: bool = False
    foreign: Foreign | None = None

    def lines(self) -> list[Line]:
        """Say what it is, when and where it was made, and how to take it."""
        snapshot = self.snapshot
        label = f" `{snapshot.label}`" if snapshot.label else ""
        size = f"{count(len(snapshot.globals), 'variable')}, {format_size(snapshot.size_bytes)}"
        made = f"{age(snapshot.created, now=self.now)} on {snapshot.host}"
        told = [Line(f"Snapshot {snapshot.id[:8]}{label} of {snapshot.notebook}: {size}, made {made}.")]
        told += [Line(_whose(self.foreign), "warning")] if self.foreign else []
        told.append(
            Line(f"Trigger: {snapshot.trigger}. Cut: {snapshot.cut}, {CUTS[snapshot.cut]}{_because(snapshot)}.")
        )
        told += [Line(f"Pinned: it stays until %snapshots unpin {snapshot.id[:8]}")] if self.pinned else []
        told += [Line(f"Ran then: {_frame(frame)}") for frame in snapshot.frames]
        told += [Line(f"Imports: {', '.join(i.name for i in snapshot.imports)}")] if snapshot.imports else []
        told += [Line(f"Left out: {skipped}", "warning") for skipped in snapshot.skipped]
        told += [Line(f"Warning: {warning}", "warning") for warning in snapshot.warnings]
        made_with = ", ".join(f"{key} {value}" for key, value in in_order(snapshot.environment))
        told += [Line(f"Made with: {made_with}", "hint")] if made_with else []
        safe = " --safe" if self.foreign else ""
        return [*told, Line(f"To take it: %restore_vars from={snapshot.id[:8]}{safe}", "hint")]

    def table(self) -> Table:
        """Show each variable with the cell that made it and the group with which it goes."""
        groups = group_numbers([group.names for group in self.snapshot.groups])
        rows = tuple(
            (v.name, v.type, format_size(v.size_bytes), _cell(v.cell), groups.get(v.name, ""))
            for v in self.snapshot.variables
        )
        return Table(("name", "type", "size", "cell", "group"), rows, numbers=("size", "group")).without_empty()

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot's fields, without where its bytes stand."""
        whose = {"signed_by": self.foreign.fingerprint, "owner_uid": self.foreign.owner_uid} if self.foreign else {}
        return {"report": "snapshot", "snapshot": {**snapshot_as_json(self.snapshot), "pinned": self.pinned, **whose}}


@dataclass(frozen=True, repr=False)
class CodeReport(Report):
    """The cells that the session of a snapshot had run, oldest first."""

    snapshot: Snapshot
    cells: tuple[Cell, ...]

    def lines(self) -> list[Line]:
        """Print each under its prompt."""
        whose = f"snapshot {self.snapshot.id[:8]} of {self.snapshot.notebook}"
        if not self.cells:
            return [Line(f"No cells are in {whose}.")]
        told = [Line(f"{count(len(self.cells), 'cell')} had been run by {whose}; credentials are left out.", "hint")]
        for cell in self.cells:
            told.append(Line(f"# In [{cell.number}]", "hint"))
            told += [Line(line, "code") for line in cell.source.expandtabs(4).splitlines()]
        return told

    def as_json(self) -> dict[str, Any]:
        """Return number and text of each."""
        return {"report": "code", "id": self.snapshot.id, "cells": [dataclasses.asdict(cell) for cell in self.cells]}


@dataclass(frozen=True, repr=False)
class DifferenceReport(Report):
    """What became of the variables between two snapshots."""

    older: Snapshot
    newer: Snapshot
    difference: Difference
    now: float

    def lines(self) -> list[Line]:
        """Say between which two, and how many names had which fate."""
        told = [Line(f"From {self._named(self.older)} to {self._named(self.newer)}: {self.difference}.")]
        return told + ([Line(_CHANGED, "hint")] if self.difference.changed else [])

    def table(self) -> Table:
        """Show each name that was added, removed or changed, with the sizes on both sides, and how much changed."""
        d = self.difference
        rows: list[tuple[str, ...]]
        rows = [("added", v.name, v.type, "", format_size(v.size_bytes), "", "") for v in d.added]
        rows += [
            ("removed", v.name, v.type, format_size(v.size_bytes), "", "", left_out(v.name, self.newer))
            for v in d.removed
        ]
        rows += [("changed", c.after.name, c.types, *map(format_size, c.sizes_bytes), "") for c in d.changed]
        columns = ("change", "name", "type", "size before", "size", "changed", "note")
        return Table(columns, tuple(rows), numbers=("size before", "size", "changed")).without_empty()

    def as_json(self) -> dict[str, Any]:
        """Return the two ids, and names, types and sizes of what differs."""
        ids = {"older": self.older.id, "newer": self.newer.id}
        return {"report": "difference", **ids, **self.difference.as_json()}

    def _named(self, snapshot: Snapshot) -> str:
        label = f" `{snapshot.label}`" if snapshot.label else ""
        return f"{snapshot.id[:8]}{label} (made {age(snapshot.created, now=self.now)})"


def group_numbers(groups: list[tuple[str, ...]]) -> dict[str, str]:
    """Number the groups that hold more than one name, and say for each of their names which it is in."""
    shared = [names for names in groups if len(names) > 1]
    return {name: str(number) for number, names in enumerate(shared, 1) for name in names}


def snapshot_as_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return what a program wants to know of a snapshot, without where its bytes stand."""
    kept = ("id", "sequence", "notebook", "created", "label", "trigger", "cut", "reason", "traceback", "cell", "host")
    numbers = ("size_bytes", "new_bytes", "pause_seconds")
    fields = {name: getattr(snapshot, name) for name in (*kept, *numbers)}
    variables = [dataclasses.asdict(variable) for variable in snapshot.variables]
    frames = [dataclasses.asdict(frame) for frame in snapshot.frames]
    return {**fields, "environment": snapshot.environment, "variables": variables, "frames": frames}


def _whose(foreign: Foreign) -> str:
    identifier = foreign.snapshot.id[:8]
    return (
        f"It is foreign: signed with key {foreign.fingerprint}, in a file of uid {foreign.owner_uid}, made on "
        f"{foreign.host}; all that stands here is what it says. If you trust its maker: "
        f"%restore_vars from={identifier} --trust   If not: %restore_vars from={identifier} --safe"
    )


def _frame(frame: Frame) -> str:
    return f"{frame.function}(), line {frame.line}" + (f" of cell {_cell(frame.cell)}" if frame.cell else "")


def _because(snapshot: Snapshot) -> str:
    cell = f", cell [{snapshot.cell}]" if snapshot.cell is not None else ""
    return cell + (f", {snapshot.reason}" if snapshot.reason else "")


def _cell(number: int | None) -> str:
    return f"[{number}]" if number is not None else ""
