"""What the magics tell of restoring, and of what they would do: plain data into reports. Knows no IPython, no store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Before
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.report import left_out
from ipyrescue.kernel.tables import Line, Table
from ipyrescue.manifest import Skipped, Snapshot
from ipyrescue.settings import format_age, format_duration, format_size
from ipyrescue.wording import CUTS, CUTS_INSIDE, count, listed

_SHOWN_SKIPPED = 5
_SHOWN_ROWS = 40
_SHOWN_SOURCE_LINES = 12
_FRAMES = "Their locals are no variables of yours, and are in ipyrescue.frames()."


@dataclass(frozen=True)
class RestoredRow:
    """What became of one name of a snapshot that was restored."""

    name: str
    type: str
    size_bytes: int | None
    fate: str
    note: str = ""


@dataclass(frozen=True, repr=False)
class RestoredReport(Report):
    """Names were bound. *kept* are those that stayed as they were, *replaced* those that `--undo` brings back.

    *cut* says where the snapshot was taken, *cell* in which cell. *frames* are the functions whose locals came with
    them; *rows* say what became of each; *sources* hold, by name, the text that makes again what did not come back;
    *differences* are what matters of this session that was otherwise in the snapshot's.
    """

    names: tuple[str, ...]
    snapshot_id: str
    age_seconds: float
    skipped: tuple[Skipped, ...] = ()
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    armed: str | None = None
    seconds: float | None = None
    replaced: tuple[str, ...] = ()
    rows: tuple[RestoredRow, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[environment.Difference, ...] = ()
    frames: tuple[str, ...] = ()
    waited_seconds: float | None = None
    cut: str | None = None
    cell: int | None = None

    def lines(self) -> list[Line]:
        """Say what is back, what is not, and what happens from now on."""
        took = f" in {format_duration(self.seconds)}" if self.seconds is not None else ""
        whence = f"from snapshot {self.snapshot_id[:8]}, made {format_age(self.age_seconds)}"
        lost = left_out(self.skipped, self.snapshot_id)
        told = [Line(f"Restored {count(len(self.names), 'variable')}{took} {whence}.{lost}")]
        if self.waited_seconds is not None:
            waited = format_duration(self.waited_seconds)
            told.append(Line(f"Waited {waited} for a process of the dead kernel that was still writing."))
        told += [Line(_inside(self.cut, self.cell))] if self.cut in CUTS_INSIDE else []
        told += [Line(f"Kept as they are: {listed(list(self.kept), most=10)}.")] if self.kept else []
        told += [Line(_replaced(self.replaced))] if self.replaced else []
        told += [Line(f"Running then: {listed(list(self.frames), most=3)}. {_FRAMES}")] if self.frames else []
        for warning in self.warnings:
            sentence, *lines = f"Warning: {warning}".splitlines()
            told += [Line(sentence, "warning"), *(Line(line, "code") for line in lines)]
        told += [Line(self.armed)] if self.armed else []
        return told + [line for skipped in self._with_source() for line in _recipe(skipped, self.sources[skipped.name])]

    def table(self) -> Table:
        """Show what became of each name, those first that did not come back."""
        rows = [(r.name, r.type, _size(r.size_bytes), r.fate, r.note) for r in self.rows[:_SHOWN_ROWS]]
        rest = len(self.rows) - len(rows)
        rows += [("...", f"{rest:,} more", "", "", "")] if rest > 0 else []
        return Table(("name", "type", "size", "", "note"), tuple(rows), numbers=("size",)).without_empty()

    def as_json(self) -> dict[str, Any]:
        """Return every field under its own name; what did not come back with the text that makes it again."""
        skipped = [{**dataclasses.asdict(s), "source": self.sources.get(s.name)} for s in self.skipped]
        fields = {**dataclasses.asdict(self), "skipped": skipped, "rows": [dataclasses.asdict(r) for r in self.rows]}
        del fields["sources"]
        return {"report": "restored", **fields, "requirements": environment.requirements(self.differences)}

    def aside(self) -> Table:
        """Show what else is otherwise than it was, with what mends it."""
        return difference_table(self.differences)

    def _with_source(self) -> list[Skipped]:
        return [skipped for skipped in self.skipped if skipped.name in self.sources][:_SHOWN_SKIPPED]


@dataclass(frozen=True, repr=False)
class DismissedReport(Report):
    """What dead kernels left is offered no more; their snapshots stay until retention lets them go."""

    kernels: int

    def lines(self) -> list[Line]:
        """Say of how many kernels."""
        if not self.kernels:
            return [Line("No kernel of this notebook has died unanswered: there is nothing to dismiss.")]
        return [Line(f"Dismissed: what {count(self.kernels, 'dead kernel')} left is offered no more. See: %snapshots")]

    def as_json(self) -> dict[str, Any]:
        """Return every field under its own name."""
        return {"report": "dismissed", **dataclasses.asdict(self)}


@dataclass(frozen=True, repr=False)
class UndoneReport(Report):
    """The restore of *snapshot* was taken back; *before* says what that changed."""

    snapshot: Snapshot
    before: Before

    def lines(self) -> list[Line]:
        """Say which names are what they were, and which are gone again."""
        new = list(self.before.new)
        back = [name for name in self.before.names if name not in new]
        told = [Line(f"Undone: the restore of snapshot {self.snapshot.id[:8]}.")]
        same = [*back, *self.before.changes]
        told += [Line(f"As before: {listed(same, most=10)}.")] if same else []
        return told + ([Line(f"Gone, as they were not there: {listed(new, most=10)}.")] if new else [])

    def as_json(self) -> dict[str, Any]:
        """Return the names by what became of them."""
        new = self.before.new
        back = [name for name in self.before.names if name not in new]
        return {"report": "undone", "snapshot_id": self.snapshot.id, "back": back, "gone": list(new),
                "changes": list(self.before.changes)}  # fmt: skip


@dataclass(frozen=True, repr=False)
class UndoForgottenReport(Report):
    """What the last restore replaced is let go of."""

    names: tuple[str, ...]

    def lines(self) -> list[Line]:
        """Say of which names."""
        if not self.names:
            return [Line("Nothing that a restore replaced was kept in memory.")]
        return [Line(f"Let go of what a restore replaced: {listed(list(self.names), most=10)}.")]

    def as_json(self) -> dict[str, Any]:
        """Return the names."""
        return {"report": "undo forgotten", "names": list(self.names)}


@dataclass(frozen=True)
class PlanRow:
    """One variable of a dry run; names with the same *group* share objects and go together.

    *change* is what a restore would do to the namespace: `new`, `changed`, `same`, or `gone`, of a name that only the
    namespace has and that stays.
    """

    name: str
    type: str
    size_bytes: int | None = None
    group: str = ""
    note: str = ""
    change: str = ""


@dataclass(frozen=True, repr=False)
class PlanReport(Report):
    """What would be done; nothing was. *action* is `checkpoint` or `restore`; the id is that of what to restore.

    *compared_seconds* is how long it took to compare with the namespace, where that was done.
    """

    action: str
    rows: tuple[PlanRow, ...]
    skipped: tuple[Skipped, ...] = ()
    snapshot_id: str | None = None
    age_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    compared_seconds: float | None = None
    differences: tuple[environment.Difference, ...] = ()

    def lines(self) -> list[Line]:
        """Say how much it would be, from where, and what that would change."""
        verb = "save" if self.action == "checkpoint" else "restore"
        size = sum(row.size_bytes or 0 for row in self.rows)
        bound = [row for row in self.rows if row.change != "gone"]
        whence = f" from snapshot {self.snapshot_id[:8]}" if self.snapshot_id else ""
        made = f", made {format_age(self.age_seconds)}" if self.age_seconds is not None else ""
        would = f"Would {verb} {count(len(bound), 'variable')}, {format_size(size)}{whence}{made}. Nothing was done."
        compared = [Line(text) for text in self._compared()]
        return [Line(would), *compared, *(Line(f"Warning: {warning}", "warning") for warning in self.warnings)]

    def table(self) -> Table:
        """Show each name with its group, then each that is left out with the reason."""
        rows = [(r.name, r.type, _size(r.size_bytes), r.group, r.change, r.note) for r in self.rows]
        rows += [(s.name, s.type, "", "", "", f"left out: {_why(s)}") for s in self.skipped]
        columns = ("name", "type", "size", "group", "change", "note")
        return Table(columns, tuple(rows), numbers=("size", "group")).without_empty()

    def _compared(self) -> list[str]:
        """How many names have which fate, and what the words mean."""
        fates = [row.change for row in self.rows]
        counts = [f"{fates.count(fate):,} {fate}" for fate in ("same", "changed", "new", "gone") if fate in fates]
        told = [f"Against your namespace: {', '.join(counts)}."] if counts else []
        if self.compared_seconds is not None:
            took = format_duration(self.compared_seconds)
            told.append(
                f"Same and changed go by the bytes that are saved, compared in {took}: equal objects may differ."
            )
        if "gone" in fates:
            told.append("Gone means only in your namespace; a restore leaves it there.")
        return told

    def as_json(self) -> dict[str, Any]:
        """Return every field under its own name."""
        requirements = environment.requirements(self.differences)
        return {"report": "plan", **dataclasses.asdict(self), "requirements": requirements}

    def aside(self) -> Table:
        """Show what else is otherwise than it was, with what mends it."""
        return difference_table(self.differences)


@dataclass(frozen=True, repr=False)
class ForeignReport(Report):
    """Who signed a snapshot that the user says is to be trusted. Shown before it is signed anew."""

    snapshot_id: str
    notebook: str
    host: str
    owner_uid: int
    fingerprint: str
    created: str

    def lines(self) -> list[Line]:
        """Say whose it is; a snapshot holds pickles, so trusting it is running its code."""
        return [
            Line(
                f"Snapshot {self.snapshot_id[:8]} of {self.notebook} was made on {self.host}, {self.created}; its file "
                f"belongs to user {self.owner_uid} and says that the key with fingerprint {self.fingerprint} signed it."
            ),
            Line("You trust it: it is signed with your key now. Restoring it runs code that it holds.", "warning"),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return every field under its own name."""
        return {"report": "foreign", **dataclasses.asdict(self)}


