"""`ipyrescue verify`: whether what was written is still there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import EXITS, Entry, choose, entries, open_store
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import Column, console, say, write_json, write_table
from ipyrescue.cli.subsets import PackSubset, SubsetOption, as_two_options
from ipyrescue.cli.verb import JsonOption, StoreOption, Verb, finish
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.scrub import Record
from ipyrescue.store.verify import Damage, Reading, lengths

_WORTH_A_BAR_BYTES = 500 * 10**6
_WORST_FIRST = (Exit.DAMAGED, Exit.UNTRUSTED, Exit.FAILED)


@dataclass(frozen=True)
class Verdict:
    """What was found out about one entry."""

    entry: Entry
    damage: tuple[Damage, ...]

    @property
    def state(self) -> str:
        """The entry's state, unless reading its data told more."""
        return "damaged" if self.damage else self.entry.state

    @property
    def lost(self) -> str:
        """Names that did not survive."""
        return ", ".join(dict.fromkeys(name for d in self.damage for group in d.groups for name in group))


@dataclass(frozen=True)
class Read:
    """What was read: *all_data*, or the *packs* of a *subset*; so many of so many, and the bytes that they gave."""

    all_data: bool
    subset: PackSubset | None
    packs: int
    of_packs: int
    bytes: int

    @property
    def in_part(self) -> bool:
        """Whether some data were read and others not."""
        return self.subset is not None and self.packs < self.of_packs

    def __str__(self) -> str:
        size = format_size(self.bytes)
        if self.subset:
            return f"{self.packs} of {self.of_packs} packs read ({size})"
        return f"every byte read ({size})" if self.all_data else "data not read; --read-data reads it"


class VerifyVerb(Verb):
    """`--read-data` may have a value, but only behind an equals sign: `--read-data ID` reads all of one snapshot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        return super().parse_args(ctx, as_two_options(args))


def verify(
    snapshot: Annotated[str | None, typer.Argument(metavar="ID", help="Only this one; all when not given.")] = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Read and hash every byte; =10% or =1/7 that part of the packs.")
    ] = False,
    subset: SubsetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every signature and every file; change nothing.

    Without --read-data only manifests are read, and every pack must be there at its full length. With it every byte is
    compared with its hash, and the variables that are lost are named. --read-data=1/7 reads the first of seven parts
    of the packs, which --read-data=2/7 and so on go on with; --read-data=10% packs drawn anew each time, with about
    a tenth of all bytes. What snapshots share is read once.

    Exit code 3 when something is damaged, else 5 when another key signed something, else 1 when a newer ipyrescue
    wrote it.
    """
    opened = open_store(store, need_key=True)
    opened.read_all()
    believed = Record() if read_data and not subset else None  # what is read now is told, and nothing else
    chosen = [choose(opened, snapshot, scrubbed=believed)] if snapshot else entries(opened, scrubbed=believed)
    sizes_bytes = _sizes_bytes(opened, chosen)
    packs = subset.of(sizes_bytes) if subset else frozenset(sizes_bytes if read_data else ())
    verdicts, read_bytes = _read(opened, chosen, packs, sum(sizes_bytes[pack] for pack in packs))
    read = Read(read_data, subset, len(packs), len(sizes_bytes), read_bytes)
    if as_json:
        write_json(_document(opened, verdicts, read))
    else:
        _write(verdicts, read)
    codes = {EXITS["damaged"] if verdict.damage else EXITS[verdict.entry.state] for verdict in verdicts}
    finish(next((code for code in _WORST_FIRST if code in codes), Exit.OK))


def _sizes_bytes(store: Store, chosen: Sequence[Entry]) -> dict[str, int]:
    """The packs that snapshots of ours need, with their lengths: 0 for one that is missing."""
    there = lengths(store.root)
    needed = set().union(*(entry.snapshot.packs for entry in chosen if entry.snapshot and _ours(entry)))
    return {pack: there.get(pack, 0) for pack in needed}


def _read(
    store: Store, chosen: Sequence[Entry], packs: AbstractSet[str], total_bytes: int
) -> tuple[list[Verdict], int]:
    """Read what snapshots of ours have in *packs*, with a progress bar where a person waits; return how many bytes."""
    from rich.progress import Progress

    hidden = total_bytes < _WORTH_A_BAR_BYTES or not sys.stderr.isatty()
    with Progress(console=console(sys.stderr), transient=True, disable=hidden) as progress:
        task = progress.add_task("Reading", total=total_bytes)
        reading = Reading(store, packs, lambda more_bytes: progress.advance(task, more_bytes))
        return [Verdict(entry, _damage(reading, entry, packs)) for entry in chosen], reading.read_bytes


def _damage(reading: Reading, entry: Entry, packs: AbstractSet[str]) -> tuple[Damage, ...]:
    if not packs or entry.snapshot is None or not _ours(entry):
        return ()
    return tuple(reading.verify(entry.snapshot))


def _ours(entry: Entry) -> bool:
    return entry.state != "untrusted"


def _document(store: Store, verdicts: Sequence[Verdict], read: Read) -> dict[str, Any]:
    return {
        "store": str(store.root),
        "read_data": read.all_data,
        "read_data_subset": str(read.subset) if read.subset else None,
        "packs_read": read.packs,
        "packs": read.of_packs,
        "read_bytes": read.bytes,
        "whole": all(verdict.state == "ok" for verdict in verdicts),
        "snapshots": [
            {
                "id": verdict.entry.id,
                "notebook": verdict.entry.snapshot and verdict.entry.snapshot.notebook,
                "state": verdict.state,
                "error": str(verdict.entry.error) if verdict.entry.error else None,
                "damage": [
                    {"names": [name for group in d.groups for name in group], "blob": d.blob, "reason": d.reason}
                    for d in verdict.damage
                ],
            }
            for verdict in verdicts
        ],
    }


def _write(verdicts: Sequence[Verdict], read: Read) -> None:
    columns = (Column("ID"), Column("NOTEBOOK", fold=True), Column("STATE"), Column("WHAT IS WRONG", fold=True))
    bad = [verdict for verdict in verdicts if verdict.state != "ok"]
    if bad:
        write_table(columns, [_row(verdict) for verdict in bad], marked=[True] * len(bad))
        say(f"{len(bad)} of {len(verdicts)} snapshots are not as they should be; {read}.")
    elif read.in_part:
        say(f"{len(verdicts)} snapshots: no damage found in what was read; {read}.")
    else:
        say(f"{len(verdicts)} snapshots are whole; {read}.")


def _row(verdict: Verdict) -> tuple[str, ...]:
    snapshot = verdict.entry.snapshot
    wrong = f"lost: {verdict.lost or 'nothing that has a name'}" if verdict.damage else str(verdict.entry.error)
    return verdict.entry.id[:8], snapshot.notebook if snapshot else "?", verdict.state, wrong
