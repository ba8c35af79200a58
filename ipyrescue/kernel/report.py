"""What the magics tell of saving and of what is armed: plain data into reports. Knows no IPython and no store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.listing import snapshot_as_json
from ipyrescue.kernel.tables import Line
from ipyrescue.kernel.verified import in_words, read_back_line, tally_as_json
from ipyrescue.manifest import Settings, Skipped, Snapshot, local_name
from ipyrescue.settings import format_duration, format_size
from ipyrescue.store.lives import Memory
from ipyrescue.store.outlook import Outlook
from ipyrescue.store.scrub import Tally
from ipyrescue.wording import CUTS, age, count, listed

_SHOWN_SKIPPED = 5
_SHOWN_LARGEST = 3


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
        told = [Line(_saved(snapshot) + left_out(quiet, snapshot.id))]
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


def left_out(skipped: Sequence[Skipped], snapshot_id: str) -> str:
    """Say which variables a snapshot has not, and why."""
    if not skipped:
        return ""
    names = listed([str(s) for s in skipped], most=_SHOWN_SKIPPED, more=f"all: %snapshots show {snapshot_id[:8]}")
    return f" Left out {len(skipped)}: {names}."


def _is_tagged(skipped: Skipped, snapshot: Snapshot) -> bool:
    """Whether the user named what was left out; a glob means variables, and no locals."""
    by_glob = local_name(skipped.name) is None and any(fnmatchcase(skipped.name, p) for p in snapshot.settings.tagged)
    return by_glob or skipped in snapshot.lost
