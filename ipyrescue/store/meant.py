"""What a person types into the snapshot that is meant: `latest`, `latest~2`, a label, the beginning of an id. Pure."""

from __future__ import annotations

import re

from ipyrescue.errors import SnapshotNotFoundError
from ipyrescue.manifest import Snapshot
from ipyrescue.store.catalog import Unreadable

_LATEST = re.compile(r"latest(?:~([0-9]{1,9}))?")
_PREFIX = re.compile(r"[0-9a-f]{1,16}")
_SHOWN = 8


def find(spec: str, mine: list[Snapshot], everyone: list[Snapshot], unreadable: list[Unreadable]) -> Snapshot:
    """The snapshot that *spec* means: `latest`, `latest~2` or a label among *mine*, else an id prefix.

    Raises SnapshotNotFoundError, listing the candidates; or the error of the unreadable one that was meant.
    """
    latest = _LATEST.fullmatch(spec)
    if latest:
        return _nth(int(latest[1] or 0), spec, mine)
    labelled = [snapshot for snapshot in mine if snapshot.label == spec]
    if labelled:
        return labelled[0]
    prefix = spec if _PREFIX.fullmatch(spec) else "-"
    broken = [item for item in unreadable if item.name[11:].startswith(prefix)]
    matches = _by_id(prefix, mine) or _by_id(prefix, everyone)
    if len(matches) == 1 and (not broken or len(prefix) == 16):
        return matches[0]
    if not matches and len(broken) == 1:
        raise broken[0].error
    candidates = [_described(snapshot) for snapshot in matches or mine] + [item.name[11:19] for item in broken]
    raise _not_found("is ambiguous" if matches or broken else "matches no snapshot", spec, candidates)


def _nth(index: int, spec: str, mine: list[Snapshot]) -> Snapshot:
    if index >= len(mine):
        raise _not_found(f"asks for more snapshots than there are ({len(mine)})", spec, [_described(s) for s in mine])
    return mine[index]


def _by_id(prefix: str, snapshots: list[Snapshot]) -> list[Snapshot]:
    return [snapshot for snapshot in snapshots if snapshot.id.startswith(prefix)]


def _described(snapshot: Snapshot) -> str:
    label = f" {snapshot.label!r}" if snapshot.label else ""
    return f"{snapshot.id[:8]}{label} ({snapshot.created[:16]})"


def _not_found(why: str, spec: str, candidates: list[str]) -> SnapshotNotFoundError:
    shown = ", ".join(candidates[:_SHOWN]) + (", ..." if len(candidates) > _SHOWN else "")
    there = f"There are: {shown}." if candidates else "There are none for this notebook."
    return SnapshotNotFoundError(f"{spec!r} {why}. {there} Type %snapshots or `ipyrescue ls` to see all.")
