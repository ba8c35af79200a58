"""What the magics tell after they have done something: plain data into reports. Knows no IPython and no store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Before
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.listing import snapshot_as_json
from ipyrescue.kernel.tables import Line, Table
from ipyrescue.kernel.verified import in_words, read_back_line, tally_as_json
from ipyrescue.manifest import Settings, Skipped, Snapshot, local_name
from ipyrescue.settings import format_age, format_duration, format_size
from ipyrescue.store.lives import Memory
from ipyrescue.store.outlook import Outlook
from ipyrescue.store.scrub import Tally
from ipyrescue.wording import CUTS, CUTS_INSIDE, age, count, listed

_SHOWN_SKIPPED = 5
_SHOWN_LARGEST = 3
_SHOWN_ROWS = 40
_SHOWN_SOURCE_LINES = 12


@dataclass(frozen=True)
class Forecast:
    """What arming will cost on disk. *allowed_bytes* is `max_size`, or what half of the free disk gives."""

    snapshot_bytes: int
    keep: int
    free_bytes: int
    allowed_bytes: int

    @property
    def needed_bytes(self) -> int:
        """The most that the kept snapshots can take: as if no two of them shared a byte."""
        return self.snapshot_bytes * (self.keep + 1)

    @property
    def fits(self) -> bool:
        """Whether two snapshots fit, the least with which an old one is safe while a new one is written."""
        return 2 * self.snapshot_bytes <= min(self.allowed_bytes, self.free_bytes)

    def __str__(self) -> str:
        return (
            f"One snapshot is {format_size(self.snapshot_bytes)}; keeping {self.keep} needs at most "
            f"{format_size(self.needed_bytes)}, {format_size(self.allowed_bytes)} may be used, "
            f"{format_size(self.free_bytes)} are free."
        )


@dataclass(frozen=True, repr=False)
class SavedReport(Report):
    """A snapshot was made. *armed* is the line from `armed_line`; *forecast* stands there when arming."""

    snapshot: Snapshot
    armed: str | None = None
    forecast: Forecast | None = None
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[Line]:
        """Say what was saved, what was not, and what happens from now on."""
        snapshot = self.snapshot
        loud = [skipped for skipped in snapshot.skipped if _is_tagged(skipped, snapshot)]
        quiet = [skipped for skipped in snapshot.skipped if skipped not in loud]
        told = [Line(_saved(snapshot) + _left_out(quiet, snapshot.id))]
        told += [Line(f"NOT SAVED, although you named it: {skipped}", "error") for skipped in loud]
        told += [Line(f"Warning: {warning}", "warning") for warning in (*snapshot.warnings, *self.warnings)]
        told += [Line(str(self.forecast))] if self.forecast else []
        return told + ([Line(self.armed)] if self.armed else [])

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot's own fields and what was said beside them."""
        forecast = dataclasses.asdict(self.forecast) if self.forecast else None
        return {
            "report": "saved",
            "snapshot": snapshot_as_json(self.snapshot),
            "skipped": [dataclasses.asdict(skipped) for skipped in self.snapshot.skipped],
            "warnings": [*self.snapshot.warnings, *self.warnings],
            "armed": self.armed,
            "forecast": forecast,
        }


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
        left_out = _left_out(self.skipped, self.snapshot_id)
        told = [Line(f"Restored {count(len(self.names), 'variable')}{took} {whence}.{left_out}")]
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
class StatusReport(Report):
    """How well this notebook is protected right now. It never claims more than the *last* snapshot on disk.

    *made* counts this kernel's snapshots and *failures* the attempts that failed since the last good one; *trouble*
    is the sentence of the last failure. *protection* is the sentence that the panel shows, and *judged* its verdict;
    *pauses* are those of the last snapshots, in seconds, newest first, *slowdown_seconds* is what training lost beside
    the pause of the last one; *writer* says who writes: `a child process` or `a thread`.
    """

    settings: Settings
    store: str
    free_bytes: int
    now: float
    last: Snapshot | None = None
    made: int = 0
    failures: int = 0
    writing: bool = False
    trouble: str | None = None
    warnings: tuple[str, ...] = ()
    memory: Memory | None = None
    protection: str | None = None
    judged: str | None = None
    pauses: tuple[float, ...] = ()
    slowdown_seconds: float | None = None
    writer: str | None = None
    tally: Tally | None = None
    outlook: Outlook | None = None

    def lines(self) -> list[Line]:
        """Say whether snapshots are made, when the last one was, and what is wrong."""
        told = [Line(armed_line(self.settings) if self.armed else _NOT_ARMED, "plain" if self.armed else "hint")]
        if self.armed and self.protection is not None and self.judged != "failing":
            told.append(Line(self.protection, "success" if self.judged == "protected" else "error"))
        told.append(Line(self._last()))
        if self.outlook is not None:
            told.append(Line(f"{self.outlook}", "warning"))
        if self.tally is not None and self.tally.oldest is not None:
            told.append(Line(read_back_line(self.tally, self.now)))
        if self.tally is not None and self.tally.damaged:
            told.append(Line(in_words(self.tally.damaged), "error"))
        told += [Line(self._costs())] if self.pauses else []
        if self.writing:
            told.append(Line(f"A snapshot is being written right now{f', by {self.writer}' if self.writer else ''}."))
        if self.failures or self.trouble:
            attempts = f" {count(self.failures, 'attempt')} in a row failed." if self.failures else ""
            told.append(Line(f"NOT PROTECTED.{attempts} {self.trouble or ''}".rstrip(), "error"))
        told += [Line(f"Warning: {warning}", "warning") for warning in self.warnings]
        if self.memory is not None:
            told += [Line(text) for text in memory_lines(self.memory)]
            told += [Line(f"Warning: {self.memory.warning}", "warning")] if self.memory.warning else []
        if self.last is not None and self.last.variables:
            told.append(Line(f"Largest variables in it: {largest(self.last)}."))
        return [*told, Line(f"Store: {self.store} ({format_size(self.free_bytes)} free)", "hint")]

    @property
    def armed(self) -> bool:
        """Whether snapshots are made without being asked for."""
        return self.settings.every_seconds is not None

    def as_json(self) -> dict[str, Any]:
        """Return every field; *last* as in a `SavedReport`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["settings"] = dataclasses.asdict(self.settings)
        fields["last"] = snapshot_as_json(self.last) if self.last else None
        fields["memory"] = dataclasses.asdict(self.memory) if self.memory else None
        lists = {"warnings": list(self.warnings), "pauses": list(self.pauses)}
        fields["outlook"] = str(self.outlook) if self.outlook is not None else None
        fields["verified"] = tally_as_json(fields.pop("tally"))
        return {"report": "status", "armed": self.armed, **fields, **lists}

    def _costs(self) -> str:
        """What the last snapshots cost the program, and who writes them."""
        pauses = ", ".join(format_duration(seconds) for seconds in self.pauses)
        several = len(self.pauses) > 1
        told = f"The last {count(len(self.pauses), 'pause')}: {pauses}" if several else f"It paused the cell {pauses}"
        if self.slowdown_seconds is not None:
            lost = format_duration(self.slowdown_seconds) if self.slowdown_seconds > 0 else "nothing that was measured"
            told += f"; while it was written training lost {lost}"
        return f"{told}. Written by {self.writer}." if self.writer else f"{told}."

    def _last(self) -> str:
        if self.last is None:
            return "There is no snapshot of this notebook yet."
        cut = f", cut {CUTS[self.last.cut]}"
        size = f"{count(len(self.last.globals), 'variable')}, {format_size(self.last.size_bytes)}"
        made = f"; {count(self.made, 'snapshot')} by this kernel" if self.made else ""
        return f"Last snapshot: {self.last.id[:8]}, {age(self.last.created, now=self.now)} ({size}{cut}){made}."


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


_FRAMES = "Their locals are no variables of yours, and are in ipyrescue.frames()."
_NOT_ARMED = "Not armed: snapshots are made only when you type %checkpoint_vars. To arm: %checkpoint_vars every=5m"


def armed_line(settings: Settings) -> str:
    """Say what happens from now on, and how to stop it."""
    every = format_duration(settings.every_seconds) if settings.every_seconds is not None else "never"
    tagged = f"{listed(list(settings.tagged), most=6)} must be in each. " if settings.tagged else ""
    keep = f"keeps the last {settings.keep}" if settings.keep is not None else "keeps them all"
    return (
        f"Armed: a snapshot after cells and inside them, at most every {every}, and after long cells and exceptions; "
        f"{keep}. "
        f"{tagged}To stop: %checkpoint_vars --off"
    )


def difference_table(differences: Sequence[environment.Difference]) -> Table:
    """Show what was otherwise when a snapshot was made; all versions are mended by one line."""
    line = environment.requirements(differences)
    mend = f" For the versions: {line}   and restart the kernel." if line else ""
    rows = tuple((d.key, d.then, d.now, d.advice) for d in differences)
    caption = f"Different from the session of the snapshot.{mend}"
    return Table(("what", "then", "now", "to do"), rows, caption=caption).without_empty()


def memory_lines(memory: Memory) -> list[str]:
    """Say what the process holds, the most that its last cell held, and what CUDA holds."""
    of = f" of {format_size(memory.limit_bytes)}" if memory.limit_bytes else ""
    told = [f"Memory: {format_size(memory.rss_bytes)}{of}; at most {format_size(memory.peak_rss_bytes)} in this cell."]
    if memory.cuda_reserved_bytes is not None:
        allocated = format_size(memory.cuda_allocated_bytes or 0)
        told.append(f"CUDA: {allocated} in tensors, {format_size(memory.cuda_reserved_bytes)} held by the allocator.")
    return told


def largest(snapshot: Snapshot) -> str:
    """Name the largest variables of a snapshot: `features 12 GB, model 1.3 GB`."""
    ranked = sorted(snapshot.variables, key=lambda v: -v.size_bytes)[:_SHOWN_LARGEST]
    return ", ".join(f"{v.name} {format_size(v.size_bytes)}" for v in ranked)


def _saved(snapshot: Snapshot) -> str:
    size = f"{format_size(snapshot.size_bytes)} ({format_size(snapshot.new_bytes)} new)"
    paused = format_duration(snapshot.pause_seconds)
    return f"Saved {count(len(snapshot.globals), 'variable')}{_with_frames(snapshot)}, {size}, paused {paused}."


def _with_frames(snapshot: Snapshot) -> str:
    """Say of which functions the locals are in it."""
    functions = list(dict.fromkeys(f"{frame.function}()" for frame in snapshot.frames if frame.names))
    return f", the locals of {listed(functions, most=3)}" if functions else ""


def _left_out(skipped: Sequence[Skipped], snapshot_id: str) -> str:
    if not skipped:
        return ""
    names = listed([str(s) for s in skipped], most=_SHOWN_SKIPPED, more=f"all: %snapshots show {snapshot_id[:8]}")
    return f" Left out {len(skipped)}: {names}."


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


def _is_tagged(skipped: Skipped, snapshot: Snapshot) -> bool:
    """Whether the user named what was left out; a glob means variables, and no locals."""
    by_glob = local_name(skipped.name) is None and any(fnmatchcase(skipped.name, p) for p in snapshot.settings.tagged)
    return by_glob or skipped in snapshot.lost


def _why(skipped: Skipped) -> str:
    return str(skipped).partition("(")[2].removesuffix(")")


def _size(size_bytes: int | None) -> str:
    return format_size(size_bytes) if size_bytes is not None else ""
