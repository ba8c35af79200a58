"""`ipyrescue why`: how the last kernels died, what they left, what would help."""

from __future__ import annotations

import dataclasses
import os
import shutil
import textwrap
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import DEFAULT_FOLDER, Entry, entries, open_store, summary
from ipyrescue.cli.exits import NoStoreError
from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.identity import resolve
from ipyrescue.incarnations.cause import advice, share_of_memory
from ipyrescue.incarnations.deaths import Death, deaths, undecided
from ipyrescue.incarnations.obituary import line_for, process, restore_line
from ipyrescue.incarnations.offer import Offer, diagnosed, make_offer
from ipyrescue.incarnations.renames import former_names
from ipyrescue.manifest import Variable
from ipyrescue.settings import format_age, format_duration, format_size
from ipyrescue.store import Store, lives
from ipyrescue.store.lives import Cause, Life, Memory
from ipyrescue.store.upkeep import attempts, awaiting_restore
from ipyrescue.wording import clock, count, seconds_of, shortened

SHOWN = 3
LARGEST = 5
_INDENT = 10
_WIDEST = 100
_NAME_CHARACTERS = 32
_MEMORY_KINDS = ("out_of_memory", "cuda_out_of_memory")


@dataclass(frozen=True)
class Autopsy:
    """One death: its cause, the snapshot to go back to and the line that takes it, and why not the newest one."""

    death: Death
    cause: Cause
    entry: Entry | None
    restore: str | None
    note: str | None

    @property
    def life(self) -> Life:
        """The kernel that died."""
        return self.death.life

    @property
    def largest(self) -> tuple[Variable, ...]:
        """The largest variables of the snapshot."""
        if self.entry is None or self.entry.state != "ok" or self.entry.snapshot is None:
            return ()
        return tuple(sorted(self.entry.snapshot.variables, key=lambda variable: -variable.size_bytes)[:LARGEST])

    @property
    def advice(self) -> tuple[str, ...]:
        """What would help against the next death of this kind."""
        return tuple(_advice(self))


