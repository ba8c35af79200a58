"""`ipyrescue now`: ask a running kernel for a snapshot, also in the middle of a cell."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import Entry, choose, open_store, summary
from ipyrescue.cli.exits import NoStoreError
from ipyrescue.cli.output import console, printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RescueError, SnapshotNotFoundError
from ipyrescue.identity import Identity, resolve
from ipyrescue.incarnations.renames import former_names
from ipyrescue.settings import format_age, format_duration, format_size, parse_duration
from ipyrescue.store import Store, lives, requests
from ipyrescue.store.lives import Life
from ipyrescue.store.requests import Answer, Request
from ipyrescue.wording import count, seconds_of

_LOOK_SECONDS = 0.1


class NoKernelError(RescueError):
    """Nobody is there who could make a snapshot of this notebook."""


class NoAnswerError(RescueError):
    """The kernel lives and made no snapshot in the time, or refused to."""


def now(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="A notebook's file, or its name in the store.")],
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="60s", help="How long to wait for the snapshot.")
    ] = "60s",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the running kernel of a notebook make a snapshot now, also in the middle of a cell.

    The kernel must be armed (%checkpoint_vars every=5m). Inside a cell the snapshot is cut where the state is
    consistent: at the end of an iteration, or between two lines. Ctrl-C takes the request back. Nothing is unpickled.

    \b
    --json prints {"store", "notebook", "incarnation", "seconds", "snapshot"};
      snapshot is as in `ipyrescue ls --json`, or null where it cannot be read.

    Exit code 1 when no kernel of the notebook runs, when it refuses, or when it does not answer in time.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    patience_seconds = _patience(timeout)
    where = resolve({}, {**os.environ, "JPY_SESSION_NAME": os.path.abspath(notebook)}, Path.cwd(), store)
    opened = open_store(where.store_root, need_key=False)
    life = _living(opened.root, notebook, where)
    started = time.monotonic()
    snapshot_id = _wait(opened.root, life, patience_seconds)
    seconds = time.monotonic() - started
    entry = _entry(opened, snapshot_id)
    if as_json:
        write_json(_document(opened, life, entry, seconds))
    else:
        write(_line(snapshot_id, entry, seconds))


def _patience(timeout: str) -> float:
    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from error


def _living(root: Path, notebook: str, where: Identity) -> Life:
    """The kernel of the notebook that runs, the youngest if there are several. Raises NoKernelError, NoStoreError."""
    known = lives.read_all(root)
    names = {where.notebook, notebook, *former_names(where)}
    of_it = [life for life in known if life.notebook in names]
    if not of_it and (where.path is None or not where.path.exists()):
        others = ", ".join(sorted({life.notebook for life in known}))
        told = f" It knows {others}." if others else ""
        raise NoStoreError(f"There is no notebook {notebook}, and {root} knows none of that name.{told}")
    alive = [life for life in of_it if _state(root, life) == "alive"]
    if not alive:
        raise NoKernelError(_why_none(root, notebook, of_it))
    if alive[-1].every_seconds is None:
        raise NoKernelError(
            f"The kernel of {notebook} runs and is not armed, so it does not listen. In the notebook: "
            "%checkpoint_vars saves now, %checkpoint_vars every=5m arms it."
        )
    return alive[-1]


def _state(root: Path, life: Life) -> str:
    return lives.state(life, last_seen_at=lives.last_seen(root, life))


def _why_none(root: Path, notebook: str, of_it: list[Life]) -> str:
    if not of_it:
        return f"No kernel of {notebook} has loaded ipyrescue, so none can be asked. In it: %load_ext ipyrescue"
    last = of_it[-1]
    ago = format_age(time.time() - lives.last_seen(root, last))
    if _state(root, last) == "died":
        return (
            f"The kernel of {notebook} is dead; its last sign of life was {ago}. What it left: ipyrescue why {notebook}"
        )
    if last.ended == "unload":
        return f"The kernel of {notebook} has unloaded ipyrescue. In the notebook: %load_ext ipyrescue"
    if last.ended is not None:
        return (
            f"No kernel of {notebook} runs: the last one ended ({last.ended}) {ago}. Start one, and %load_ext ipyrescue"
        )
    return f"The kernel of {notebook} has been silent since {ago}, and cannot be seen from here. Try again in a minute."


def _wait(root: Path, life: Life, patience_seconds: float) -> str:
    """The id of the snapshot that the kernel made. Raises NoAnswerError, NoKernelError."""
    deadline = time.monotonic() + patience_seconds
    wanted = Request.new(patience_seconds=patience_seconds)
    with _spinner(life) as told:
        try:
            answer = None
            while answer is None:
                waiting = requests.ask(root, life.incarnation, wanted)  # or somebody else's, which it may join
                answer = _answer(root, life, waiting, deadline, told)
                if answer is None and time.monotonic() >= deadline:
                    seen = _is_seen(root, life, waiting)
                    raise NoAnswerError(_no_answer(_again(root, life), patience_seconds, seen=seen))
        finally:
            requests.withdraw(root, life.incarnation, wanted)
    if answer.snapshot_id is not None:
        return answer.snapshot_id
    raise NoAnswerError(f"The kernel made no snapshot: {answer.refusal}")


def _answer(root: Path, life: Life, request: Request, deadline: float, told: Any) -> Answer | None:
    """What the kernel says; None when the time is over, or when somebody else took back the request that is joined."""
    while time.monotonic() < deadline:
        still_there = requests.waits(root, life.incarnation, request)
        answer = requests.answered(root, life.incarnation)
        if answer is not None and answer.id == request.id:
            if answer.final:
                return answer
            told("waiting for a place where the state is consistent")
        if _state(root, _again(root, life)) in ("died", "ended"):
            raise NoKernelError(_why_none(root, life.notebook, [_again(root, life)]))
        if not still_there:
            return None
        time.sleep(_LOOK_SECONDS)
    return None


def _is_seen(root: Path, life: Life, request: Request) -> bool:
    answer = requests.answered(root, life.incarnation)
    return answer is not None and answer.id == request.id


def _again(root: Path, life: Life) -> Life:
    """What the record says by now."""
    return next((one for one in lives.read_all(root) if one.incarnation == life.incarnation), life)


def _no_answer(life: Life, patience_seconds: float, *, seen: bool) -> str:
    waited = (
        f"The kernel of {life.notebook} (pid {life.pid}) made no snapshot within {format_duration(patience_seconds)}"
    )
    cell = f"cell [{life.cell}]" if life.cell is not None else "a cell"
    if not life.cell_running:
        return f"{waited}, although no cell runs. In the notebook: %checkpoint_vars --status"
    since = seconds_of(life.cell_started)
    running = f"{cell} has run for {format_duration(time.time() - since)}" if since is not None else f"{cell} runs"
    if seen:
        return (
            f"{waited}: {running} and came to no place where the state is consistent. It is in one long call of a "
            "library, or a debugger holds it. Wait longer: --timeout 10m"
        )
    return (
        f"{waited}: {running} and lets nobody else have a word: one long call below Python. Wait longer: "
        "--timeout 10m, or interrupt the cell if it can be lost."
    )


@contextlib.contextmanager
def _spinner(life: Life) -> Iterator[Any]:
    """Say on stderr what is waited for: a line that turns where a person looks, else a plain one."""
    asking = printable(f"Asked the kernel of {life.notebook} (pid {life.pid}) for a snapshot")
    if not sys.stderr.isatty():
        say(f"{asking}.")
        yield lambda text: None
        return
    with console(sys.stderr).status(f"{asking} ...") as status:
        yield lambda text: status.update(f"{asking}: {text} ...")


def _entry(store: Store, snapshot_id: str) -> Entry | None:
    """What the store has of the snapshot; None where the manifest is gone again or cannot be checked."""
    with contextlib.suppress(SnapshotNotFoundError, StopIteration):
        return choose(store, snapshot_id)
    return None


def _document(store: Store, life: Life, entry: Entry | None, seconds: float) -> dict[str, Any]:
    return {
        "store": str(store.root),
        "notebook": life.notebook,
        "incarnation": life.incarnation,
        "seconds": round(seconds, 3),
        "snapshot": summary(entry) if entry is not None else None,
    }


def _line(snapshot_id: str, entry: Entry | None, seconds: float) -> str:
    took = f"in {format_duration(seconds)}"
    s = entry.snapshot if entry is not None else None
    if s is None:
        return f"Saved {snapshot_id[:8]} {took}."
    torn = "" if s.consistent else ", in the middle of a step: it may be torn"
    size = f"{count(len(s.variables), 'variable')}, {format_size(s.size_bytes)} ({format_size(s.new_bytes)} new)"
    return f"Saved {s.id[:8]} {took}: {size}, cut: {s.cut}{torn}, paused {format_duration(s.pause_seconds)}."
