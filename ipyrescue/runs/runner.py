"""The runner of a notebook: prepares it, makes attempts until one ends it, and says how the run ended.

Owns the kernel and is its restarter. Everything that others see of it is the record, the log and the output notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from ipyrescue.errors import RescueError, RunError
from ipyrescue.identity import resolve
from ipyrescue.runs import document, parameters, placing, stopping
from ipyrescue.runs import record as records
from ipyrescue.runs.attempt import Attempt
from ipyrescue.runs.document import Document
from ipyrescue.runs.holdings import Holdings
from ipyrescue.runs.journal import Journal
from ipyrescue.runs.outputs import OutputFile
from ipyrescue.runs.placing import Place
from ipyrescue.runs.plan import Code, Left
from ipyrescue.runs.record import Outputs, Record
from ipyrescue.runs.work import Outcome, Work
from ipyrescue.settings import format_duration
from ipyrescue.store import atomic
from ipyrescue.wording import count

FINISHED, FAILED, INCOMPLETE, DIED, STOPPED, INTERRUPTED = 0, 1, 3, 6, 75, 130
"""Exit codes; docs/runs.md has the table."""
LONGEST_PAUSE_SECONDS = 60.0

_LOOK_SECONDS = 0.3
_CELLS_NAME = "notebook.ipynb"

Sleep = Callable[[float], Awaitable[None]]


def execute(
    folder: Path,
    watch: Callable[[Record], None] | None = None,
    *,
    foreground: bool,
    sleep: Sleep = asyncio.sleep,
) -> int:
    """Run the notebook whose record stands in *folder* to its end; tell *watch* of each change; return the exit code.

    In the *foreground* a Ctrl-C saves and stops. *sleep* waits for the next attempt. Raises RescueError where the
    record cannot be read.
    """
    journal = Journal(folder, watch)
    try:
        return asyncio.run(_Runner(journal, sleep, foreground=foreground).run())
    finally:
        journal.close()


class _Runner:
    """One process's work on a run."""

    def __init__(self, journal: Journal, sleep: Sleep, *, foreground: bool) -> None:
        self.journal = journal
        self._foreground = foreground
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._interrupted = False
        self._attempt: Attempt | None = None

    async def run(self) -> int:
        """The stages: prepare, attempts, end."""
        try:
            work = self._prepare()
        except RescueError as error:
            return self._end(Outcome("failed", str(error)))
        helpers = [asyncio.ensure_future(one) for one in (work.file.follow(), self.journal.beat(), self._listen())]
        with self._signals():
            try:
                outcome = await self._attempts(work)
            except RescueError as error:
                outcome = Outcome("failed", str(error))
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
            work.document.settle()
            return self._end(outcome, work, is_saved=await work.file.save_at_last())

    # --- prepare ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> Work:
        record, options = self.journal.record, self.journal.record.options
        source = Path(record.source)
        notebook, data = document.read(source)
        document.refuse_other_languages(notebook, source)
        for warning in parameters.inject(notebook, options.parameters):
            self.journal.say(warning)
        cells = document.numbered(notebook)
        root = records.store_of(self.journal.folder)
        identity = resolve({}, {"JPY_SESSION_NAME": record.source}, source.parent, root)
        holdings = Holdings(root, identity.notebook)
        left = self._left(cells, holdings)
        place = placing.place(record, data)
        papers = Document(notebook, cells, place.earlier, record.name)
        self._tell_of_place(place, papers)
        cells_as_run = self.journal.folder / _CELLS_NAME
        with atomic.explained("write", cells_as_run):
            atomic.replace(cells_as_run, document.plain(notebook).encode("utf-8", "backslashreplace"), durable=True)
        self._note_place(place.path)
        self.journal.note(cells=len(cells), started=record.started or records.now(), durable=True)
        work = Work(
            self.journal,
            papers,
            OutputFile(
                place.path,
                aside=placing.aside(record),
                written=place.written,
                text=lambda: work.text(),
                tell=self._tell,
                moved=self._note_place,
            ),
            holdings,
            root,
            options.kernel or notebook.metadata.get("kernelspec", {}).get("name") or "python3",
            identity.notebook,
            left,
            self._stop,
        )
        return work

    def _left(self, cells: list[Code], holdings: Holdings) -> Left:
        """What earlier attempts left; a cell that was cut off and edited since is none of it."""
        record = self.journal.record
        cell, stale = record.cell, record.stale_through
        if cell is not None and not self._is_unchanged(cell, cells):
            cell, stale = None, holdings.newest_sequence()
            # Before the cells are replaced: a runner that dies in between must not take the new ones for the old.
            self.journal.note(durable=True, cell=None, cut_off=None, stale_through=stale)
        return Left(record.done, cell, stale)

    def _is_unchanged(self, cell: int, cells: list[Code]) -> bool:
        with contextlib.suppress(RunError):
            before = document.numbered(document.read(self.journal.folder / _CELLS_NAME)[0])
            return cell <= min(len(cells), len(before)) and cells[cell - 1].chain == before[cell - 1].chain
        return False

    def _tell_of_place(self, place: Place, papers: Document) -> None:
        """Say where the outputs go, if not where they stood; and of those that are gone, also where they were."""
        if place.refused is not None:
            self.journal.say(place.refused)
        lost = placing.lost(papers, self.journal.record)
        for code in lost:
            logs = f"ipyrescue logs {self.journal.record.name}"
            papers.keep(code, f"--- ipyrescue: what this cell showed is in no notebook any more; the log: {logs} ---")
            papers.mark(code, "done")
        papers.settle()
        if lost:
            numbers = ", ".join(str(code.number) for code in lost)
            self.journal.say(f"No notebook has the outputs of these cells any more: {numbers}. This log has the text.")

    def _note_place(self, path: Path) -> None:
        self.journal.note(durable=True, outputs=Outputs(str(path)))

    def _tell(self, sentence: str) -> None:
        self.journal.say(sentence)
        self.journal.note(reason=sentence)

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def _attempts(self, work: Work) -> Outcome:
        deaths = 0
        while True:
            self._attempt = Attempt(work)
            outcome = await self._attempt.run()
            if outcome.death is None:
                return outcome
            deaths += 1
            self._note_death(outcome)
            options = self.journal.record.options
            if options.on_failure == "stop" or deaths > options.retries:
                return self._died(outcome, deaths)
            if options.on_failure == "restart":
                self._begin_again(work)
            if not await self._wait_after(deaths):
                name = self.journal.record.name
                return Outcome(
                    "stopped", f"It was stopped, with all that is done saved. To go on: ipyrescue resume {name}"
                )

    def _note_death(self, outcome: Outcome) -> None:
        assert outcome.death is not None
        death, record = outcome.death, self.journal.record
        where = f" in cell {death.cell} of {record.cells}" if death.cell is not None else ""
        self.journal.say(f"The kernel {death.text}{where}.")
        self.journal.note(durable=True, deaths=(*record.deaths, death), kernel=None, connection_file=None)

    def _died(self, outcome: Outcome, deaths: int) -> Outcome:
        assert outcome.death is not None
        record = self.journal.record
        why = "--on-failure stop" if record.options.on_failure == "stop" else count(deaths, "death")
        return Outcome(
            "died",
            f"The kernel {outcome.death.text} ({why}; --retries {record.options.retries}). "
            f"To try again: ipyrescue resume {record.name}",
        )

    def _begin_again(self, work: Work) -> None:
        work.left = Left(cell=work.left.cell, stale_through=work.holdings.newest_sequence())
        self.journal.note(done=(), stale_through=work.left.stale_through)

    async def _wait_after(self, deaths: int) -> bool:
        """Wait before the next attempt; whether there is to be one."""
        pause_seconds = min(2.0 ** (deaths - 1), LONGEST_PAUSE_SECONDS)
        reason = f"A new kernel starts in {format_duration(pause_seconds)}."
        self.journal.say(reason)
        self.journal.note(state="waiting", reason=reason)
        pause = asyncio.ensure_future(self._sleep(pause_seconds))
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({pause, stop}, return_when=asyncio.FIRST_COMPLETED)
        pause.cancel()
        stop.cancel()
        return not self._stop.is_set()

    # --- requests to stop -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            how = stopping.requested(self.journal.folder)
            if how is not None:
                self._ask_to_stop(now=how == "now")
            await asyncio.sleep(_LOOK_SECONDS)

    def _ask_to_stop(self, *, now: bool = False) -> None:
        self._stop.set()
        if now and self._attempt is not None and not self._attempt.work.at_once:
            self._attempt.work.at_once = True
            self._attempt.kill()

    def _hurry(self) -> None:
        """SIGTERM: whoever sends it kills soon."""
        self._ask_to_stop()
        if self._attempt is not None and self._attempt.work.hurried_at is None:
            self._attempt.work.hurried_at = time.monotonic()

    def _interrupt(self) -> None:
        """Ctrl-C: the first saves and stops, the second stops."""
        self._ask_to_stop(now=self._interrupted)
        self._interrupted = True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {"SIGTERM": self._hurry, "SIGUSR1": self._ask_to_stop, "SIGINT": self._interrupt}
        known = [(getattr(signal, name), handler) for name, handler in handlers.items() if hasattr(signal, name)]
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # not on the main thread; Windows
            for number, handler in known:
                loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                for number, _ in known:
                    loop.remove_signal_handler(number)

    # --- end --------------------------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome, work: Work | None = None, *, is_saved: bool = True) -> int:
        code = {"finished": FINISHED, "failed": FAILED, "died": DIED, "stopped": STOPPED}[outcome.state]
        if outcome.state == "stopped" and self._interrupted and self._foreground:
            code = INTERRUPTED
        stopping.clear(self.journal.folder)
        reason = outcome.reason
        if work is not None and outcome.state == "finished":
            done = self.journal.record.done
            work.holdings.unpin(done[-1].snapshot if done else None)
            code, reason = (FINISHED if is_saved else INCOMPLETE), self._where_outputs_are(work.file)
        if work is not None and not is_saved:
            lacks = f"The last outputs are not in {work.file.path} ({work.file.failure}), but their text is in the log."
            reason = f"{outcome.reason or ''} {lacks}".strip()
        if work is not None:
            self.journal.note(outputs=Outputs(str(work.file.path), work.file.written))
        self.journal.say(f"The run {outcome.state}. {reason or ''}".rstrip())
        self.journal.note(
            durable=True,
            state=outcome.state,
            reason=reason,
            exit_code=code,
            ended=records.now(),
            kernel=None,
            connection_file=None,
        )
        return code

    def _where_outputs_are(self, file: OutputFile) -> str:
        wanted = self.journal.record.options.output
        elsewhere = wanted is not None and os.path.realpath(wanted) != str(file.path)
        return f"The outputs are in {file.path}{f', not in {wanted}' if elsewhere else ''}."
