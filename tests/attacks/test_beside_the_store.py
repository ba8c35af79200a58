"""What no file of a store can be: a key that is not there, a terminal, memory, a moment between a look and a step."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.manifests import HOSTILE
from attacks.visits import inert, typed
from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.listing import SnapshotReport, SnapshotRow, SnapshotsTable
from ipyrescue.manifest import Stream, Variable
from ipyrescue.pickling.encode import decompress
from ipyrescue.store import Store, layout, lives, prune, requests, upkeep
from ipyrescue.store.signing import Key
from tests.store.conftest import save_to

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links, and a limit of memory")


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store.open(store_root, Key(b"k" * 32), create=True)


def test_without_a_key_nobody_can_sign_with_none(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that needs no key to look must not take the empty one for the user's."""
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(store_root / "nothing"))
    save_to(Store.open(store_root, Key(b""), create=True), b"x" * 10)

    said = typed("ls", "--json", "--store", str(store_root))

    (listed,) = json.loads(said[said.index("{") :])["snapshots"]
    assert listed["state"] == "untrusted"


def test_a_stream_that_claims_a_terabyte_takes_no_memory() -> None:
    """The frame's own claim is not believed, whatever the manifest says; 18 bytes are in it."""
    bomb = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"

    for promised in (10, 1 << 40):
        with pytest.raises(CorruptError, match="stream"):
            decompress(Stream((0,), promised, "zstd"), bomb)


@pytest.mark.parametrize("swapped", ["tmp", "packs", "."])
def test_a_folder_that_is_swapped_after_the_look_loses_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """Between the check and the sweep somebody puts a link in the place of a folder: what that leads to stays."""
    home = tmp_path / "home"
    for folder in ("", "tmp", "packs", "snapshots", "kernels"):
        (home / folder).mkdir()
    treasures = [home / "treasure", home / "tmp" / "treasure", home / "packs" / f"{'0' * 16}.pack"]
    for treasure in treasures:
        treasure.write_bytes(b"gold")
    look = layout.check_writable

    def look_and_swap(root: Path) -> None:
        look(root)
        (root / swapped).resolve().rename(tmp_path / "aside")
        Path(os.path.normpath(root / swapped)).symlink_to(Path(os.path.normpath(home / swapped)))

    monkeypatch.setattr(layout, "check_writable", look_and_swap)

    with contextlib.suppress(StoreError):
        prune.prune(store)

    assert all(treasure.exists() for treasure in treasures)


@pytest.mark.parametrize("swapped", ["snapshots", "pins", "."])
def test_what_is_forgotten_and_unpinned_is_not_looked_for_behind_a_link(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """The same for what takes a manifest or a pin away: a copy of the store loses nothing."""
    kept, gone = save_to(store, b"kept"), save_to(store, b"gone")
    store.pin(kept.id)
    shutil.copytree(store.root, tmp_path / "home")
    treasures = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    look = layout.check_writable

    def look_and_swap(root: Path) -> None:
        look(root)
        if not (tmp_path / "aside").exists():
            (store.root / swapped).resolve().rename(tmp_path / "aside")
            Path(os.path.normpath(store.root / swapped)).symlink_to(Path(os.path.normpath(tmp_path / "home" / swapped)))

    monkeypatch.setattr(layout, "check_writable", look_and_swap)

    for verb, snapshot in ((store.forget, gone), (store.unpin, kept)):
        with contextlib.suppress(StoreError):
            verb(snapshot.id)

    assert all(treasure.exists() for treasure in treasures)


KERNEL, ASKED = "c" * 16, requests.Request("a" * 16, 1.0, 2.0)
AMONG_THE_KERNELS: dict[str, Callable[[Store], object]] = {
    "a life record": lambda store: lives.write(store.root, _an_old_life("d" * 16)),
    "a burial": upkeep.bury,
    "a burial by a kernel": lambda store: upkeep.bury_unsaved(store.root),
    "a kernel's end": lambda store: requests.clear(store.root, KERNEL),
    "an old request": lambda store: requests.pending(store.root, KERNEL),
    "a request taken back": lambda store: requests.withdraw(store.root, KERNEL, ASKED),
}


def _an_old_life(incarnation: str) -> lives.Life:
    return lives.Life(incarnation, "a.ipynb", "notebook", 1, 1, "b", "n", "here", "2026-01-01", ended="exit")


@pytest.mark.parametrize("what", AMONG_THE_KERNELS)
@pytest.mark.parametrize("later", [False, True], ids=["before-the-look", "after-it"])
def test_nothing_is_changed_behind_a_link_in_the_place_of_kernels(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, later: bool
) -> None:
    """A record, a trace, a request and its answer of a kernel that is long gone stand behind it."""
    victim, folder, look = tmp_path / "victim", layout.kernels(store.root), layout.check_folder_writable
    lives.write(store.root, _an_old_life(KERNEL))
    layout.request_path(store.root, KERNEL).write_text(json.dumps(vars(ASKED)))
    layout.answer_path(store.root, KERNEL).write_text("{}")
    layout.trace_path(store.root, "e" * 16, "fault").write_text("")
    for path in folder.iterdir():
        os.utime(path, (1, 1))

    def plant() -> None:
        monkeypatch.setattr(layout, "check_folder_writable", look)
        folder.rename(victim)
        folder.symlink_to(victim)

    if later and what != "a life record":  # a file that is made is kept from there by the look alone
        monkeypatch.setattr(layout, "check_folder_writable", lambda folder: (look(folder), plant()))
    else:
        plant()
    before = sorted(os.listdir(victim if victim.exists() else folder))

    with contextlib.suppress(StoreError, OSError):
        AMONG_THE_KERNELS[what](store)

    assert sorted(os.listdir(victim)) == before


def test_trusting_the_highest_number_does_not_use_the_numbers_up(store: Store) -> None:
    ours = save_to(store, b"ours" * 10)
    save_to(Store.open(store.root, Key(b"t" * 32)), b"theirs" * 10, sequence=layout.MAX_SEQUENCE, id="f" * 16)

    trusted = store.trust(store.untrusted("ffff"))

    assert trusted.sequence == ours.sequence + 1
    assert store.next_sequence() == ours.sequence + 2


FORMS = (repr, lambda report: report._repr_html_(), lambda report: json.dumps(report.as_json()))


@pytest.mark.parametrize("form", FORMS, ids=["text", "html", "json"])
def test_hostile_texts_of_a_foreign_snapshot_are_shown_and_not_obeyed(
    store: Store, form: Callable[[Report], str]
) -> None:
    """In the table and on the page of `%snapshots`: no control character, no tag, nothing that turns text around."""
    texts = dict.fromkeys(("notebook", "created", "label", "trigger", "host", "reason"), HOSTILE)
    variables = (Variable(HOSTILE, HOSTILE, 1, None, HOSTILE),)
    save_to(Store.open(store.root, Key(b"t" * 32)), b"x", groups=(), variables=variables, warnings=(HOSTILE,), **texts)
    (foreign,) = store.foreign()
    row = SnapshotRow.of_another_key(foreign, pinned=False)

    for report in (SnapshotsTable((row,), 0.0, "a.ipynb", True), SnapshotReport(foreign.snapshot, 0.0, False, foreign)):
        shown = form(report)

        assert inert(shown)
        assert "<script" not in shown or form is not FORMS[1]


def test_a_hostile_label_in_an_error_is_shown_and_not_obeyed() -> None:
    """What a magic says goes to the notebook as it is."""
    magics = pytest.importorskip("ipyrescue.kernel.magics")

    assert inert(magics._cleaned(f"no such snapshot: {HOSTILE}"))
