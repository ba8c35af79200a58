"""What the users of a notebook are told after a death: an `Announcement`, from what was seen or from the store.

One for each notebook, the newest. What the store knows is always asked anew, because a kernel may have restored it
meanwhile; kept in memory is only what no store knows.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ipyrescue import settings
from ipyrescue.incarnations import obituary
from ipyrescue.incarnations.cause import advice
from ipyrescue.incarnations.deaths import Death, deaths, dismiss
from ipyrescue.incarnations.offer import Offer, count_unreadable, find_offer, make_offer
from ipyrescue.incarnations.witness import End, cause_of
from ipyrescue.manifest import Snapshot
from ipyrescue.server.notebooks import Notebook
from ipyrescue.server.stores import Stores
from ipyrescue.store import lives, scrub
from ipyrescue.store.lives import Cause, Life
from ipyrescue.store.upkeep import attempts, awaiting_restore
from ipyrescue.wording import clean, clock, count, shortened

SCHEMA_ID = "https://schema.ipyrescue.invalid/kernel_rescue/v1"
SCHEMA = Path(__file__).parent / "events" / "kernel_rescue.yaml"
NAMES_SHOWN = 6

State = Literal["restarted", "dead", "found"]


@dataclass(frozen=True)
class Announcement:
    """An offer to the users of the notebook at *path*.

    *kernel_id* is the kernel that runs there now. *recorded* is False for one that had not loaded ipyrescue;
    *failed_starts* are the attempts to restart it, all in vain, where the *state* is "dead".
    """

    id: str
    path: str
    offer: Offer
    state: State
    kernel_id: str | None = None
    recorded: bool = True
    failed_starts: int = 0

    def as_json(self, now: float) -> dict[str, Any]:
        """The answer of the server and the data of the event; *now* is in seconds since the epoch."""
        life = self.offer.life
        return {
            "id": self.id,
            "path": self.path,
            "kernel_id": self.kernel_id,
            "state": self.state,
            "died_at": moment(self.offer.death),
            "cell": life.cell if life.cell_running else None,
            "cause": cause_as_json(self.offer.cause),
            "toast": self._toast(now),
            "message": self._message(now),
            "snapshot": offered(self.offer.snapshot, self.offer.device),
            "note": self.offer.note,
        }

    def _toast(self, now: float) -> str:
        told = obituary.toast(self.offer, now)
        if self.state != "dead":
            return told
        _, _, saved = told.partition("\n")
        verb = self.offer.cause.verb
        died = f"{obituary.title(self.offer.life)}: kernel {verb}, and {count(self.failed_starts, 'restart')} failed."
        return f"{shortened(died, obituary.TOAST_CHARACTERS - len(saved) - 1)}\n{saved}"

    def _message(self, now: float) -> str:
        lines = obituary.story(self.offer, now) if self.recorded else self._without_record(now)
        if self.state == "dead":
            lines.append(
                f"It died {count(self.failed_starts, 'time')} while starting and is not restarted any more. "
                "Mend what ends it at its start (the server's log has its last words), then restart the kernel."
            )
        return "\n".join(lines)

    def _without_record(self, now: float) -> list[str]:
        offer = self.offer
        died = f"The kernel of {obituary.title(offer.life)} {offer.cause.verb} ({offer.cause.text})"
        lines = [f"{died} at {clock(offer.death.at, now=now)}. It had not loaded ipyrescue: %load_ext ipyrescue"]
        return lines + obituary.what_is_left(offer, now)


def of_record(notebook: Notebook, life: Life, snapshots: Sequence[Snapshot], kernel_id: str | None) -> Announcement:
    """For a death that a server saw and that stands on the kernel's own record."""
    root = notebook.store_root
    death = Death(life, lives.last_seen(root, life))
    assert life.cause is not None, "a witness notes the cause"
    damaged = scrub.read(root).damaged
    offer = make_offer(death, life.cause, snapshots, awaiting_restore(root, ""), attempts(root), damaged)
    offer = dataclasses.replace(offer, unreadable=count_unreadable(root, snapshots))
    return Announcement(life.incarnation, notebook.path, offer, "restarted", kernel_id)


def without_record(notebook: Notebook, end: End, snapshots: Sequence[Snapshot], kernel_id: str | None) -> Announcement:
    """For a kernel that had not loaded ipyrescue; what an earlier one left and nobody has answered is proposed."""
    life, cause = cause_of(end, notebook.identity.notebook)
    earlier = _found(notebook, snapshots)
    death = Death(life, 0.0)
    offer = dataclasses.replace(earlier, death=death, cause=cause) if earlier else Offer(death, cause)
    return Announcement(secrets.token_hex(8), notebook.path, offer, "restarted", kernel_id, recorded=False)


