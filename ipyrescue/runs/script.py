"""A run of a script: the process of a runner, from the script's first attempt to its last.

Starts the script under `ipyrescue.kernel.unedited` in a session of its own, writes what it prints into the log, tells a
death from an error, begins again after a death, and keeps the run's record true. What the script saves and whether it
goes on from that is its own process's affair; here nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ipyrescue import identity
from ipyrescue.errors import RescueError, StoreError
from ipyrescue.incarnations import witness, writers
from ipyrescue.runs import environment_file, offspring, stopping
from ipyrescue.runs import record as records
from ipyrescue.runs.ending import Ending, Patience
from ipyrescue.runs.heeding import Asked
from ipyrescue.runs.journal import harmless
from ipyrescue.runs.notes import Notes
from ipyrescue.runs.pipes import Pipes
from ipyrescue.runs.record import Death, Record
from ipyrescue.settings import format_duration
from ipyrescue.store.lives import Life
from ipyrescue.wording import clean

FINISHED, FAILED, DIED, STOPPED, INTERRUPTED = 0, 1, 6, 75, 130
"""Exit codes of a run; see `ipyrescue.cli.exits`."""

UNEDITED = ("-m", "ipyrescue.kernel.unedited")
"""What runs a script, for Python's command line."""


@dataclass(frozen=True)
class Pace:
    """How long everything takes. *pauses_seconds* are those before the attempts; the last one holds for all others."""

    look_seconds: float = 0.5
    pauses_seconds: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 60)
    patience: Patience = field(default_factory=Patience)
    writer_seconds: float = 30.0
    """For a process that still writes for a script that was stopped."""
    output_seconds: float = 10.0
    """For other processes to let go of the output of a script that has ended."""
    leftover_seconds: float = 5.0
    """For what a dead script has left, between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class End:
    """How the process of an attempt ended: its *exit_code* (negative: a signal); *ours*: we have ended it."""

    exit_code: int
    at: str
    last_error: str
    ours: bool
    process: witness.Process


def execute(
    folder: Path, watch: Callable[[Record], None] | None = None, *, foreground: bool, pace: Pace | None = None
) -> int:
    """Run the script that the record in *folder* names to its end, tell *watch* of changes, and return the exit code.

    Raises RescueError where it could not be started at all.
    """
    notes = Notes(folder, watch)
    try:
        offspring.adopt()
        with Asked(folder) as asked:
            code = _Run(notes, asked, pace or Pace()).execute()
        return INTERRUPTED if foreground and code == STOPPED and asked.interrupted else code
    except RescueError as error:
        notes.say(str(error))
        raise
    finally:
        notes.close()


class _Run:
    """The attempts of one runner."""

    def __init__(self, notes: Notes, asked: Asked, pace: Pace) -> None:
        self._notes = notes
        self._root = records.store_of(notes.folder)
        self._asked = asked
        self._pace = pace
        self._deaths_before = len(notes.record.deaths)

    def execute(self) -> int:
        """Attempt after attempt, until one is the last."""
        while True:
            end = self._attempt()
            if end.ours:
                return self._stopped(end)
            if end.exit_code == 0:
                return self._ended("finished", FINISHED, "The script ended with exit code 0.")
            if end.exit_code > 0:
                return self._ended("failed", FAILED, _failure(end))
            self._note_death(end)
            if self._retries_left() < 0 or self._notes.record.options.on_failure == "stop":
                return self._ended("died", DIED, f"{self._last_death()} No retry was left.")
            if not self._pause():
                return self._ended("stopped", STOPPED, f"By {self._asked.whence}, between two attempts.")

    # One attempt.

    def _attempt(self) -> End:
        """Start the script and see it through to its end, and to that of its output."""
        pipes = Pipes(self._notes.log.write)
        try:
            popen = self._start(pipes)
            process = witness.Process.seen_now("", popen.pid)
            ours = self._follow(popen, pipes)
            at = records.now()
            killed = _is_killed(popen.pid)
            if killed or ours:
                self._end_what_is_left(popen.pid)
            end = End(popen.wait(), at, pipes.last_line("stderr"), ours, process)
            self._read_to_the_end(pipes)
            self._notes.take_from_life()
            self._notes.take_progress(pipes.last_line())
            self._notes.note(kernel=None)
            return end
        finally:
            pipes.close()
            self._notes.log.flush()

    def _start(self, pipes: Pipes) -> subprocess.Popen[bytes]:
        self._notes.take_from_life()  # of a process whose runner was killed before it knew of the record
        record = self._notes.record
        resumes = bool(record.attempt and record.incarnations) and record.options.on_failure == "resume"
        try:
            popen = subprocess.Popen(
                _command(record, resumes=resumes),
                stdin=subprocess.DEVNULL,
                stdout=pipes.stdout,
                stderr=pipes.stderr,
                cwd=record.folder,
                env=self._environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise RescueError(f"The script could not be started in {record.folder}: {error}.") from error
        finally:
            pipes.hand_over()
        line = shlex.join(["python", record.source, *record.options.arguments])
        self._notes.say(f"Attempt {record.attempt + 1}: {line}   (pid {popen.pid}, in {record.folder})")
        if record.attempt:
            self._notes.say(_whence(record, resumes=resumes))
        self._notes.note(
            state="running",
            reason=None,
            attempt=record.attempt + 1,
            kernel=records.process_of(popen.pid),
            started=record.started or records.now(),
            progress=None,
        )
        return popen

    def _environment(self) -> dict[str, str]:
        file = self._notes.record.options.env_file
        added: Mapping[str, str] = environment_file.read(Path(file), os.environ) if file is not None else {}
        return {**os.environ, **added, "PYTHONUNBUFFERED": "1", "IPYRESCUE_STORE": str(self._root)}

    def _follow(self, popen: subprocess.Popen[bytes], pipes: Pipes) -> bool:
        """Wait for the end of the script; return whether it was we who ended it."""
        ending = Ending(popen.pid, self._notes, self._asked, self._pace.patience)
        try:
            while not offspring.has_ended(popen.pid):
                ending.look()
                self._notes.look(pipes.last_line)
                offspring.reap(popen.pid)
                self._asked.wait(self._pace.look_seconds)
        finally:
            ending.close()
        return ending.is_ours

    def _end_what_is_left(self, pid: int) -> None:
        """End what a dead script has left in its group: it would keep memory, GPUs and ports from the next attempt."""
        left = offspring.end_group(pid, self._pace.leftover_seconds)
        if left:
            self._notes.say(f"What the script left running was ended: {left}.")

    def _read_to_the_end(self, pipes: Pipes) -> None:
        """Read on while other processes hold the script's output, for a while."""
        deadline = time.monotonic() + self._pace.output_seconds
        while not pipes.wait(0.05) and time.monotonic() < deadline and self._asked.how is None:
            self._notes.look(pipes.last_line)
            offspring.reap(-1)
        if not pipes.wait(0):
            holders = offspring.names(pipes.holders()) or "a process that cannot be seen from here"
            self._notes.say(f"Its output is still held by {holders}; what they print from here on is lost.")

    # Between attempts.

    def _note_death(self, end: End) -> None:
        life = self._attested(end)
        known = life if life is not None else self._unrecorded(end)
        cause = known.cause
        text = f"{cause.verb} ({cause.text})" if cause is not None else f"died (exit code {end.exit_code})"
        death = Death(end.at, None, clean(text), end.exit_code, life.incarnation if life is not None else None)
        self._notes.note(deaths=(*self._notes.record.deaths, death))

    def _attested(self, end: End) -> Life | None:
        """The life record of the script's process, if it kept one, with the cause of its death."""
        try:
            return witness.attest(self._root, self._seen(end))
        except StoreError as error:
            self._notes.say(f"What is on record of the script's process cannot be read: {error}")
            return None

    def _unrecorded(self, end: End) -> Life:
        life, cause = witness.cause_of(self._seen(end), self._notes.record.source)
        return dataclasses.replace(life, kind="script", cause=cause)

    def _seen(self, end: End) -> witness.End:
        return witness.End(end.process, end.exit_code, self._deaths_of_this_runner() + 1, end.at)

    def _last_death(self) -> str:
        return f"The script {self._notes.record.deaths[-1].text}."

    def _deaths_of_this_runner(self) -> int:
        return len(self._notes.record.deaths) - self._deaths_before

    def _retries_left(self) -> int:
        return self._notes.record.options.retries - self._deaths_of_this_runner()

    def _pause(self) -> bool:
        """Wait before the next attempt; return False where the run was stopped meanwhile."""
        pauses = self._pace.pauses_seconds
        seconds = pauses[min(self._deaths_of_this_runner(), len(pauses)) - 1]
        left = f"{self._retries_left()} more {'retry' if self._retries_left() == 1 else 'retries'}"
        told = f"{self._last_death()} It begins again in {format_duration(seconds)}; after that, {left}."
        self._notes.say(told)
        self._notes.note(state="waiting", reason=told)
        until = time.monotonic() + seconds
        while (rest_seconds := until - time.monotonic()) > 0 and self._asked.how is None:
            self._asked.wait(min(rest_seconds, self._pace.look_seconds))
            self._notes.look()
        return self._asked.how is None

    # The end.

    def _stopped(self, end: End) -> int:
        self._wait_for_writers()
        how = _exit_in_words(end.exit_code)
        return self._ended("stopped", STOPPED, f"By {self._asked.whence}; the script {how}.")

    def _wait_for_writers(self) -> None:
        """Let a process that still writes the last snapshot come to its end: whoever stopped us may end all of them."""
        where = identity.of_script(self._notes.record.source, os.environ, Path(self._notes.record.folder), self._root)
        waited = writers.wait_for_writers(self._root, where.notebook, "", patience_seconds=self._pace.writer_seconds)
        if waited is not None and waited.unfinished is not None:
            self._notes.say(f"The process {waited.unfinished} is still writing the last snapshot.")

    def _ended(self, state: records.State, code: int, reason: str) -> int:
        self._notes.say(reason)
        self._notes.log.flush(durable=True)
        stopping.clear(self._notes.folder)
        self._notes.note(durable=True, state=state, exit_code=code, reason=reason, ended=records.now(), kernel=None)
        return code


def _command(record: Record, *, resumes: bool) -> list[str]:
    options = record.options
    return [
        *(sys.executable, *UNEDITED, "--every", str(options.every_seconds), "--with-parent", str(os.getpid())),
        *(["--resume"] if resumes else []),
        *(word for incarnation in record.incarnations if resumes for word in ("--of", incarnation)),
        *("--", record.source, *options.arguments),
    ]


def _whence(record: Record, *, resumes: bool) -> str:
    """What a script begins from that was begun before. One that calls `ipyrescue.resume()` asks nobody."""
    if resumes:
        return "It says on stderr what it goes on from; what says nothing begins from zero."
    why = (
        "--on-failure restart"
        if record.options.on_failure == "restart"
        else "its earlier attempts left no record of theirs"
    )
    return f"It begins from zero ({why}), unless it calls ipyrescue.resume() itself."


def _is_killed(child: int) -> bool:
    """Whether a child that has ended, and was not waited for, was ended by a signal."""
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)


def _failure(end: End) -> str:
    said = harmless(end.last_error)
    return f"The script {_exit_in_words(end.exit_code)}{f': {said}' if said else '.'}"


def _exit_in_words(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"
