"""How far the reading of what is kept has come, and the damage that it found: into words, and into JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipyrescue.store.scrub import Finding, Tally
from ipyrescue.wording import clock, listed

_SHOWN = 3


def read_back_line(tally: Tally, now: float) -> str:
    """Say which snapshots were read back whole, the newest of them and the one read longest ago, and when."""
    assert tally.newest is not None
    assert tally.oldest is not None
    several = tally.newest != tally.oldest
    oldest = f", longest ago {_read(tally.oldest, now)}" if several else ""
    unread = f"; {tally.unread} not yet" if tally.unread else ""
    return f"Read back whole: the newest is {_read(tally.newest, now)}{oldest}{unread}."


def _read(entry: tuple[str, float], now: float) -> str:
    return f"{entry[0][:8]} at {clock(entry[1], now=now)}"


def tally_as_json(tally: Tally | None) -> dict[str, Any] | None:
    """The same for programs; moments in seconds since the epoch."""
    if tally is None:
        return None
    newest, oldest = (dict(zip(("id", "at"), entry, strict=True)) if entry else None
                      for entry in (tally.newest, tally.oldest))  # fmt: skip
    damaged = [{"id": key, "at": found.at, "names": list(found.names)} for key, found in tally.damaged]
    return {"snapshots": tally.total, "unread": tally.unread, "newest": newest, "oldest": oldest, "damaged": damaged}


def in_words(damaged: Sequence[tuple[str, Finding]]) -> str:
    """Say what damage was found, of snapshots by their ids."""
    told = "; ".join(f"snapshot {snapshot_id[:8]} ({_lost(found)})" for snapshot_id, found in damaged[:_SHOWN])
    more = f"; and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""
    return f"DAMAGED on disk: {told}{more}. Nothing older goes for what is damaged. See: ipyrescue verify --read-data"


def _lost(found: Finding) -> str:
    return f"lost: {listed(list(found.names), most=5)}" if found.names else "nothing that has a name is lost"