class Board:
    """The announcements that were made, until they are answered: one for each notebook."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._kept: dict[str, Announcement] = {}

    def keep(self, announcement: Announcement) -> None:
        """Put it in the place of an earlier one of the same notebook."""
        self._kept[announcement.path] = announcement

    def drop(self, announcement: Announcement) -> None:
        """There is nothing to be said about it any more."""
        if self._kept.get(announcement.path) is announcement:
            del self._kept[announcement.path]

    def paths(self) -> list[str]:
        """The notebooks for which something is kept."""
        return sorted(self._kept)

    def kept(self, path: str, kernel_id: str | None) -> Announcement | None:
        """What was announced last to the notebook at *path*, or to that of *kernel_id*, should it be renamed since."""
        named = self._kept.get(path)
        if named is not None or kernel_id is None:
            return named
        return next((each for each in self._kept.values() if each.kernel_id == kernel_id), None)

    def current(self, notebook: Notebook, kernel_id: str | None) -> Announcement | None:
        """What is to be said to the users of *notebook* now. Reads the store; raises `StoreError`."""
        kept = self.kept(notebook.path, kernel_id)
        if kept is not None and not _is_open(kept, notebook.store_root):
            self.drop(kept)
            kept = None
        found = _found(notebook, self._stores.snapshots(notebook.store_root))
        if kept is not None and (found is None or kept.offer.death.at > found.death.at):
            return dataclasses.replace(kept, path=notebook.path, kernel_id=kernel_id)
        if found is None:
            return None
        fresh = Announcement(found.life.incarnation, notebook.path, found, "found", kernel_id)
        if kept is not None and kept.id == fresh.id:
            return dataclasses.replace(fresh, state=kept.state, failed_starts=kept.failed_starts)
        return fresh

    def dismiss(self, notebook: Notebook, kernel_id: str | None, identifier: str) -> bool:
        """Never offer it again, nor what died before it; whether there is such a death. Raises `StoreError`."""
        kept = self.kept(notebook.path, kernel_id)
        meant = kept if kept is not None and kept.id == identifier else None
        dead = deaths(notebook.store_root, {*notebook.keys, *([meant.offer.life.notebook] if meant else [])})
        named = next((death for death in dead if death.life.incarnation == identifier), None)
        last = meant.offer.death if meant is not None else named
        if last is None:
            return False
        for death in dead:
            if death.pending and death.at <= last.at:
                dismiss(notebook.store_root, death.life)
        if meant is not None:
            self.drop(meant)
        return True


def is_silenced(offer: Offer) -> bool:
    """Whether the notebook's user, or this server's, wants to hear of no death."""
    said = offer.snapshot.settings.on_death if offer.snapshot is not None else None
    return (said or settings.resolve(os.environ).on_death) == "never"


def moment(death: Death) -> str | None:
    """When it died, in ISO 8601; None where no calendar has that, as a damaged record may say."""
    try:
        died = datetime.fromtimestamp(death.at, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return died.isoformat(timespec="milliseconds") if death.at > 0 else None


def cause_as_json(cause: Cause) -> dict[str, Any]:
    """Why, and what would help."""
    return {"kind": cause.kind, "text": cause.text, "certain": cause.certain, "advice": list(advice(cause))}


def offered(snapshot: Snapshot | None, device: str | None = None) -> dict[str, Any] | None:
    """A snapshot in as many words as a toast has room for."""
    if snapshot is None:
        return None
    names = [variable.name for variable in snapshot.globals]
    tagged = [name for name in snapshot.settings.tagged if name in names]
    return {
        "id": snapshot.id,
        "created": snapshot.created,
        "size_bytes": snapshot.size_bytes,
        "variables": len(names),
        "names": [clean(name) for name in dict.fromkeys([*tagged, *names])][:NAMES_SHOWN],
        "device": device,
    }


def _found(notebook: Notebook, snapshots: Sequence[Snapshot]) -> Offer | None:
    """What the store proposes to this notebook, unless its user wants to hear of nothing."""
    offer = find_offer(notebook.store_root, notebook.identity.notebook, snapshots, former=notebook.former)
    return offer if offer is not None and not is_silenced(offer) else None


def _is_open(kept: Announcement, root: Path) -> bool:
    """Whether nobody has answered it yet: dismissed it, or restored what it proposes."""
    if kept.recorded:
        life = _record(root, kept.id)
        return life is None or Death(life, 0.0).pending
    snapshot = kept.offer.snapshot
    return snapshot is None or snapshot.incarnation in awaiting_restore(root, "")


def _record(root: Path, incarnation: str) -> Life | None:
    return next((life for life in lives.read_all(root) if life.incarnation == incarnation), None)
