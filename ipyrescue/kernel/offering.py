"""What a new kernel says of the last one, once, where its user sees it: with %load_ext, else before the first cell.

An extension that a profile loads is loaded before any front end listens, so whatever it prints is lost; then the
first cell of the user is where people look. Cells that front ends run for themselves do not count. What is done
follows the policy: offer, restore at once, or never.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from IPython.display import display

from ipyrescue.errors import RescueError, StoreError
from ipyrescue.incarnations import obituary
from ipyrescue.incarnations.deaths import dismiss, still_alive, undecided
from ipyrescue.incarnations.offer import Offer, find_offer
from ipyrescue.incarnations.renames import former_names
from ipyrescue.kernel.notebook import Notebook
from ipyrescue.store import keyring, lives

_RESTORES = re.compile(r"^[^#\n]*\brestore_vars\b|\A(?=[\s\S]*\bipyrescue\b)[\s\S]*\brestore\(", re.M)
"""A cell that most likely restores by itself. When it did not, the next cell is told."""

Restore = Callable[[str, Literal["cpu"] | None], Any]
"""Restore a snapshot by its id, with all tensors on a device if one is named; return what is to be shown."""


class Offering:
    """Tells of the last kernel of one notebook, or restores what it left. *restore* does the work and reports it."""

    def __init__(self, notebook: Notebook, restore: Restore) -> None:
        self.waits = True
        self._notebook = notebook
        self._restore = restore
        self._signs: dict[str, float] = {}

    def at_load(self, source: str) -> list[str]:
        """What %load_ext has to say, its cell being *source*; empty when nothing happened, or all is said.

        Raises `RescueError`.
        """
        return self._say(source) if self.waits else []

    def before_cell(self, source: str) -> None:
        """Say it before the output of a user's cell, if it is still to be said."""
        if not self.waits:
            return
        try:
            told = self._say(source)
        except RescueError as error:
            told = [f"ipyrescue: snapshots are out of reach. {error}"]
        except KeyboardInterrupt:  # out of the hook it would become a page of our code, and the cell would run as well
            self.waits, told = True, []
        for text in told:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - in a cell, on the main thread

    def _say(self, source: str) -> list[str]:
        where = self._notebook.identity
        self.waits = self._must_wait()
        if self._notebook.has_restored:
            self.waits = False
            return []
        offer = self._offer()
        if offer is not None:
            self.waits = False
            return self._answer(offer, source)
        alive = still_alive(where.store_root, where.notebook, self._notebook.incarnation)
        return [obituary.describe_alive(alive)] if alive is not None and not self.waits else []

    def _must_wait(self) -> bool:
        """Whether a kernel that cannot be seen may be dead or not; then a later cell asks again."""
        where = self._notebook.identity
        signs = undecided(where.store_root, where.notebook, self._notebook.incarnation)
        lives_on = any(sign > self._signs.get(incarnation, sign) for incarnation, sign in signs.items())
        self._signs = {**signs, **self._signs}
        return bool(signs) and not lives_on

    def _offer(self) -> Offer | None:
        where = self._notebook.identity
        offer = find_offer(
            where.store_root,
            where.notebook,
            self._notebook.snapshots(every_notebook=True),
            incarnation=self._notebook.incarnation,
            former=former_names(where),
        )
        if offer is not None and offer.life.cause is None:
            # While the traces are fresh: a later reader would blame the next reboot.
            with contextlib.suppress(StoreError):
                life = lives.annotate(where.store_root, offer.life, cause=offer.cause)
                return replace(offer, death=replace(offer.death, life=life))
        return offer

    def _answer(self, offer: Offer, source: str) -> list[str]:
        policy = self._policy(offer)
        if policy == "never":
            return []
        if _RESTORES.search(source):
            self.waits = True
            return []
        if policy == "restore" and offer.snapshot is not None and offer.note is None:
            if self._notebook.wait_for_writers():
                offer = self._offer() or offer
            return self._restore_now(offer)
        self._bury(offer)
        return [obituary.describe(offer, time.time())]

    def _policy(self, offer: Offer) -> str:
        said = offer.snapshot.settings.on_death if offer.snapshot is not None else None
        return said or self._notebook.configuration.on_death

    def _restore_now(self, offer: Offer) -> list[str]:
        assert offer.snapshot is not None
        told = obituary.describe(offer, time.time())
        try:
            report = self._restore(offer.snapshot.id, offer.device)
        except KeyboardInterrupt:
            return [told, "It was not restored: you interrupted it. Your cell runs without it."]
        except Exception as error:  # noqa: BLE001 - what is pickled may raise anything; the offer must not be lost
            why = str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}"
            return [told, f"It was not restored, although on_death=restore: {why}"]
        print(told.partition("\n")[0], file=sys.stderr, flush=True)  # noqa: T201 - as in before_cell
        display(report)  # type: ignore[no-untyped-call]
        return []

    def _bury(self, offer: Offer) -> None:
        """A death that left nothing is told once, so that it does not stand before one that did.

        Where a key is missing, what it left may only be out of reach.
        """
        snapshots = self._notebook.snapshots(every_notebook=True)
        nothing = offer.life.incarnation not in {snapshot.incarnation for snapshot in snapshots}
        if nothing and keyring.is_there(self._notebook.key_path) and not self._notebook.unreadable():
            with contextlib.suppress(StoreError):
                dismiss(self._notebook.identity.store_root, offer.life)
