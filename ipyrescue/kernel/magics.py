"""%checkpoint_vars, %restore_vars and %snapshots: words of a line to calls, results to reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.display import display

from ipyrescue.errors import RescueError
from ipyrescue.kernel import arguments, report
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.restoring import Scope


def _shown(magic: Callable[..., Any]) -> Callable[..., Any]:
    """Show a magic's report also where IPython would not, and turn our errors into one line.

    IPython displays a value only if the magic is the last line of its cell; an assignment displays nothing.
    """

    @wraps(magic)
    def run(self: RescueMagics, line: str, cell: str | None = None) -> Any:
        try:
            found = magic(self, line) if cell is None else magic(self, line, cell)
        except RescueError as error:
            raise UsageError(str(error)) from error
        if found is not None and _is_dropped(self.shell, _cell_frame()):
            display(found)
        return found

    return run


@magics_class
class RescueMagics(Magics):
    """The three magics of a kernel, over its Recorder."""

    NAMES = ("checkpoint_vars", "restore_vars", "snapshots")

    def __init__(self, shell: Any, recorder: Recorder) -> None:
        super().__init__(shell)
        self._recorder = recorder

    @line_cell_magic
    @_shown
    def checkpoint_vars(self, line: str, cell: str | None = None) -> Any:
        """Make a snapshot now; with every=, go on making them."""
        if cell is not None:
            raise UsageError(
                "`%%checkpoint_vars` is not built yet. Write `%checkpoint_vars ...` with one % on a line of its own."
            )
        wanted = arguments.parse_checkpoint(line)
        if wanted.off:
            return self._turn_off(wanted)
        if wanted.status:
            return self._form(report.StatusReport.of(self._recorder), wanted.json)
        if wanted.dry_run:
            return self._form(report.PlanReport.of_draft(self._recorder.plan(self._settings(wanted))), wanted.json)
        return self._form(self._checkpoint(wanted), wanted.json)

    @line_magic
    @_shown
    def restore_vars(self, line: str) -> Any:
        """Bring a snapshot's variables back."""
        wanted = arguments.parse_restore(line)
        if wanted.list:
            return self._form(self._table(wanted.all), wanted.json)
        if wanted.trust:
            self._trust(wanted)
        scope = Scope(wanted.names, wanted.keep_existing)
        if wanted.dry_run:
            chosen = self._recorder.find(wanted.source)[0]
            return self._form(report.PlanReport.of_snapshot(chosen, scope.wanted(chosen, self.shell.user_ns)), wanted.json)
        return self._form(self._restored(self._recorder.restore(wanted.source, scope)), wanted.json)

    @line_magic
    @_shown
    def snapshots(self, line: str) -> Any:
        """Show the snapshots of this notebook."""
        wanted = arguments.parse_snapshots(line)
        if wanted.verb == "show":
            return self._form(report.SnapshotReport(self._recorder.find(wanted.id)[0]), wanted.json)
        if wanted.verb == "forget":
            return self._form(self._recorder.forget(wanted.id), wanted.json)
        return self._form(self._table(wanted.all), wanted.json)
