"""A snapshot to a plain folder that is of use without ipyrescue: tensors as .npy, text as text, streams as they are.

snapshot.json   the manifest, as FORMAT.md describes it (its blobs are not here)
tensors.json    for each tensor or array its name, file, dtype and shape
tensors/        the .npy files
streams/        the pickles of the groups, as packed as they were; groups.json says whose each is
cells.jsonl     the cells that the session had run
reader.py       `load()` gives the tensors by name, with NumPy alone or with torch
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ipyrescue.interchange import dtypes, npy, plain
from ipyrescue.interchange.plain import Plain
from ipyrescue.manifest import BlobRef, Group, Snapshot
from ipyrescue.store import Store

READER = '''"""Read the tensors of this folder: NumPy is enough, torch gives its own types back. Unpickles nothing.

    from reader import load
    tensors = load()                # {"model.fc1.weight": array, ...}
    tensors = load(torch=True)      # the same as torch tensors
"""

import json
import pathlib

import numpy as np


def load(folder=None, torch=False):
    """Every tensor and array by its name; those without one by the names of their group and a number."""
    folder = pathlib.Path(folder or __file__).absolute()
    folder = folder if folder.is_dir() else folder.parent
    listed = json.loads((folder / "tensors.json").read_text())
    return {entry["name"]: _read(folder, entry, torch) for entry in listed}


def _read(folder, entry, torch):
    array = np.load(folder / entry["file"], allow_pickle=False)
    if not torch:
        return array  # bfloat16 and the like are unsigned integers here: the very bits
    import torch

    if entry["stored_as"] is None and array.dtype.kind not in "biufc":
        return array
    tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    return tensor.view(getattr(torch, entry["dtype"])) if entry["stored_as"] else tensor


if __name__ == "__main__":
    for name, array in load().items():
        print(name, array.dtype, array.shape)
'''

Advance = Callable[[int], None]
"""Told of so many more bytes that were written."""


def write(target: Path, store: Store, snapshot: Snapshot, advance: Advance) -> dict[str, str]:
    """Write all of *snapshot* into the empty folder *target*; return what could not be, with the reasons.

    Raises CorruptError, StoreError, OSError.
    """
    left_out = {name: reason for name, found in _named(snapshot).items() if (reason := _misfit(found))}
    (target / "snapshot.json").write_bytes(snapshot.to_bytes())
    (target / "reader.py").write_text(READER, encoding="ascii")
    _write_json(target / "tensors.json", _write_tensors(target, store, snapshot, left_out, advance))
    _write_json(target / "groups.json", _write_streams(target, store, snapshot))
    (target / "cells.jsonl").write_bytes(_bytes(store, [snapshot.blobs[index] for index in snapshot.cells]))
    return left_out


def _misfit(found: Plain) -> str | None:
    """Why there is no .npy file for it: its bytes are still in the store, and snapshot.json says where."""
    known = dtypes.stand_in(found.dtype) is not None or npy.misfit(found) is None
    return None if known else f"no plain type: {found.dtype}"


def _write_tensors(
    target: Path, store: Store, snapshot: Snapshot, left_out: Collection[str], advance: Advance
) -> list[dict[str, Any]]:
    (target / "tensors").mkdir()
    listed = []
    kept = [(name, found) for name, found in _named(snapshot).items() if name not in left_out]
    for number, (name, found) in enumerate(kept):
        file, as_what = f"tensors/{number:06d}.npy", dtypes.stand_in(found.dtype)
        with open(target / file, "xb") as npy_file:
            npy_file.write(npy.header(found, as_what))
            npy_file.write(plain.read(store, snapshot, found))
        advance(found.size_bytes)
        shape = list(found.shape)
        listed.append({"name": name, "file": file, "dtype": found.dtype, "stored_as": as_what, "shape": shape})
    return listed


def _named(snapshot: Snapshot) -> dict[str, Plain]:
    """Every tensor under its name, or under those of its group and a number."""
    named: dict[str, Plain] = {}
    for found in plain.tensors(snapshot):
        number, key = 0, found.name
        while not key or key in named:
            key, number = f"({','.join(found.group.names)})#{number}", number + 1
        named[key] = found
    return named


def _write_streams(target: Path, store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    (target / "streams").mkdir()
    listed = []
    for number, group in enumerate(snapshot.groups):
        file = f"streams/{number:06d}.pickle" + (".zst" if group.stream.codec == "zstd" else "")
        (target / file).write_bytes(_stream(store, snapshot, group))
        listed.append({"names": list(group.names), "kind": group.kind, "encoder": group.encoder, "file": file})
    return listed


def _stream(store: Store, snapshot: Snapshot, group: Group) -> bytes:
    return _bytes(store, [snapshot.blobs[index] for index in group.stream.blobs])


def _bytes(store: Store, refs: list[BlobRef]) -> bytes:
    parts = [bytearray(ref.size_bytes) for ref in refs]
    store.get(refs, [memoryview(part) for part in parts])
    return b"".join(parts)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="ascii")
