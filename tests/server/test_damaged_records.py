"""What was found damaged is no more hidden by the server than by the command; damaged moments are none."""

import os
import time
from pathlib import Path

import pytest

from ipyrescue.cli.entries import entries
from ipyrescue.identity import Identity
from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.offer import find_offer
from ipyrescue.server.contents import listed
from ipyrescue.server.notebooks import Notebook
from ipyrescue.server.offers import moment, of_record
from ipyrescue.store import Store, layout, scrub
from ipyrescue.store.signing import Key
from tests.incarnations.samples import KILLED, a_life, bury, here
from tests.store.conftest import save_to

NAME, DEAD = "train.ipynb", "b" * 16


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store.open(store_root, Key(b"k" * 32), create=True)


def test_the_list_and_the_offers_know_what_was_found_damaged(store: Store) -> None:
    """Of two that a dead kernel left the newer one is damaged where no length tells."""
    whole, bad = (save_to(store, text * 500, text, notebook=NAME, incarnation=DEAD) for text in (b"old", b"new"))
    pack = layout.pack_path(store.root, bad.blobs[0].pack)
    os.chmod(pack, 0o600)
    with open(pack, "r+b") as file:
        file.write(b"X")
    store = Store.open(store.root, store.key)
    scrub.note(store.root, {whole.id, bad.id}, bad.id, scrub.finding(store.root, bad, store.verify(bad), time.time()))
    life = bury(store.root, a_life(**here(incarnation=DEAD, notebook=NAME, cause=KILLED)))
    notebook = Notebook(NAME, Identity(NAME, "notebook", store.root.parent / NAME, store.root))

    rows = {row["id"]: row["mark"] for row in listed(store, [NAME])}
    found = find_offer(store.root, NAME, store.snapshots())
    seen = of_record(notebook, life, store.snapshots(), None).offer

    assert rows == {whole.id: "", bad.id: "damaged"} == {e.id: e.state.replace("ok", "") for e in entries(store)}
    said = f"{bad.id[:8]} was found damaged when it was read back, so the one before is proposed."
    assert [(offer.snapshot, offer.note) for offer in (found, seen)] == [(whole, said)] * 2


@pytest.mark.parametrize(("died_at", "last_seen"), [("9999-12-31T23:59:59-12:00", 1.0), (None, 1e15)])
def test_a_death_that_no_calendar_has_is_told_without_a_moment(died_at: str | None, last_seen: float) -> None:
    assert moment(Death(a_life(died_at=died_at), last_seen)) is None
