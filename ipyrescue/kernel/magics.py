"""%checkpoint_vars, %restore_vars and %snapshots: a line of words to calls, results to reports."""

from __future__ import annotations

import ast
import linecache
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from types import FrameType
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.display import display

from ipyrescue.errors import RescueError
from ipyrescue.finding import Scope, refuse_to_separate
from ipyrescue.kernel import arguments, reporting
from ipyrescue.kernel.arguments import CheckpointArguments, RestoreArguments
from ipyrescue.kernel.faces import AsJson, Report
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.kernel.restore_report import DismissedReport, RestoredReport, UndoForgottenReport, UndoneReport
from ipyrescue.manifest import Settings
from ipyrescue.selection import Occasion
from ipyrescue.wording import clean


def _told(magic: Callable[..., Report | None]) -> Callable[..., Report | None]:
    """Turn our errors into one line, and show a report also where IPython would drop it.

    IPython displays a magic's value only if it is the last expression of its cell.
    """

    @wraps(magic)
    def run(self: RescueMagics, line: str, cell: str | None = None) -> Report | None:
        try:
            found = magic(self, line) if cell is None else magic(self, line, cell)
        except RescueError as error:
            raise UsageError(_cleaned(str(error))) from error
        if found is not None and _is_dropped(self.shell, sys._getframe(1)):
            display(found)  # type: ignore[no-untyped-call]
        return found

    return run


def _cleaned(text: str) -> str:
    """An error may quote a label or a notebook's name: what a terminal would obey is shown as an escape."""
    return "\n".join(map(clean, text.splitlines()))