def difference_table(differences: Sequence[environment.Difference]) -> Table:
    """Show what was otherwise when a snapshot was made; all versions are mended by one line."""
    line = environment.requirements(differences)
    mend = f" For the versions: {line}   and restart the kernel." if line else ""
    rows = tuple((d.key, d.then, d.now, d.advice) for d in differences)
    caption = f"Different from the session of the snapshot.{mend}"
    return Table(("what", "then", "now", "to do"), rows, caption=caption).without_empty()


def _inside(cut: str | None, cell: int | None) -> str:
    """Say where in a running cell a snapshot was taken, and how the cell goes on from there."""
    where = f"inside cell [{cell}]" if cell is not None else "inside a cell"
    on = " To go on, run that loop again." if cut == "boundary" else ""
    return f"It was made {where}, {CUTS[cut or 'line']}.{on}"


def _recipe(skipped: Skipped, source: str) -> list[Line]:
    """The text that makes a name again, ready to run."""
    lines = source.expandtabs(4).splitlines()
    rest = len(lines) - _SHOWN_SOURCE_LINES
    told = [Line(f"To make {skipped.name} again, run what made it in cell [{skipped.cell}]:", "hint")]
    told += [Line(f"    {line}", "code") for line in lines[:_SHOWN_SOURCE_LINES]]
    return told + ([Line(f"    # ... {rest} more lines: %snapshots show ID --code", "hint")] if rest > 0 else [])


def _replaced(names: Sequence[str]) -> str:
    return (
        f"Replaced yours: {listed(list(names), most=10)}. To have them back: %restore_vars --undo. They stay in memory "
        "until the next restore or %restore_vars --forget-undo"
    )


def _why(skipped: Skipped) -> str:
    return str(skipped).partition("(")[2].removesuffix(")")


def _size(size_bytes: int | None) -> str:
    return format_size(size_bytes) if size_bytes is not None else ""
