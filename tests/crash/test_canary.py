"""Nothing is unpickled before its signature and its hash were checked: a canary in the pickle never sings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from namespaces import reborn

from ipyrescue.errors import RescueError

if TYPE_CHECKING:
    from namespaces import Life

    from ipyrescue.manifest import Snapshot

CANARY = """
class Canary:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")
"""


@pytest.fixture
def nest(life: Life, tmp_path: Path) -> tuple[Life, Snapshot, Path]:
    """A snapshot of one value that, when unpickled, makes a file."""
    song = tmp_path / "song"
    life.run(CANARY)
    life.run(f"canary = Canary({str(song)!r})")
    snapshot = life.checkpoint(exclude=("Canary",))
    return life, snapshot, song


def sings(life: Life, song: Path) -> bool:
    """Restore as far as it goes in a new life; whether the canary was unpickled."""
    song.unlink(missing_ok=True)
    after = reborn(life)
    try:
        after.restore(source="latest")
    except RescueError:
        pass
    finally:
        opened = after.names.get("canary")
        if hasattr(opened, "close"):
            opened.close()
    return song.exists()


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0xFF
    os.chmod(path, 0o600)
    path.write_bytes(raw)


def test_an_intact_canary_sings(nest: tuple[Life, Snapshot, Path]) -> None:
    """The control: what follows would notice an unpickling."""
    life, _, song = nest

    assert sings(life, song)


def test_no_flipped_byte_of_its_stream_lets_it_sing(nest: tuple[Life, Snapshot, Path]) -> None:
    """Every byte of the blob that holds the pickle, one by one."""
    life, snapshot, song = nest
    group = next(g for g in snapshot.groups if g.names == ("canary",))
    blob = snapshot.blobs[group.stream.blobs[0]]
    pack = life.store.root / "packs" / f"{blob.pack}.pack"

    for offset in range(blob.offset, blob.offset + blob.size_bytes):
        flip(pack, offset)
        assert not sings(life, song), offset
        flip(pack, offset)
    assert sings(life, song)


def test_no_flipped_byte_of_the_manifest_lets_it_sing(nest: tuple[Life, Snapshot, Path]) -> None:
    """Every seventh byte of the manifest and all of its MAC line; the store's own tests flip each one."""
    life, _, song = nest
    manifest = next((life.store.root / "snapshots").iterdir())
    size = manifest.stat().st_size

    for offset in [*range(110), *range(110, size, 7)]:
        flip(manifest, offset)
        assert not sings(life, song), offset
        flip(manifest, offset)
    assert sings(life, song)