@magics_class
class RescueMagics(Magics):
    """The three magics of a kernel, over its Recorder."""

    NAMES = ("checkpoint_vars", "restore_vars", "snapshots")

    def __init__(self, shell: Any, recorder: Recorder) -> None:
        super().__init__(shell)
        self._recorder = recorder

    @line_cell_magic
    @_told
    def checkpoint_vars(self, line: str, cell: str | None = None) -> Report | None:
        """Make a snapshot now; with every=, go on making them. The manual is put here from `arguments`."""
        wanted = arguments.parse_checkpoint(line)
        if cell is not None:
            self._run_protected(wanted, cell)
            return None
        if wanted.off:
            return _form(self._turn_off(wanted), as_json=wanted.json)
        if wanted.status:
            return _form(reporting.status(self._recorder), as_json=wanted.json)
        if wanted.dry_run:
            plan = reporting.checkpoint_plan(self._recorder.plan(self._settings(wanted)))
            return _form(plan, as_json=wanted.json)
        return _form(self._checkpoint(wanted), as_json=wanted.json)

    def _checkpoint(self, wanted: CheckpointArguments) -> Report:
        settings = self._settings(wanted)
        snapshot = self._recorder.checkpoint(Occasion(cut="line", label=wanted.label), settings)
        if wanted.every_seconds is not None:
            self._recorder.arm(settings)
        saved = reporting.saved(self._recorder, snapshot, armed=wanted.every_seconds is not None)
        if wanted.every_seconds is not None and not wanted.json:
            self._recorder.show_panel()
        return reporting.checked(self._recorder, snapshot, saved) if wanted.check else saved

    def _run_protected(self, wanted: CheckpointArguments, cell: str) -> None:
        """Run *cell* armed as *wanted* says, then be armed as before."""
        if wanted.every_seconds is None:
            raise UsageError("Say how often: %%checkpoint_vars every=5m   Without every=, %checkpoint_vars saves once.")
        before = self._recorder.armed.settings if self._recorder.armed is not None else None
        settings = self._settings(wanted)
        self._recorder.checkpoint(Occasion(cut="line", label=wanted.label), settings)
        self._recorder.arm(settings)
        self._recorder.show_panel()
        assert self.shell is not None
        ran = self.shell.run_cell(cell, store_history=False)  # type: ignore[no-untyped-call]
        error = ran.error_before_exec or ran.error_in_exec
        self._recorder.go_back_to(before, error)
        if error is not None:
            raise UsageError(f"The cell ended with the {type(error).__name__} above.")

    def _settings(self, wanted: CheckpointArguments) -> Settings:
        said = Settings(
            every_seconds=wanted.every_seconds,
            keep=wanted.keep,
            max_size_bytes=wanted.max_size_bytes,
            only=wanted.only,
            tagged=wanted.names,
            exclude=wanted.exclude,
            allow=wanted.allow,
            on_death=wanted.on_death,
        )
        settings = self._recorder.settled(said)
        if settings.only and not settings.tagged:
            raise UsageError("`--only` saves nothing but the names that are said: %checkpoint_vars model opt --only")
        return settings

    def _turn_off(self, wanted: CheckpointArguments) -> Report:
        armed = self._recorder.armed
        if wanted.off_names and armed is not None:
            left = tuple(name for name in armed.settings.tagged if name not in wanted.off_names)
            self._recorder.arm(replace(armed.settings, tagged=left))
        else:
            self._recorder.disarm()
        return reporting.status(self._recorder)

    @line_magic
    @_told
    def restore_vars(self, line: str) -> Report | None:
        """Bring a snapshot's variables back. The manual is put here from `arguments`."""
        wanted = arguments.parse_restore(line)
        if wanted.list:
            return _form(reporting.table(self._recorder, every_notebook=wanted.all), as_json=wanted.json)
        if wanted.undo:
            return _form(UndoneReport(*self._recorder.undo()), as_json=wanted.json)
        if wanted.forget_undo:
            return _form(UndoForgottenReport(self._recorder.notebook.forget_undo()), as_json=wanted.json)
        if wanted.dismiss:
            return _form(DismissedReport(self._recorder.notebook.dismiss()), as_json=wanted.json)
        if wanted.trust:
            wanted = replace(wanted, source=self._trust(wanted))
        scope = Scope(
            names=wanted.names,
            keep_existing=wanted.keep_existing,
            device=wanted.device,
            prefix=wanted.prefix,
            force=wanted.force,
            keep_classes=wanted.keep_classes,
        )
        if wanted.safe:
            started = time.perf_counter()
            restored = self._recorder.restore_safely(wanted.source, scope)
            report = reporting.restored(self._recorder, restored, None, time.perf_counter() - started)
            return _form(report, as_json=wanted.json)
        if wanted.dry_run:
            chosen = self._recorder.notebook.find(wanted.source)[0]
            refuse_to_separate(chosen, scope)
            return _form(reporting.compared_plan(self._recorder, chosen, scope), as_json=wanted.json)
        report = self.restore(wanted.source, scope)
        if isinstance(report, RestoredReport) and report.armed is not None and not wanted.json:
            self._recorder.show_panel()
        return _form(report, as_json=wanted.json)

    def restore(self, source: str | None, scope: Scope) -> Report:
        """Restore, and tell what came back. Raises `RescueError`."""
        started = time.perf_counter()
        self._recorder.drain()
        newest = next(iter(self._recorder.notebook.snapshots()), None)
        restored = self._recorder.restore(source, scope)
        return reporting.restored(self._recorder, restored, newest, time.perf_counter() - started)

    def _trust(self, wanted: RestoreArguments) -> str:
        """Show whose a foreign snapshot is, then sign it as ours; return its new id."""
        if wanted.source is None:
            raise UsageError("Say which snapshot you trust: %restore_vars from=ID --trust   (ids: %snapshots --all)")
        store = self._recorder.notebook.store(create=True)
        foreign = store.untrusted(wanted.source)
        display(reporting.foreign(foreign))  # type: ignore[no-untyped-call]
        return store.trust(foreign).id

    @line_magic
    @_told
    def snapshots(self, line: str) -> Report | None:
        """Show the snapshots of this notebook, and look after them. The manual is put here from `arguments`."""
        wanted = arguments.parse_snapshots(line)
        notebook = self._recorder.notebook
        self._recorder.drain()
        if wanted.code:
            return _form(reporting.code(self._recorder, notebook.find(wanted.ids[0])[0]), as_json=wanted.json)
        if wanted.verb == "show":
            return _form(reporting.one(self._recorder, wanted.ids[0]), as_json=wanted.json)
        if wanted.verb == "diff":
            return _form(reporting.difference(*notebook.pair(*wanted.ids)), as_json=wanted.json)
        change = {"pin": notebook.pin, "unpin": notebook.unpin, "forget": self._recorder.forget}.get(wanted.verb)
        if change is not None:
            change(wanted.ids[0])
        return _form(reporting.table(self._recorder, every_notebook=wanted.all), as_json=wanted.json)


RescueMagics.checkpoint_vars.__doc__ = arguments.CHECKPOINT_HELP
RescueMagics.restore_vars.__doc__ = arguments.RESTORE_HELP
RescueMagics.snapshots.__doc__ = arguments.SNAPSHOTS_HELP


def _form(report: Report, *, as_json: bool) -> Report:
    return AsJson(report) if as_json else report


def _is_dropped(shell: Any, frame: FrameType | None) -> bool:
    """Whether the statement that called a magic is one whose value nobody sees: neither last, nor assigned."""
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is None or shell.ast_node_interactivity != "last_expr":
        return False
    statements = _statements(frame.f_code.co_filename)
    here = [s for s in statements if s.lineno <= frame.f_lineno <= (s.end_lineno or s.lineno)]
    return bool(here) and here[-1] is not statements[-1] and isinstance(here[-1], ast.Expr)


def _statements(filename: str) -> list[ast.stmt]:
    """The statements of the running cell. IPython caches what it compiles: magics are calls there already."""
    try:
        return ast.parse("".join(linecache.getlines(filename))).body
    except SyntaxError:
        return []
