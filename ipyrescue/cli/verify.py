"""`ipyrescue verify`: whether what was written is still there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import EXITS, Entry, choose, entries, open_store
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import Column, console, say, write_json, write_table
from ipyrescue.cli.subsets import PackSubset, SubsetOption, as_two_options
from ipyrescue.cli.verb import JsonOption, StoreOption, Verb, finish
from ipyrescue.manifest import BlobRef
from ipyrescue.settings import format_size
from ipyrescue.store import Store
from ipyrescue.store.scrub import Record
from ipyrescue.store.verify import Damage
from ipyrescue.store.verify import verify as read_back

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
    of the packs, which --read-data=2/7 and so on go on with; --read-data=10% the same tenth each time.

    Exit code 3 when something is damaged, else 5 when another key signed something, else 1 when a newer ipyrescue
    wrote it.
    """
    opened = open_store(store, need_key=True)
    opened.read_all()
    believed = Record() if read_data and not subset else None  # what is read now is told, and nothing else
    chosen = [choose(opened, snapshot, scrubbed=believed)] if snapshot else entries(opened, scrubbed=believed)
    every = {blob.pack for entry in chosen for blob in _blobs(entry) if blob.size_bytes}
    read = subset.of(every) if subset else frozenset(every if read_data else ())
    verdicts = list(_read(opened, chosen, read))
    if as_json:
        write_json(_document(opened, verdicts, read_data=read_data, subset=subset, packs_read=len(read)))
    else:
        _write(verdicts, _how(chosen, read, every, read_data=read_data, subset=subset))
    codes = {EXITS["damaged"] if verdict.damage else EXITS[verdict.entry.state] for verdict in verdicts}
    finish(next((code for code in _WORST_FIRST if code in codes), Exit.OK))


def _read(store: Store, chosen: Sequence[Entry], packs: AbstractSet[str]) -> Iterator[Verdict]:
    """Read what snapshots of ours have in *packs*, with a progress bar where a person waits for it."""
    from rich.progress import Progress

    total = sum(_bytes(entry, packs) for entry in chosen)
    hidden = total < _WORTH_A_BAR_BYTES or not sys.stderr.isatty()
    with Progress(console=console(sys.stderr), transient=True, disable=hidden) as progress:
        task = progress.add_task("Reading", total=total)
        for entry in chosen:
            yield Verdict(entry, _damage(store, entry, packs))
            progress.advance(task, _bytes(entry, packs))


def _damage(store: Store, entry: Entry, packs: AbstractSet[str]) -> tuple[Damage, ...]:
    if not packs or entry.snapshot is None or entry.state == "untrusted" or store.verified(entry.snapshot):
        return ()
    return tuple(read_back(store, entry.snapshot, packs))


def _blobs(entry: Entry) -> Sequence[BlobRef]:
    return entry.snapshot.blobs if entry.snapshot else ()


def _how(
    chosen: Sequence[Entry],
    read: AbstractSet[str],
    every: AbstractSet[str],
    *,
    read_data: bool,
    subset: PackSubset | None,
) -> str:
    if not read_data and not subset:
        return "data not read; --read-data reads it"
    size = format_size(sum(_bytes(entry, read) for entry in chosen))
    return f"{len(read)} of {len(every)} packs read ({size})" if subset else f"every byte read ({size})"


def _bytes(entry: Entry, packs: AbstractSet[str]) -> int:
    return sum({blob.hash: blob.size_bytes for blob in _blobs(entry) if blob.pack in packs}.values())


def _document(
    store: Store, verdicts: Sequence[Verdict], *, read_data: bool, subset: PackSubset | None, packs_read: int
) -> dict[str, Any]:
    return {
        "store": str(store.root),
        "read_data": read_data,
        "read_data_subset": str(subset) if subset else None,
        "packs_read": packs_read,
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


def _write(verdicts: Sequence[Verdict], how: str) -> None:
    columns = (Column("ID"), Column("NOTEBOOK", fold=True), Column("STATE"), Column("WHAT IS WRONG", fold=True))
    bad = [verdict for verdict in verdicts if verdict.state != "ok"]
    if bad:
        write_table(columns, [_row(verdict) for verdict in bad], marked=[True] * len(bad))
    if bad:
        say(f"{len(bad)} of {len(verdicts)} snapshots are not as they should be; {how}.")
    else:
        say(f"{len(verdicts)} snapshots are whole; {how}.")


def _row(verdict: Verdict) -> tuple[str, ...]:
    snapshot = verdict.entry.snapshot
    wrong = f"lost: {verdict.lost or 'nothing that has a name'}" if verdict.damage else str(verdict.entry.error)
    return verdict.entry.id[:8], snapshot.notebook if snapshot else "?", verdict.state, wrong
