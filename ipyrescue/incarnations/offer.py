"""The proposal after a death: this snapshot, for this notebook, in this form. Deaths and snapshots into an `Offer`.

A restore that killed the kernel is never proposed again in the same form: on a GPU's memory it is tried on the CPU
next, and after that the generation before. What a scrub found damaged is passed over where there is another.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ipyrescue.finding import can_be_read, candidates
from ipyrescue.incarnations.cause import diagnose
from ipyrescue.incarnations.deaths import Death, previous_death
from ipyrescue.incarnations.evidence import gather
from ipyrescue.manifest import Snapshot
from ipyrescue.store import layout, lives, scrub
from ipyrescue.store.lives import Cause, Life
from ipyrescue.store.upkeep import Attempt, attempts, awaiting_restore


@dataclass(frozen=True)
class Offer:
    """What is proposed after *death*.

    *snapshot* is what a restore should take, forced to *device* if there is one; *interrupted* is a newer one that
    was cut in the middle of a step; *note* says why not the newest is proposed.
    *renamed*: the notebook had another name then. *unreadable* snapshots of the store may be its too.
    """

    death: Death
    cause: Cause
    snapshot: Snapshot | None = None
    device: Literal["cpu"] | None = None
    interrupted: Snapshot | None = None
    note: str | None = None
    renamed: bool = False
    unreadable: int = 0

    @property
    def life(self) -> Life:
        """The kernel that died."""
        return self.death.life


def find_offer(
    root: Path, notebook: str, snapshots: Sequence[Snapshot], *, incarnation: str = "", former: Collection[str] = ()
) -> Offer | None:
    """What to propose to *notebook*'s user; None when nothing died or it was answered.

    *snapshots* are the store's that can be read, newest first, also of other notebooks. *incarnation* is the kernel
    that asks, if one does.
    """
    death = previous_death(root, notebook, incarnation, former)
    if death is None:
        return None
    cause, unrestored = _cause(root, death), awaiting_restore(root, incarnation)
    failed = attempts(root)
    if cause.kind in lives.FROM_OUTSIDE:
        failed -= {Attempt(str(death.life.restoring), death.life.restoring_device)}
    offer = make_offer(death, cause, snapshots, unrestored, failed, scrub.read(root).damaged)
    return replace(offer, renamed=death.life.notebook != notebook, unreadable=count_unreadable(root, snapshots))


def count_unreadable(root: Path, readable: Sequence[Snapshot]) -> int:
    """How many manifests of a store are not among those that can be read: damaged, or signed by another key."""
    try:
        names = os.listdir(layout.snapshots(root))
    except OSError:
        return 0
    return max(0, sum(layout.parse_snapshot_name(name) is not None for name in names) - len(readable))


def make_offer(
    death: Death,
    cause: Cause,
    snapshots: Sequence[Snapshot],
    unrestored: Collection[str],
    failed: Collection[Attempt],
    damaged: Collection[str] = (),
) -> Offer:
    """Choose for one death. *failed* are the restores that killed the kernel that tried them.

    *damaged* are the ids of snapshots that were found so. Nobody vouches for that: with no other left they are offered.
    """
    ranked = candidates(snapshots, unrestored, death.life.notebook)
    forms = [Attempt(s.id, device) for s in ranked for device in ((None, "cpu") if on_a_gpu(s) else (None,))]
    left = [form for form in forms if form not in failed]
    by_id = {s.id: s for s in ranked}
    whole = [form for form in left if form.snapshot not in damaged]
    chosen = next((form for form in (*whole, *left) if can_be_read(by_id[form.snapshot])), None)
    mine = [s for s in snapshots if s.incarnation == death.life.incarnation]
    return Offer(
        death,
        cause,
        snapshot=by_id[chosen.snapshot] if chosen else None,
        device="cpu" if chosen and chosen.device else None,
        interrupted=mine[0] if mine and not mine[0].consistent else None,
        note=_note(forms, left, _passed_over(left, chosen, damaged)),
    )


def on_a_gpu(snapshot: Snapshot) -> bool:
    """Whether tensors of it stood in the memory of a GPU."""
    return any(device.startswith("cuda") for device in snapshot.devices)


def diagnosed(root: Path, life: Life) -> Cause:
    """The cause on record, or what can be found out now."""
    return life.cause or _cause(root, Death(life, lives.last_seen(root, life)))


def _cause(root: Path, death: Death) -> Cause:
    return death.life.cause or diagnose(gather(root, death))


def _passed_over(left: Sequence[Attempt], chosen: Attempt | None, damaged: Collection[str]) -> list[str]:
    """The damaged snapshots that were not chosen although they come first."""
    if chosen is None or chosen.snapshot in damaged:
        return []
    return list(dict.fromkeys(form.snapshot for form in left[: left.index(chosen)] if form.snapshot in damaged))


def _note(forms: Sequence[Attempt], left: Sequence[Attempt], damaged: Sequence[str]) -> str | None:
    failed = forms[: forms.index(left[0])] if left else forms
    if damaged:
        died = f"The kernel died in {_restores(failed)}. " if failed else ""
        were = "was found damaged when it was" if len(damaged) == 1 else "were found damaged when they were"
        return f"{died}{' and '.join(name[:8] for name in damaged)} {were} read back, so the one before is proposed."
    if not failed:
        return None
    how = _restores(failed)
    if not left:
        names = f"%restore_vars NAME from={failed[0].snapshot[:8]}"
        return f"The kernel died in {how}. Single names take less memory: {names}"
    if left[0].device == "cpu" and left[0].snapshot == failed[-1].snapshot:
        return f"The kernel died in {how}, so its tensors are to come back on the CPU."
    return f"The kernel died in {how}, so the one before is proposed."


def _restores(failed: Sequence[Attempt]) -> str:
    return "a restore of " + " and of ".join(dict.fromkeys(form.snapshot[:8] for form in failed))
