"""A process that makes one more snapshot in a store, to be killed meanwhile: victim.py STORE KEY MANIFEST SIZE...

The snapshot is one as *MANIFEST* describes it, of blobs of these sizes in bytes: the first is one that others have too.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, signing

root, key, pattern, sizes = (
    Path(sys.argv[1]),
    Path(sys.argv[2]),
    Path(sys.argv[3]),
    [int(size) for size in sys.argv[4:]],
)
store = Store.open(root, signing.load_key(key), create=True)
shared = (b"shared" * (sizes[0] // 6 + 1))[: sizes[0]]
with store.writing():
    stored = store.put([memoryview(shared), *[memoryview(os.urandom(size)) for size in sizes[1:]]])
    made = replace(
        Snapshot.from_bytes(pattern.read_bytes()),
        groups=(),
        variables=(),
        blobs=stored.refs,
        id=os.urandom(8).hex(),
        sequence=store.next_sequence(),
    )
    store.commit(made)
print(made.id, flush=True)
