"""From a file and its options to a run, and from a run to a process that no closing terminal can end.

Knows nothing of kernels: what the process does is `ipyrescue.runs.serving`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ipyrescue import identity
from ipyrescue.errors import RunError
from ipyrescue.runs import inherited, offspring, refusals, registry, stopping
from ipyrescue.runs import record as records
from ipyrescue.runs.log import Log
from ipyrescue.runs.record import ENDED, Kind, Options, Process, Record
from ipyrescue.runs.serving import LOCK_NAME
from ipyrescue.store import atomic, layout, lives, lock

ERRORS_NAME = "runner.err"
"""The last resort: what a runner's process says past its log, as a traceback of its own."""

_LOOK_SECONDS = 0.05
_LOCK_PATIENCE_SECONDS = 10.0
_GONE_SECONDS = 10.0
_LEFTOVER_SECONDS = 5.0
_LAST_WORDS_BYTES = 4096

_started: list[subprocess.Popen[bytes]] = []
"""Runners that this process started: kept, so that Python waits for those that end while it lives."""


def begin(
    source: Path, options: Options, *, name: str | None = None, store: Path | None = None, in_place: bool = False
) -> Record:
    """Make the folder, the registry's entry and the first record of a new run, which this process owns for now.

    The outputs go to `train.run.ipynb` beside the notebook, unless *options* or *in_place* say otherwise. Raises
    RunError where the run is refused, StoreError.
    """
    source = Path(os.path.abspath(source))
    kind = refusals.kind_of(source)
    if kind == "notebook" and options.output is None:
        options = dataclasses.replace(options, output=str(source if in_place else source.with_suffix(".run.ipynb")))
    if kind == "script" and in_place:
        raise RunError("A script has no notebook for --in-place: what it prints is in ipyrescue logs NAME.")
    refusals.refuse_odd_options(kind, options)
    wanted = _checked(name) if name is not None else registry.name_for(source)
    root = store_for(source, kind, store)
    with registry.locked():
        drafted = _first_record(wanted, kind, source, root, options)
        refusals.refuse_twin(dataclasses.replace(drafted, name=""), registry.all_folders(root))
        folder = registry.new_folder(root, wanted, exact=name is not None)
        record = dataclasses.replace(drafted, name=folder.name)
        records.write(folder, record, durable=True)
    return record


def folder_of(record: Record) -> Path:
    """The folder of a run whose record was made or found here."""
    return layout.run_folder(Path(record.store), record.name)


def store_for(source: Path, kind: Kind, store: Path | None) -> Path:
    """The store of the runs and the snapshots of *source*; *store* is what the user chose."""
    if kind == "script":
        return identity.of_script(str(source), os.environ, Path.cwd(), store).store_root
    environ = {**os.environ, "JPY_SESSION_NAME": str(source)}
    return identity.resolve({}, environ, Path.cwd(), store).store_root


def prepare_resume(folder: Path) -> Record:
    """Have an ended run begin again: its old kernel is gone, its record says `starting`, and this process owns it.

    Raises RunError where it lives or has nothing to go on with, StoreError.
    """
    _refuse_to_resume(records.judged(records.read(folder), folder))  # its runner would hold the lock until it ends
    with registry.locked(), lock.alone(folder / LOCK_NAME, _LOCK_PATIENCE_SECONDS):
        record = records.judged(records.read(folder), folder)
        _refuse_to_resume(record)
        refusals.refuse_twin(record, registry.all_folders(records.store_of(folder)))
        end_process(record.kernel)
        _end_what_it_left(folder, record)
        stopping.clear(folder)
        runner = records.process_of(os.getpid())
        record = dataclasses.replace(
            record, state="starting", reason=None, exit_code=None, started=None, ended=None, runner=runner
        )
        records.write(folder, record, durable=True)
    return record


def detach(folder: Path) -> Record:
    """Start the runner of the run in *folder* as a session of its own; return its record once it runs or has ended.

    Raises RunError where the process ends before it says anything. A Ctrl-C ends the waiting, not the run.
    """
    with lock.alone(folder / LOCK_NAME, _LOCK_PATIENCE_SECONDS):
        process = _start(folder)
        record = dataclasses.replace(records.read(folder), runner=records.process_of(process.pid))
        records.write(folder, record)
    while True:
        has_ended = process.poll() is not None
        record = records.judged(records.read(folder), folder)
        if has_ended and record.state in ("starting", "dead"):
            raise RunError(f"The runner of {folder.name} ended before it ran anything.{_last_words(folder)}")
        if has_ended or record.state != "starting":
            return record
        time.sleep(_LOOK_SECONDS)


def end_process(process: Process | None) -> bool:
    """Kill a process of a run with its group, if it is the very one and can be seen; return whether it is gone."""
    if process is None:
        return True
    if lives.in_sight(process) and process.start_ticks is not None:
        for _ in range(int(_GONE_SECONDS / _LOOK_SECONDS)):
            if lives.process_facts(process.pid).start_ticks != process.start_ticks:
                return True
            _kill(process.pid)
            time.sleep(_LOOK_SECONDS)
    return lives.process_state(process) == "died"


def _end_what_it_left(folder: Path, record: Record) -> None:
    """End what the dead kernel of a dead runner left in its group: it would keep memory, GPUs and ports."""
    if record.kernel is None:
        return
    left = offspring.end_group_of(record.kernel, _LEFTOVER_SECONDS, seen_at=records.last_seen(folder))
    if left:
        log = Log(folder)
        log.say(f"What the {'script' if record.kind == 'script' else 'kernel'} left running was ended: {left}.")
        log.close()


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg") and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _checked(name: str) -> str:
    if layout.parse_run_name(name) is None:
        raise RunError(f"{name!r} cannot be the name of a run. A name is {layout.RUN_NAMES}.")
    return name


def _first_record(name: str, kind: Kind, source: Path, root: Path, options: Options) -> Record:
    return Record(
        name=name,
        kind=kind,
        source=str(source),
        folder=os.getcwd(),
        store=str(root),
        options=options,
        created=records.now(),
        runner=records.process_of(os.getpid()),
    )


def _refuse_to_resume(record: Record) -> None:
    if record.state not in ENDED:
        raise RunError(
            f"The run {record.name} is {record.state}, so there is nothing to resume. Watch it: ipyrescue logs -f "
            f"{record.name}   End it: ipyrescue stop {record.name}"
        )
    if record.kind == "script" and record.state == "finished":
        raise RunError(
            f"The run {record.name} has finished. To run the script once more: ipyrescue run {record.source}"
        )
    if not Path(record.source).is_file():
        raise RunError(f"{record.source}, which the run {record.name} is of, is not there any more. Put it back first.")


def _start(folder: Path) -> subprocess.Popen[bytes]:
    errors = os.open(folder / ERRORS_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | atomic.SAFE_FLAGS, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ipyrescue.runs", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=folder,  # and not the user's: a typing.py beside the notebook would be taken for Python's
            env=inherited.environment(os.environ),
            close_fds=True,
            **_detached(),
        )
    finally:
        os.close(errors)
    _started.append(process)
    return process


def _detached() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _last_words(folder: Path) -> str:
    """What the runner's process said past its log, as the end of a message."""
    try:
        with open(folder / ERRORS_NAME, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS_BYTES))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f" Its last words: {lines[-1][:300]} (all of them: {folder / ERRORS_NAME})" if lines else ""
