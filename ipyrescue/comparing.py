"""Two snapshots to what is different in them, name by name, from their manifests alone. Pure; reads no blob.

A name is the same only where that can be proved: the group that holds it has the same names in both, and the same
hashes of its stream and buffers, placed alike, and so has every group that it needs (the class of an instance). All
else counts as changed, which says that the saved bytes differ and no more: names that share objects are one group and
change together, a set or a function may be written differently by another process, a tensor may have moved to another
device. The same bytes may still refer to what lies outside of them: modules, the namespace in which a function looks
for its globals, a library's global random stream. An import is the same where it names the same module.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ipyrescue.manifest import Group, Snapshot, Variable


@dataclass(frozen=True)
class Change:
    """One name that both snapshots hold, with different bytes.

    *changed_bytes* says of how many at most: the blobs of its group in the newer one that the older one's lack, as
    large as they are on disk. None where only what it needs changed, such as its class.
    """

    before: Variable
    after: Variable
    changed_bytes: int

    @property
    def types(self) -> str:
        """Its type, or both where that changed too."""
        before, after = self.before.type, self.after.type
        return after if before == after else f"{before} -> {after}"

    @property
    def sizes_bytes(self) -> tuple[int, int, int]:
        """Its size before and after, and how much of it changed at most."""
        return self.before.size_bytes, self.after.size_bytes, self.changed_bytes


@dataclass(frozen=True)
class Difference:
    """What became of the names, each in exactly one of the four, sorted. *same* are names proved equal."""

    added: tuple[Variable, ...]
    removed: tuple[Variable, ...]
    changed: tuple[Change, ...]
    same: tuple[str, ...]

    def __str__(self) -> str:
        fates = {"added": self.added, "removed": self.removed, "changed": self.changed, "the same": self.same}
        return ", ".join(f"{len(names):,} {fate}" for fate, names in fates.items() if names) or "no variables in either"

    def as_json(self) -> dict[str, Any]:
        """Return names, types and sizes; of the same ones only how many."""
        return {
            "added": [_described(variable) for variable in self.added],
            "removed": [_described(variable) for variable in self.removed],
            "changed": [
                {
                    **_described(change.after),
                    "size_bytes_before": change.before.size_bytes,
                    "changed_bytes": change.changed_bytes,
                }
                for change in self.changed
            ],
            "same": len(self.same),
        }


def compare(older: Snapshot, newer: Snapshot) -> Difference:
    """Compare what two snapshots hold. Imports count as variables of type `module NAME`, of no size."""
    before, after = _held(older), _held(newer)
    proofs_before, proofs_after = _proofs(older), _proofs(newer)
    both = sorted(before.keys() & after.keys())
    proved = {name for name in proofs_before.keys() & proofs_after.keys() if proofs_before[name] == proofs_after[name]}
    same = {name for name in both if name in proved and before[name].type == after[name].type}
    changed_bytes = _changed_bytes(older, newer)
    return Difference(
        added=tuple(after[name] for name in sorted(after.keys() - before.keys())),
        removed=tuple(before[name] for name in sorted(before.keys() - after.keys())),
        changed=tuple(
            Change(before[name], after[name], changed_bytes.get(name, 0)) for name in both if name not in same
        ),
        same=tuple(sorted(same)),
    )


def in_order(first: Snapshot, second: Snapshot) -> tuple[Snapshot, Snapshot]:
    """The older and the newer of two, in whichever order they were named. Clocks do not decide."""
    older, newer = sorted((first, second), key=lambda s: (s.sequence, s.id))
    return older, newer


def left_out(name: str, snapshot: Snapshot) -> str:
    """Tell a name that *snapshot* could not hold, with the reason, from one that was gone by then (empty)."""
    return next((f"left out: {skipped.reason}" for skipped in snapshot.skipped if skipped.name == name), "")


def _held(snapshot: Snapshot) -> dict[str, Variable]:
    imports = (Variable(i.name, f"module {i.module}", 0, None, None) for i in snapshot.imports)
    return {variable.name: variable for variable in (*imports, *snapshot.variables)}


def _proofs(snapshot: Snapshot) -> dict[str, str]:
    """For each name a text that is equal in two snapshots only if it is decoded from the same bytes in both."""
    digests: list[str] = []
    for group in snapshot.groups:
        digests.append(_digest(snapshot, group, sorted(digests[position] for position in group.depends)))
    decoded = {name: digest for group, digest in zip(snapshot.groups, digests, strict=True) for name in group.names}
    return {**{i.name: f"module {i.module}" for i in snapshot.imports}, **decoded}


def _digest(snapshot: Snapshot, group: Group, needed: list[str]) -> str:
    """A hash over all that decoding a group goes by, wherever on disk its bytes stand."""

    def hashes(blobs: tuple[int, ...]) -> list[str]:
        return [snapshot.blobs[index].hash for index in blobs]

    said = (
        (group.names, group.kind, group.encoder, group.out_of_band, group.storages, needed),
        (group.stream.codec, group.stream.size_bytes, hashes(group.stream.blobs)),
        [(buffer.offset, buffer.size_bytes, hashes(buffer.blobs)) for buffer in group.buffers],
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _changed_bytes(older: Snapshot, newer: Snapshot) -> dict[str, int]:
    """For each name of *newer* the bytes of its group that none of the groups has which held the same names before."""
    before = {name: group for group in older.groups for name in group.names}
    changed = {}
    for group in newer.groups:
        known = {hash_ for name in group.names if name in before for hash_ in _sizes(older, before[name])}
        lacking = sum(size for hash_, size in _sizes(newer, group).items() if hash_ not in known)
        changed.update(dict.fromkeys(group.names, lacking))
    return changed


def _sizes(snapshot: Snapshot, group: Group) -> dict[str, int]:
    """The blobs of a group by their hashes, with their sizes in bytes."""
    indices = (*group.stream.blobs, *(index for buffer in group.buffers for index in buffer.blobs))
    return {snapshot.blobs[index].hash: snapshot.blobs[index].size_bytes for index in indices}


def _described(variable: Variable) -> dict[str, Any]:
    return {"name": variable.name, "type": variable.type, "size_bytes": variable.size_bytes}
