"""Figures to a store of thousands of snapshots, without their bytes: signed manifests, and packs that are holes.

Manifests are what a store writes, packs have their lengths and no contents; nothing here is fsynced.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ipyrescue.manifest import BLOB_SIZE_BYTES, BlobRef, Buffer, Group, Settings, Snapshot, Storage, Stream, Variable
from ipyrescue.store import layout, signing
from ipyrescue.store.signing import Key

_PAGE_BYTES = 4096
_FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Shape:
    """A store: how many snapshots, of how many blobs each, of which *new* ones stand in the snapshot's own pack.

    Sizes of blobs are drawn between *smallest_bytes* and one blob's most. One in *notebooks* is of each notebook.
    """

    snapshots: int
    blobs: int
    new: int
    smallest_bytes: int = 64 << 10
    notebooks: int = 20
    variables: int = 30


def fill(root: Path, key: Key, shape: Shape) -> int:
    """Make the store at *root*; return the bytes that its packs hold."""
    store_id = layout.create(root)
    draw = random.Random(7)
    held: list[BlobRef] = []
    stored_bytes = 0
    for number in range(shape.snapshots):
        fresh = list(_pack(root, number, shape.blobs if not held else shape.new, shape.smallest_bytes, draw))
        stored_bytes += sum(blob.size_bytes for blob in fresh)
        held = [*held[len(held) + len(fresh) - shape.blobs :], *fresh] if held else fresh
        snapshot = _snapshot(number, held, fresh, shape)
        name = layout.snapshot_name(snapshot.sequence, snapshot.id)
        path = layout.snapshots(root) / name
        path.write_bytes(signing.frame(key, store_id, name, snapshot.to_bytes()))
        path.chmod(0o400)
    return stored_bytes


def _pack(root: Path, number: int, count: int, smallest_bytes: int, draw: random.Random) -> Iterator[BlobRef]:
    pack, end = f"{number + 1:016x}", 0
    for index in range(count):
        size_bytes = draw.randint(min(smallest_bytes, BLOB_SIZE_BYTES), BLOB_SIZE_BYTES)
        yield BlobRef(hashlib.sha256(f"{number} {index}".encode()).hexdigest(), pack, end, size_bytes)
        end += -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
    with layout.pack_path(root, pack).open("wb") as file:
        os.truncate(file.fileno(), end)


def _snapshot(number: int, held: list[BlobRef], fresh: list[BlobRef], shape: Shape) -> Snapshot:
    sizes = [blob.size_bytes for blob in held]
    buffer_bytes = sum(sizes[1:])
    names = tuple(f"variable_{index}" for index in range(shape.variables))
    group = Group(
        names, "data", "pickle", Stream((0,), sizes[0], "raw"),
        (Buffer(tuple(range(1, len(held))), 0, buffer_bytes),),
        (Storage(0, 0, buffer_bytes, "torch", "cpu"),), (), (), (),
    )  # fmt: skip
    return Snapshot(
        1, f"{number:016x}", number + 1, f"notebook_{number % shape.notebooks}.ipynb", f"{number // 50:016x}",
        (_FIRST + timedelta(minutes=10 * number)).isoformat(), None, "timer", "boundary", None, number, "here",
        Settings(), {f"package-{index}": "1.2.3" for index in range(20)}, (),
        tuple(Variable(name, "Tensor", buffer_bytes // len(names), 3, None) for name in names), (), (), (group,),
        tuple(held), sum(blob.size_bytes for blob in fresh), 0.1,
    )  # fmt: skip
