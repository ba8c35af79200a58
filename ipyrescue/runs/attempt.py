"""One kernel of a run: started, brought back to where the last one was, and given cell after cell, until one ends it.

An attempt turns the plan into an Outcome. Whether there is another one, the runner decides.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellExecutionError, DeadKernelError

from ipyrescue.errors import RunError, StoreError
from ipyrescue.incarnations import witness
from ipyrescue.incarnations.witness import End
from ipyrescue.incarnations.writers import PATIENCE_SECONDS as WRITER_SECONDS
from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.runs import asking, environment_file, offspring
from ipyrescue.runs import record as records
from ipyrescue.runs.client import CellClient
from ipyrescue.runs.holdings import bury
from ipyrescue.runs.journal import harmless
from ipyrescue.runs.kernel import END_SECONDS, Kernel, KernelDiedError, environment
from ipyrescue.runs.plan import Code, Left, Plan, plan
from ipyrescue.runs.record import Death, Done, Process
from ipyrescue.runs.work import Outcome, Work
from ipyrescue.settings import format_duration, spell_duration
from ipyrescue.wording import clean, clock, shortened

SAVE_SECONDS = 20.0
"""How long a run that is asked to stop waits for a snapshot inside a cell."""
SAVE_AT_SIGTERM_SECONDS = 6.0
"""The same where a SIGTERM asks: who sends one, such as `docker stop`, kills 10 seconds later."""

_END_AT_SIGTERM_SECONDS = 8.5
_INTERRUPT_SECONDS = 10.0
_LEFTOVER_SECONDS = 5.0
_READ_SECONDS = 15.0
_LONGEST_ERROR = 300


class Attempt:
    """One kernel process, and what runs in it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.kernel = Kernel(work.kernel_name, work.journal.log.write)
        self._process: Process | None = None
        self._incarnation = ""
        self._restoring: str | None = None
        self._running: int | None = None

    async def run(self) -> Outcome:
        """Run to the end of the notebook, or of the kernel. Raises RunError for what no other attempt would change."""
        try:
            await self._start()
            chosen = await self._restore()
            return await self._cells(chosen)
        except KernelDiedError:
            return await self._died()
        finally:
            await self.kernel.end()
            await self._end_what_is_left()
            if self.work.client is not None:
                self.work.client.set_widgets_metadata()
            await self.work.file.save()

    def kill(self) -> None:
        """End the kernel at once; what runs finds it dead."""
        self.kernel.kill()

    # --- before the first cell --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        record = self.work.journal.record
        added = environment_file.read(Path(record.options.env_file), os.environ) if record.options.env_file else {}
        environ = environment(os.environ, added, record.source, str(self.work.root))
        await self.kernel.start(Path(record.source).parent, environ)
        self._process = records.process_of(self.kernel.pid) if self.kernel.pid is not None else None
        begun = await self.kernel.ask(f".begin({float(record.options.every_seconds)!r})")
        if "error" in begun:
            raise RunError(f"The kernel cannot be protected: {begun['error']}")
        self._incarnation = str(begun["incarnation"])
        self.work.journal.note(
            durable=True,
            state="running",
            reason=None,
            attempt=record.attempt + 1,
            kernel=self._process,
            connection_file=self.kernel.manager.connection_file,
            incarnations=(*record.incarnations, self._incarnation),
        )
        self.work.say(f"The kernel {self.work.kernel_name} runs (pid {self.kernel.pid}).")

    async def _restore(self) -> Plan:
        """Bring back what the plan says; what cannot be brought back changes the plan."""
        work = self.work
        record = replace(work.journal.record, incarnations=work.journal.record.incarnations[:-1])
        while True:
            saved = await asyncio.to_thread(work.holdings.saved, record)
            chosen = plan(work.document.cells, work.left, saved, work.unusable)
            if chosen.snapshot is None:
                goes_on: list[str] = []
                break
            self._restoring = chosen.snapshot
            answer = await self.kernel.ask(f".restore({chosen.snapshot!r})")
            self._restoring = None
            if "error" not in answer:
                goes_on = self._tell_of_restore(chosen, answer)
                break
            work.unusable.add(chosen.snapshot)
            work.say(f"Snapshot {chosen.snapshot[:8]} was not restored: {answer['error']}")
        await self._settle(chosen, goes_on)
        return chosen

    def _tell_of_restore(self, chosen: Plan, answer: dict[str, Any]) -> list[str]:
        assert chosen.snapshot is not None
        self.work.say(f"Snapshot {chosen.snapshot[:8]} is restored: {', '.join(answer['restored'])}.")
        for sentence in (*answer.get("lost", ()), *answer["warnings"]):
            self.work.say(f"Restored with a difference: {sentence}")
        return [str(sentence) for sentence in answer["goes_on"]]

    async def _settle(self, chosen: Plan, goes_on: list[str]) -> None:
        """Note what the plan means for what was done before, and mark the cells that run again."""
        work, record = self.work, self.work.journal.record
        cut_off, stays = work.left.cell, chosen.first == work.left.cell
        stale = record.stale_through if stays else await asyncio.to_thread(work.holdings.newest_sequence)
        done = tuple(one for one in record.done if one.cell < chosen.first)
        for sentence in chosen.sentences:
            work.say(sentence)
        self._mark(chosen.first, record.cut_off, _how_it_goes_on(chosen, goes_on, cut_off))
        work.left = Left(done, cut_off if stays else None, stale)
        work.journal.note(
            durable=True, done=done, stale_through=stale, cell=min(chosen.first, len(work.document.cells)) or None
        )

    def _mark(self, first: int, cut_off: str | None, how: str) -> None:
        document = self.work.document
        document.settle()
        for code in document.cells[first - 1 :]:
            state = document.state(code)
            if state is None:
                continue
            if code.number == self.work.left.cell:
                why = f"{cut_off or 'the run was cut off here, with its runner'}; the cell runs again, {how}"
                self.work.say(f"Cell {code.number}: {why}.")
            else:
                why = f"the cell runs again: the run went back to cell {first}"
            document.keep(code, f"--- ipyrescue: {why} ---")

    # --- cells ------------------------------------------------------------------------------------------------------

    async def _cells(self, chosen: Plan) -> Outcome:
        work = self.work
        client = CellClient(
            work.document.notebook,
            self.kernel,
            log_name=f"ipyrescue logs {work.journal.record.name}",
            printed=work.journal.printed,
            changed=work.file.changed,
        )
        client.take_displays_of(work.client, {code.index for code in work.document.cells[: chosen.first - 1]})
        work.client = client
        for code in work.document.cells[chosen.first - 1 :]:
            if work.stop.is_set():
                work.journal.note(state="stopping")
                return self._stopped("with all that is done saved")
            ended = await self._cell(code, client)
            if ended is not None:
                return ended
        await client.read_the_rest(work.stop.is_set)
        return Outcome("finished")

    async def _cell(self, code: Code, client: CellClient) -> Outcome | None:
        """Run one cell to its end; return how that ended the attempt, if it did."""
        self._begin(code)
        cell = asyncio.ensure_future(client.async_execute_cell(self.work.document.cell(code), code.index))
        stopping = asyncio.ensure_future(self.work.stop.wait())
        limit = self.work.journal.record.options.timeout_cell_seconds
        try:
            await asyncio.wait({cell, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if cell.done():
                return await self._end(code, cell)
            if stopping.done():
                return await self._stop(code, cell)
            return await self._interrupt(code, cell, limit or 0.0)
        finally:
            stopping.cancel()
            cell.cancel()
            await asyncio.wait({cell})
            _ = cell.cancelled() or cell.exception()  # whoever wanted it has it

    def _begin(self, code: Code) -> None:
        self._running = code.number
        self.work.journal.begin_cell()
        self.work.left = replace(self.work.left, cell=code.number)
        self.work.journal.note(durable=True, cell=code.number, cell_started=records.now(), cut_off=None, progress=None)
        self.work.document.mark(code, "running")
        self.work.file.changed()

    async def _end(self, code: Code, cell: asyncio.Future[Any]) -> Outcome | None:
        """A cell came to its end: its outputs are saved, then what it left, and then it is done."""
        try:
            cell.result()
        except DeadKernelError as error:
            raise KernelDiedError("The kernel died.") from error
        except CellExecutionError as error:
            return await self._raised(code, f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
        self.work.document.mark(code, "done")
        await self.work.file.save()
        await self._save(code)
        return None

    async def _save(self, code: Code) -> None:
        work, record = self.work, self.work.journal.record
        answer = await self.kernel.ask(".cell_done()")
        if "error" in answer:
            work.say(
                f"Cell {code.number} has ended, but is not saved: {answer['error']} If the kernel dies, it runs again."
            )
            return
        for sentence in answer.get("lost", answer["skipped"]):
            work.say(f"Not in the snapshot after cell {code.number}: {sentence}")
        done = Done(code.number, code.chain, answer["snapshot"], int(answer["sequence"]), records.now())
        former = record.done[-1].snapshot if record.done else None
        self._running = None
        all_done = (*(one for one in record.done if one.cell < code.number), done)
        work.left = Left(all_done, None, work.left.stale_through)
        work.journal.note(durable=True, done=all_done, saved_at=done.at)
        try:
            await asyncio.to_thread(work.holdings.pin, done.snapshot, former)
        except StoreError as error:
            work.say(f"The snapshot after cell {code.number} could not be pinned: {error}")

    async def _raised(self, code: Code, error: str) -> Outcome:
        what = what_it_said(error)
        return await self._fail(code, f"Cell {code.number} raised {what}", f"the cell raised {what} here")

    async def _fail(self, code: Code, sentence: str, cut_off: str) -> Outcome:
        """A cell that failed runs again from its beginning: nothing that was cut inside it is gone on from."""
        work, name = self.work, self.work.journal.record.name
        work.document.mark(code, "failed")
        await self.kernel.end()
        stale = work.left.stale_through
        try:
            stale = await asyncio.to_thread(work.holdings.newest_sequence)
        except StoreError as error:  # which is not why the cell failed
            work.say(f"A resume may go on from a snapshot inside cell {code.number}, for the store is silent: {error}")
        work.journal.note(cut_off=cut_off, stale_through=stale)
        return Outcome("failed", f"{sentence}. Edit the notebook, then: ipyrescue resume {name}")

    async def _interrupt(self, code: Code, cell: asyncio.Future[Any], limit_seconds: float) -> Outcome:
        await self.kernel.interrupt()
        await asyncio.wait({cell}, timeout=_INTERRUPT_SECONDS)
        if cell.done() and isinstance(cell.exception(), DeadKernelError):
            raise KernelDiedError("The kernel died.")
        if not cell.done():
            self.kernel.kill()
        limit = spell_duration(limit_seconds)
        sentence = f"Cell {code.number} ran longer than --timeout-cell {limit}, and was interrupted"
        return await self._fail(code, sentence, f"the cell was interrupted here, after {limit}")

    # --- ends -------------------------------------------------------------------------------------------------------

    async def _stop(self, code: Code, cell: asyncio.Future[Any]) -> Outcome | None:
        """Save where the cell stands, and end the kernel; nothing ends here where the cell itself ends meanwhile."""
        self.work.journal.note(state="stopping")
        saved = await self._save_inside(cell)
        if cell.done():
            return await self._end(code, cell)
        await self._terminate(code, cell)
        return self._stopped(saved)

    def _stopped(self, saved: str) -> Outcome:
        name = self.work.journal.record.name
        return Outcome("stopped", f"It was stopped, {saved}. To go on: ipyrescue resume {name}")

    async def _terminate(self, code: Code, cell: asyncio.Future[Any]) -> None:
        """End a kernel in the middle of a cell, once what it has printed was read."""
        self._mark_stopped(code)
        left_seconds = self.work.left_seconds(END_SECONDS, at_sigterm_seconds=_END_AT_SIGTERM_SECONDS)
        await self.kernel.terminate(left_seconds)
        await asyncio.wait({cell}, timeout=_READ_SECONDS)
        await self._note_end()

    def _mark_stopped(self, code: Code) -> None:
        self.work.document.mark(code, "stopped")
        self.work.journal.note(cut_off=f"the run was stopped here at {clock(time.time(), now=time.time())}")

    async def _note_end(self) -> None:
        """Nobody is to take the kernel for one that died."""
        if self.kernel.process is not None:
            await asyncio.to_thread(witness.end_by_request, self.work.root, self.kernel.process, "shutdown")

    async def _save_inside(self, cell: asyncio.Future[Any]) -> str:
        """Ask for a snapshot inside the running cell; return what came of it, in words."""
        started = time.monotonic()

        def left_seconds() -> float:
            return self.work.left_seconds(SAVE_SECONDS, at_sigterm_seconds=SAVE_AT_SIGTERM_SECONDS)

        snapshot, why_not = await asking.snapshot(
            self.work.root, self._incarnation, left_seconds(), until=lambda: cell.done() or not left_seconds()
        )
        if snapshot is not None:
            self.work.journal.note(saved_at=records.now())
            return f"after snapshot {snapshot[:8]}"
        waited = format_duration(time.monotonic() - started)
        return f"without a new snapshot: {why_not or f'the cell came to no place for one within {waited}'}"

    async def _died(self) -> Outcome:
        """Say why, as far as traces tell; they are fresh now."""
        work, record = self.work, self.work.journal.record
        if self._restoring is not None:
            work.unusable.add(self._restoring)
            work.say(f"The kernel died while snapshot {self._restoring[:8]} was restored: it is not tried again.")
        if self.kernel.process is None:
            return Outcome("died", death=Death(records.now(), None, "did not start"))
        if work.at_once:
            return await self._was_stopped()
        restarts = len(record.deaths) + 1
        end = End.seen_now(self.kernel.process, self.kernel.exit_code, restarts)
        death = await asyncio.to_thread(bury, work.root, work.notebook, end, self._running)
        if self._running is not None:
            self._note_what_it_died_in(work.document.cells[self._running - 1], death)
        return Outcome("died", death=death)

    async def _end_what_is_left(self) -> None:
        """End what a kernel that was not asked to shut down left in its group: it would keep memory, GPUs and ports.

        A snapshot that is still being written comes to its end before, unless the run is to end at once.
        """
        work, ended_at = self.work, time.time()
        if self._process is None or self.kernel.exit_code is None:
            return
        patience_seconds = 0.0 if work.at_once else WRITER_SECONDS
        for_writers = work.left_seconds(patience_seconds, at_sigterm_seconds=_END_AT_SIGTERM_SECONDS)
        await asyncio.to_thread(wait_for_writers, work.root, work.notebook, "", patience_seconds=for_writers)
        to_end = work.left_seconds(_LEFTOVER_SECONDS, at_sigterm_seconds=_END_AT_SIGTERM_SECONDS)
        left = await asyncio.to_thread(offspring.end_group_of, self._process, to_end, seen_at=ended_at)
        if left:
            work.say(f"What the kernel left running was ended: {left}.")

    async def _was_stopped(self) -> Outcome:
        """The kernel was killed because the run is to end at once."""
        if self._running is not None:
            self._mark_stopped(self.work.document.cells[self._running - 1])
        await self._note_end()
        name = self.work.journal.record.name
        return Outcome("stopped", f"It was stopped at once. To go on from what is saved: ipyrescue resume {name}")

    def _note_what_it_died_in(self, code: Code, death: Death) -> None:
        work, at = self.work, clock(time.time(), now=time.time())
        if work.document.state(code) == "done":
            cut_off = f"the kernel died at {at}, before what this cell left was saved: it {death.text}"
        else:
            cut_off = f"the kernel died here at {at}: it {death.text}"
        work.document.mark(code, "died")
        work.journal.note(cut_off=cut_off)


def _how_it_goes_on(chosen: Plan, goes_on: list[str], cut_off: int | None) -> str:
    if chosen.goes_on:
        return f"going on: {'; '.join(goes_on)}" if goes_on else "going on from the last snapshot inside it"
    if chosen.first != cut_off:
        return f"after cell {chosen.first} and what follows"
    return "from its beginning"


def what_it_said(error: str) -> str:
    """An exception's name and message, for the record; the name alone where the message may show a secret."""
    name, _, _ = error.partition(":")
    return shortened(harmless(clean(error)) or clean(name), _LONGEST_ERROR)
