"""A process that makes one more snapshot in a store, to be killed meanwhile: victim.py STORE KEY."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from ipyrescue.store import Store, signing

root, key = Path(sys.argv[1]), Path(sys.argv[2])
store = Store.open(root, signing.load_key(key), create=True)
before = store.snapshots()[0]
with store.writing():
    stored = store.put([memoryview(b"shared" * 1000), memoryview(os.urandom(9000)), memoryview(b"new")])
    names = {"id": os.urandom(8).hex(), "sequence": store.next_sequence()}
    snapshot = replace(before, groups=(), variables=(), blobs=stored.refs, **names)
    store.commit(snapshot)
print(snapshot.id, flush=True)
