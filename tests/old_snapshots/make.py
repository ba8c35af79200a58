"""Make the store of the present format version that must stay readable for ever: `PYTHONPATH=tests python THIS_FILE`.

Run once for each format version, and never again for one that was released: what is committed is what was written then.
"""

from __future__ import annotations

import dataclasses
import tarfile
import tempfile
from pathlib import Path

from namespaces import Life

from ipyrescue.manifest import Snapshot
from ipyrescue.selection import Occasion
from ipyrescue.store import Store, layout
from ipyrescue.store.signing import Key

FOLDER = Path(__file__).parent
CELL = """
import collections
import numpy as np
import torch
step, rate, name, nothing, flags = 7, 0.125, "a name", None, {True, False}
nested = {"list": [1, 2, [3]], (4, 5): b"bytes", "big": 1 << 70}
shared = nested["list"]
counts = collections.Counter("ipyrescue")
numbers = np.arange(300, dtype=np.float64).reshape(20, 15)
weights = torch.arange(400, dtype=torch.float32).reshape(20, 20)
turned = weights.t()
"""
"""Data alone: bytecode belongs to one minor version of Python."""


def main() -> None:
    """Write the store, as an archive since packs are mostly gaps, and its key beside it."""
    name = f"format-{layout.STORE_FORMAT}"
    key = FOLDER / f"{name}.key"
    key.write_bytes(bytes(range(32)))
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder, name), Key(key.read_bytes()), create=True)
        life = Life(_Placeless(store.root, store.id, store.key), notebook="old.ipynb", incarnation="0123456789abcdef")
        life.run("step = 6")
        store.pin(life.checkpoint(Occasion(label="first")).id)
        life.run(CELL)
        life.checkpoint()
        with tarfile.open(FOLDER / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(store.root, name, filter=_nobodys)


class _Placeless(Store):
    def commit(self, snapshot: Snapshot) -> None:
        """Say nothing of the machine on which it was made."""
        told = {name: text for name, text in snapshot.environment.items() if name in ("python", "numpy", "torch")}
        super().commit(dataclasses.replace(snapshot, environment=told))


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
