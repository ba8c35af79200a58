"""From what happened to what is told: snapshots, restores and the recorder's state into reports."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from ipyrescue import gpus
from ipyrescue.cells import source_of
from ipyrescue.checkpointing import Draft
from ipyrescue.comparing import Difference, compare
from ipyrescue.errors import UntrustedError
from ipyrescue.incarnations.protection import protection
from ipyrescue.kernel.checks import CheckReport
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.listing import (
    CodeReport,
    DifferenceReport,
    SnapshotReport,
    SnapshotRow,
    SnapshotsTable,
    group_numbers,
)
from ipyrescue.kernel.progress import Progress
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.kernel.report import Forecast, SavedReport, StatusReport, armed_line
from ipyrescue.kernel.restore_report import ForeignReport, PlanReport, PlanRow, RestoredReport, RestoredRow
from ipyrescue.manifest import PROGRESS, Settings, Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.store import scrub
from ipyrescue.wording import seconds_of, type_name

_SHOWN_PAUSES = 5


def saved(recorder: Recorder, snapshot: Snapshot, *, armed: bool) -> Report:
    """Tell of a snapshot that a command made; when it armed, with the forecast."""
    return SavedReport(
        snapshot,
        armed=_armed_line(recorder) if armed else None,
        forecast=_forecast(recorder, snapshot) if armed else None,
        warnings=recorder.notebook.place_warnings(),
    )


def checked(recorder: Recorder, snapshot: Snapshot, saved: Report) -> Report:
    """Check a snapshot that was just made, and tell of both."""
    with Progress("Checking") as progress:
        return CheckReport(saved, recorder.notebook.check(snapshot, progress))


def _armed_line(recorder: Recorder) -> str | None:
    return armed_line(_effective(recorder)) if recorder.armed is not None else None


def _effective(recorder: Recorder) -> Settings:
    """The armed settings with the defaults that hold where nothing was said."""
    settings = recorder.armed.settings if recorder.armed is not None else Settings()
    return replace(settings, keep=recorder.notebook.retention(settings).keep)


def _forecast(recorder: Recorder, snapshot: Snapshot) -> Forecast:
    retention = recorder.notebook.retention(snapshot.settings)
    return Forecast(
        snapshot_bytes=snapshot.size_bytes,
        keep=retention.keep,
        free_bytes=recorder.notebook.free_bytes(),
        allowed_bytes=retention.max_size_bytes or 0,
    )


def restored(recorder: Recorder, result: Restored, newest: Snapshot | None, seconds: float) -> Report:
    """Tell what a restore bound, what not, and whether the kernel is armed again."""
    rearmed = result.full and result.snapshot.settings.every_seconds is not None
    return RestoredReport(
        names=result.names,
        snapshot_id=result.snapshot.id,
        age_seconds=_age_seconds(result.snapshot),
        skipped=result.skipped,
        sources=_sources(recorder, result),
        rows=tuple(_restored_rows(result)),
        kept=tuple(name for name in result.snapshot.names if name in result.kept),
        replaced=result.replaced,
        warnings=(*_newer_interrupted(result.snapshot, newest), *result.warnings),
        differences=result.differences,
        frames=tuple(f"{frame.call} ({frame.place})" for frame in result.frames),
        armed=_armed_line(recorder) if rearmed else None,
        seconds=seconds,
        waited_seconds=result.waited_seconds,
        cut=result.snapshot.cut if result.full else None,
        cell=result.snapshot.cell,
    )


def _sources(recorder: Recorder, result: Restored) -> dict[str, str]:
    """For each name that did not come back the text that made it, where that is known."""
    made = [skipped for skipped in result.skipped if skipped.cell is not None]
    cells = recorder.notebook.cells_of(result.snapshot) if made else ()
    found = {skipped.name: source_of(cells, skipped.cell, skipped.name) for skipped in made}
    return {name: text for name, text in found.items() if text}


def _restored_rows(result: Restored) -> Iterator[RestoredRow]:
    """What became of each name: first what did not come back, then the rest as the snapshot has it."""
    then = {skipped.name for skipped in result.snapshot.skipped}
    for skipped in result.skipped:
        fate = "left out when saved" if skipped.name in then else "FAILED on load"
        yield RestoredRow(skipped.name, skipped.type, None, fate, skipped.reason)
    prefix = result.prefix
    for v in result.snapshot.variables:
        if prefix + v.name in result.names:
            yield RestoredRow(prefix + v.name, v.type, v.size_bytes, "restored")
        elif v.name in result.kept:
            yield RestoredRow(v.name, v.type, v.size_bytes, "kept as it was")
    yield from _rows_beside(result)
    for i in result.snapshot.imports:
        if prefix + i.name in result.names:
            yield RestoredRow(prefix + i.name, "module", None, "restored", str(i))


def _rows_beside(result: Restored) -> Iterator[RestoredRow]:
    """What came back beside the names: locals of functions, and what loops were at."""
    came = {frame.pseudo_name(name) for frame in result.frames for name in frame.locals}
    for v in result.snapshot.variables:
        if v.name in came:
            yield RestoredRow(v.name, v.type, v.size_bytes, "in ipyrescue.frames()")
        elif v.name == PROGRESS and result.progress:
            yield RestoredRow(v.name, v.type, v.size_bytes, "where loops go on")


def _newer_interrupted(taken: Snapshot, newest: Snapshot | None) -> tuple[str, ...]:
    """Name a newer snapshot of the same life that was cut in mid-step, with the line that takes it."""
    if newest is None or newest.consistent or newest.sequence <= taken.sequence:
        return ()
    if newest.incarnation != taken.incarnation:
        return ()
    return (
        f"A newer snapshot, {newest.id[:8]}, was cut in the middle of a step ({newest.reason}); "
        f"to take it nevertheless: %restore_vars from={newest.id[:8]}",
    )


def status(recorder: Recorder) -> Report:
    """Tell how well this notebook is protected now."""
    notebook, armed, life = recorder.notebook, recorder.armed, recorder.life.life
    mine, now = notebook.snapshots(), time.time()
    judged = protection(life, now)
    return StatusReport(
        settings=_effective(recorder) if armed is not None else Settings(),
        store=str(notebook.identity.store_root),
        free_bytes=notebook.free_bytes(),
        now=now,
        last=next(iter(mine), None),
        made=sum(s.incarnation == notebook.incarnation for s in mine),
        protection=judged.text,
        outlook=notebook.outlook(_effective(recorder)) if armed is not None else None,
        judged=judged.state,
        pauses=tuple(s.pause_seconds for s in mine[:_SHOWN_PAUSES] if s.incarnation == notebook.incarnation),
        slowdown_seconds=life.slowdown_seconds if life is not None else None,
        failures=armed.failures if armed is not None else 0,
        writing=recorder.writing,
        writer=recorder.way if armed is not None else None,
        trouble=armed.failure if armed is not None else None,
        warnings=tuple(_weaknesses(recorder)),
        memory=recorder.life.memory.look(),
        tally=scrub.tally(notebook.identity.store_root, mine),
    )


def _weaknesses(recorder: Recorder) -> Iterator[str]:
    if recorder.life.warning:
        yield recorder.life.warning
    if recorder.shortage:
        yield f"The last snapshot was written while your code waited: {recorder.shortage}."
    if recorder.notebook.untidied:
        yield f"The last snapshot is saved, but what is too old was not cleared away. {recorder.notebook.untidied}"
    if not recorder.notebook.fence.available:
        yield "On this system an object that crashes or hangs the process that pickles it does so to the kernel."


def checkpoint_plan(draft: Draft) -> Report:
    """Tell what a snapshot would hold."""
    groups = group_numbers([group.names for group in draft.groups])
    rows = [PlanRow(v.name, v.type, v.size_bytes, groups.get(v.name, "")) for v in draft.snapshot.variables]
    imports = [PlanRow(i.name, "module", note=str(i)) for i in draft.snapshot.imports]
    return PlanReport("checkpoint", (*rows, *imports), draft.snapshot.skipped, warnings=draft.snapshot.warnings)


def compared_plan(recorder: Recorder, snapshot: Snapshot, scope: Scope) -> Report:
    """Tell what a restore would bind, and how that differs from what is in the namespace now."""
    started = time.perf_counter()
    live = recorder.notebook.names()
    both = [name for name in sorted(scope.wanted(snapshot, live)) if name in live]
    now = recorder.imagine(both) if both and not scope.prefix else None
    known = {*snapshot.names, *(skipped.name for skipped in snapshot.skipped)}
    gone = () if scope.names or scope.prefix else sorted(live.keys() - known)
    seconds = time.perf_counter() - started if now is not None else None
    plan = restore_plan(snapshot, scope, live, now)
    rows = [PlanRow(name, type_name(live[name]), change="gone") for name in gone]
    kept = {name for name in both if scope.keep_classes and issubclass(type(live[name]), type)}
    bound = [replace(row, change="same", note="yours is kept") if row.name in kept else row for row in plan.rows]
    return replace(
        plan,
        rows=(*bound, *rows),
        compared_seconds=seconds,
        warnings=(*plan.warnings, *without_gpu(snapshot, scope, scope.wanted(snapshot, live))),
        differences=recorder.notebook.differences(snapshot),
    )


def restore_plan(snapshot: Snapshot, scope: Scope, live: Collection[str], now: Snapshot | None = None) -> PlanReport:
    """Tell what a restore would bind beside the *live* names; *now* is what a snapshot of them would be."""
    wanted = scope.wanted(snapshot, live)
    groups = group_numbers([group.names for group in snapshot.groups])
    difference = compare(now, snapshot) if now is not None else None
    rows = [PlanRow(v.name, v.type, v.size_bytes, groups.get(v.name, "")) for v in snapshot.variables]
    rows += [PlanRow(i.name, "module", note=str(i)) for i in snapshot.imports]
    moved = scope.moves(group for group in snapshot.groups if wanted.intersection(group.names))
    told = (f"Tensors of {', '.join(moved)} would be on the CPU, as device=cpu says.",) if moved else ()
    return PlanReport(
        "restore",
        tuple(_compared(row, scope.prefix, live, difference) for row in rows if row.name in wanted),
        snapshot.skipped,
        snapshot.id,
        _age_seconds(snapshot),
        told,
    )


def without_gpu(snapshot: Snapshot, scope: Scope, wanted: frozenset[str]) -> Iterator[str]:
    """Tell of GPUs that are not here, as far as that shows without asking torch, which may not be loaded yet."""
    groups = [group for group in snapshot.groups if wanted.intersection(group.names)]
    devices = sorted({s.device for g in groups for s in g.storages if s.device.startswith("cuda")})
    reasons = gpus.reasons(gpus.look()) if devices and scope.device is None else []
    if reasons:
        yield f"Tensors of {', '.join(devices)} would be on the CPU: {'; and '.join(reasons)}."


def _compared(row: PlanRow, prefix: str, live: Collection[str], difference: Difference | None) -> PlanRow:
    """One row with what its restore would do to the name that it is bound to."""
    here = prefix + row.name
    if here not in live:
        return replace(row, name=here, change="new")
    if difference is None:
        return replace(row, name=here, note=row.note or "replaces yours")
    if row.name in difference.same:
        return replace(row, change="same")
    types = next((c.types for c in difference.changed if c.after.name == row.name and "->" in c.types), row.type)
    return replace(row, change="changed", type=types)


def table(recorder: Recorder, *, every_notebook: bool) -> Report:
    """The snapshots of this notebook, or of every one in the store; what cannot be read is marked, not hidden."""
    notebook = recorder.notebook
    found = notebook.snapshots(every_notebook=every_notebook)
    pinned = notebook.pins()
    damaged = scrub.read(notebook.identity.store_root).damaged
    rows = [SnapshotRow.of(s, mark="damaged" if s.id in damaged else "", pinned=s.id in pinned) for s in found]
    return SnapshotsTable((*rows, *_unreadable(recorder, pinned)), time.time(), notebook.identity.title, every_notebook)


def _unreadable(recorder: Recorder, pinned: Collection[str]) -> list[SnapshotRow]:
    """What cannot be restored: foreign ones as they describe themselves, where that can be read, and damaged ones."""
    foreign = {item.snapshot.id: item for item in recorder.notebook.foreign()}
    rows = [SnapshotRow.of_another_key(item, pinned=identifier in pinned) for identifier, item in foreign.items()]
    for item in recorder.notebook.unreadable():
        identifier = item.name[11:27]
        if identifier not in foreign:
            mark = "foreign" if isinstance(item.error, UntrustedError) else "damaged"
            rows.append(SnapshotRow(id=identifier, mark=mark, pinned=identifier in pinned))
    return rows


def one(recorder: Recorder, source: str) -> Report:
    """One snapshot in full, also one that another key signed."""
    snapshot, foreign = recorder.notebook.look_at(source)
    return SnapshotReport(snapshot, time.time(), snapshot.id in recorder.notebook.pins(), foreign)


def code(recorder: Recorder, snapshot: Snapshot) -> Report:
    """What the session of a snapshot had run. Raises `StoreError`."""
    return CodeReport(snapshot, recorder.notebook.store().cells(snapshot))


def difference(older: Snapshot, newer: Snapshot) -> Report:
    """What became of the variables between two snapshots."""
    return DifferenceReport(older, newer, compare(older, newer), time.time())


def foreign(found: Any) -> Report:
    """Whose signature a snapshot carries that is about to be trusted."""
    return ForeignReport(
        snapshot_id=found.snapshot.id,
        notebook=found.snapshot.notebook,
        host=found.snapshot.host,
        owner_uid=found.owner_uid,
        fingerprint=found.fingerprint,
        created=found.snapshot.created,
    )


def _age_seconds(snapshot: Snapshot) -> float:
    made = seconds_of(snapshot.created)
    return time.time() - made if made is not None else 0.0