def why(
    notebook: Annotated[
        str | None, typer.Argument(metavar="NOTEBOOK", help="A notebook's file; without it, a whole store.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many deaths.")] = SHOWN,
    show_all: Annotated[bool, typer.Option("--all", help="Every death on record.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how the last kernels died: of a notebook, or of a whole store.

    For each: when, in which cell, the cause as far as it can be known, memory, the snapshot to go back to with its
    largest variables, what to type, and what would help. Those that were restored or dismissed are told too, and said
    to be. Nothing is written and nothing unpickled.

    \b
    --json prints {"store", "notebook", "deaths": [...]}; each death has
      incarnation, notebook, kind, host, pid, started, died, exit_code
      cell, cell_source, cell_started, cell_running, error
      cause       {"kind", "verb", "text", "certain", "place"}
      memory      {"rss_bytes", "peak_rss_bytes", "limit_bytes",
                   "cuda_allocated_bytes", "cuda_reserved_bytes", "warning"} or null
      restoring, restored, dismissed
      snapshot    as in `ipyrescue ls --json`, or null
      largest     [{"name", "type", "size_bytes"}]
      restore     the line to type, or null; note: why not the newest snapshot
      advice      [sentences]
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    root, names = _subject(notebook, store)
    opened = open_store(root, need_key=False)
    found = sorted(deaths(opened.root, names or _every_name(opened.root)), key=lambda death: death.at, reverse=True)
    shown = found if show_all else found[:number]
    there = entries(opened)
    told = [_autopsy(opened, there, death) for death in shown]
    if as_json:
        write_json({"store": str(opened.root), "notebook": notebook, "deaths": [_document(one) for one in told]})
        return
    if not found:
        _say_that_none_died(opened.root, notebook, names)
    for position, one in enumerate(told):
        write(("\n" if position else "") + "\n".join(_lines(one, time.time())))
    if len(shown) < len(found):
        say(f"{count(len(found) - len(shown), 'older death')} on record: ipyrescue why --all")


def _say_that_none_died(root: Path, notebook: str | None, names: Collection[str]) -> None:
    silent = any(undecided(root, name, "") for name in names or _every_name(root))
    later = " One has been silent for some seconds: ask again in a minute." if silent else ""
    say(f"No kernel of {notebook or f'a notebook in {root}'} has died.{later}")


def _subject(notebook: str | None, store: Path | None) -> tuple[Path, Collection[str]]:
    """The store to look into, and the names by which it knows the notebook; none where all are meant."""
    if notebook is None:
        return (store or Path(DEFAULT_FOLDER)).absolute(), ()
    where = resolve({}, {**os.environ, "JPY_SESSION_NAME": os.path.abspath(notebook)}, Path.cwd(), store)
    known = _every_name(where.store_root)
    if where.path is not None and (where.path.exists() or where.notebook in known):
        return where.store_root, {where.notebook, *former_names(where)}
    if notebook in known:  # as `ipyrescue ls` and this command print it: a console, or a file that is elsewhere
        return where.store_root, {notebook}
    others = f" It knows {', '.join(sorted(known))}." if known else ""
    raise NoStoreError(f"There is no notebook {notebook}, and {where.store_root} knows none of that name.{others}")


def _every_name(root: Path) -> frozenset[str]:
    return frozenset(life.notebook for life in lives.read_all(root))


def _autopsy(store: Store, there: Sequence[Entry], death: Death) -> Autopsy:
    cause = diagnosed(store.root, death.life)
    if _is_offered(store.root, death):
        good = [entry.snapshot for entry in there if entry.state == "ok" and entry.snapshot is not None]
        offer = make_offer(death, cause, good, awaiting_restore(store.root, ""), attempts(store.root))
        offer = dataclasses.replace(offer, renamed=_is_renamed(store.root, death.life))
        if offer.snapshot is not None or offer.note is not None:
            return Autopsy(death, cause, _entry_of(offer, there), _line_of(offer), offer.note)
    newest = _newest(there, death.life)
    good_one = newest is not None and newest.state == "ok"
    return Autopsy(death, cause, newest, line_for(death.life, newest.id) if newest and good_one else None, None)


def _is_offered(root: Path, death: Death) -> bool:
    """Whether it is this death that a new kernel of its notebook tells of."""
    return next((d.life for d in deaths(root, {death.life.notebook}) if d.pending), None) == death.life


def _is_renamed(root: Path, life: Life) -> bool:
    """Whether the notebook has another name now, under which a plain `%restore_vars` does not look for this one."""
    return life.kind == "notebook" and not os.path.exists(root.parent / life.notebook)


def _entry_of(offer: Offer, there: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in there if offer.snapshot and entry.id == offer.snapshot.id), None)


def _line_of(offer: Offer) -> str | None:
    return restore_line(offer) if offer.snapshot is not None else None


def _newest(there: Sequence[Entry], life: Life) -> Entry | None:
    """The newest snapshot of one life that a restore would choose; else the newest one, whatever is wrong with it."""
    mine = [entry for entry in there if entry.snapshot is not None and entry.snapshot.incarnation == life.incarnation]
    return next((entry for entry in mine if entry.good), mine[0] if mine else None)


def _advice(one: Autopsy) -> Iterator[str]:
    memory = one.life.memory
    if one.cause.kind in _MEMORY_KINDS and one.largest:
        names = ", ".join(f"{v.name} ({format_size(v.size_bytes)})" for v in one.largest[:3])
        yield f"The largest variables of the snapshot: {names}. Which of them can be made again, or made smaller?"
    if memory is not None and memory.warning:
        yield memory.warning
    yield from advice(one.cause, one.life.kind)
    if one.entry is None and one.life.restored is None:
        arm = 'ipyrescue.guard(every="5m")' if one.life.kind == "script" else "%checkpoint_vars every=5m"
        yield f"Have something to go back to the next time: {arm}"


def _document(one: Autopsy) -> dict[str, Any]:
    life, memory = one.life, one.life.memory
    return {
        "incarnation": life.incarnation,
        "notebook": life.notebook,
        "kind": life.kind,
        "host": life.host,
        "pid": life.pid,
        "started": life.started,
        "died": _iso(one.death.at),
        "exit_code": life.exit_code,
        "cell": life.cell,
        "cell_source": life.cell_source,
        "cell_started": life.cell_started,
        "cell_running": life.cell_running,
        "error": life.error,
        "cause": dataclasses.asdict(one.cause),
        "memory": _memory_document(memory) if memory else None,
        "restoring": life.restoring,
        "restored": life.restored,
        "dismissed": life.dismissed,
        "snapshot": summary(one.entry) if one.entry else None,
        "largest": [{"name": v.name, "type": v.type, "size_bytes": v.size_bytes} for v in one.largest],
        "restore": one.restore,
        "note": one.note,
        "advice": list(one.advice),
    }


def _memory_document(memory: Memory) -> dict[str, Any]:
    counters = ("oom_kills", "oom_group", "machine_oom_kills")
    return {name: value for name, value in dataclasses.asdict(memory).items() if name not in counters}


def _iso(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds") if seconds > 0 else None
    except (ValueError, OverflowError, OSError):  # a moment that no calendar has
        return None


def _lines(one: Autopsy, now: float) -> Iterator[str]:
    """One death for a person at a terminal."""
    died = f"{one.life.notebook}: the {process(one.life)} {one.cause.verb} ({one.cause.text})"
    yield from _wrapped(died, indent="  ")
    for title, text in _facts(one, now):
        yield from _wrapped(f"{title:<{_INDENT}}{text}", indent=" " * _INDENT)
    yield from _largest_lines(one.largest)
    if one.restore is not None:
        yield f"{'go back':<{_INDENT}}{one.restore}"
    if one.restore is not None and one.restore.startswith("%"):
        yield f"{'look':<{_INDENT}}{one.restore} --dry-run"
    for position, sentence in enumerate(one.advice):
        title = "" if position else "help"
        yield from _wrapped(f"{title:<{_INDENT}}- {sentence}", indent=" " * (_INDENT + 2))


def _facts(one: Autopsy, now: float) -> Iterator[tuple[str, str]]:
    life = one.life
    yield "when", _when(one.death, now)
    yield ("block", _block(one.death)) if life.kind == "script" else ("cell", _cell(one.death))
    if not one.cause.certain and one.cause.kind != "unknown":
        yield "certain", "no: the facts suggest it, nothing proves it"
    for position, frame in enumerate(one.cause.place):
        yield "" if position else "stood in", frame
    if life.error is not None:
        yield "raised", shortened(life.error, 200)
    if life.memory is not None:
        yield from _memory(life.memory)
    if life.restoring is not None:
        yield "during", f"a restore of snapshot {life.restoring[:8]}"
    if life.restored is not None:
        yield "since", f"restored, from snapshot {life.restored[:8]}"
    elif life.dismissed:
        yield "since", "dismissed: it is not offered any more"
    if one.note is not None:
        yield "note", one.note
    yield "snapshot", _snapshot(one)


def _when(death: Death, now: float) -> str:
    if death.at <= 0:
        return "at an unknown time"
    about = "" if death.life.died_at else "about "
    return f"{about}{clock(death.at, now=now)}, {format_age(now - death.at)}"


def _cell(death: Death) -> str:
    life = death.life
    name = f"[{life.cell}]" if life.cell is not None else "without a number"
    source = f": {life.cell_source}" if life.cell_source else ""
    if not life.cell_running:
        return f"none was running; the last one was {name}{source}" if life.cell_started else "none has run"
    seconds = death.at - (seconds_of(life.cell_started) or death.at)
    return f"{name}{f', for {format_duration(seconds)}' if seconds >= 1 else ''}{source}"


def _block(death: Death) -> str:
    """The guarded block of a script."""
    life = death.life
    if not life.cell_running:
        return "it was outside of its guard"
    seconds = death.at - (seconds_of(life.cell_started) or death.at)
    return f"{life.cell_source or 'a guard'} (for {format_duration(max(seconds, 0))})"


def _memory(memory: Memory) -> Iterator[tuple[str, str]]:
    peak = format_size(memory.peak_rss_bytes)
    yield "memory", f"{share_of_memory(memory)} when last looked at, at most {peak} in this cell"
    if memory.cuda_reserved_bytes is not None:
        allocated = format_size(memory.cuda_allocated_bytes or 0)
        yield "CUDA", f"{allocated} in tensors, {format_size(memory.cuda_reserved_bytes)} held by the allocator"


def _snapshot(one: Autopsy) -> str:
    if one.entry is None:
        return "none is proposed" if one.note is not None else "none that can be read is left of it"
    s, state = one.entry.snapshot, one.entry.state
    if s is None or state != "ok":
        return f"{one.entry.id[:8]} is {state}: {one.entry.error}"
    whose = "" if s.incarnation == one.life.incarnation else ", of a kernel before it"
    torn = "" if s.consistent else ", cut in the middle of a step: it may be torn"
    made, died = seconds_of(s.created), one.death.at
    before = f", {format_duration(died - made)} before it died" if made is not None and died - made >= 1 else ""
    contents = f"{count(len(s.globals), 'variable')}, {format_size(s.size_bytes)}"
    return f"{s.id[:8]}{whose}{before}: {contents}{torn}"


def _largest_lines(variables: Sequence[Variable]) -> Iterator[str]:
    rows = [(_short(v.name), _short(v.type), format_size(v.size_bytes)) for v in variables]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for name, kind, size in rows:
        yield f"{'':<{_INDENT}}{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}"


def _short(text: str) -> str:
    return shortened(printable(text), _NAME_CHARACTERS)


def _wrapped(text: str, *, indent: str) -> list[str]:
    """Lines as wide as the terminal, broken at spaces only: a path or a command stays whole."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.wrap(
        printable(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
