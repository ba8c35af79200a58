"""What no file of a store can be: a key that is not there, a terminal, memory, a moment between a look and a step."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from pathlib import Path

import pytest

from attacks.visits import typed
from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.manifest import Stream
from ipyrescue.pickling.encode import decompress
from ipyrescue.store import Store, layout, prune
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
