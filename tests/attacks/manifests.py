"""Manifests that are signed wrongly, by another key, for another store or name; and those that claim the impossible."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable
from functools import partial

from attacks.nest import Nest
from attacks.visits import Case
from ipyrescue.manifest import BLOB_SIZE_BYTES, Buffer, Snapshot, Storage, Tensor
from ipyrescue.store import Store, layout, signing
from ipyrescue.store.signing import Key

THEIRS = Key(b"t" * 32)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egpj.exe\u2066\x9b31m\r\n\x00<script>alert(1)</script>"
"""Clears a terminal, gives it a title, turns the direction of text, ends a line; a browser would run it."""

Change = Callable[[Snapshot], Snapshot]


def _put(nest: Nest, name: str, raw: bytes) -> None:
    path = layout.snapshots(nest.root) / name
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    path.chmod(0o400)


def _replayed(sequence: int, identifier: str, nest: Nest) -> None:
    """The older manifest, as it is, under a newer name."""
    _put(nest, layout.snapshot_name(sequence, identifier), nest.manifest(nest.older).read_bytes())


def _of_another_store(nest: Nest) -> None:
    """Signed with the right key for the right name: of another store."""
    snapshot = dataclasses.replace(nest.newer, sequence=99, id="9" * 16)
    name = layout.snapshot_name(99, snapshot.id)
    _put(nest, name, signing.frame(nest.key, "0" * 32, name, snapshot.to_bytes()))


def _store_renamed(nest: Nest) -> None:
    """The store's own id, changed: every signature is for another store now."""
    path = nest.root / "format.json"
    raw = path.read_bytes().replace(nest.store().id.encode(), b"0" * 32)
    path.unlink()
    path.write_bytes(raw)


def _signed(line: bytes, nest: Nest) -> None:
    """The canary's manifest behind some other first line."""
    body = nest.manifest(nest.newer).read_bytes().partition(b"\n")[2]
    line = line.replace(b"FINGERPRINT", nest.key.fingerprint.encode())
    _put(nest, nest.manifest(nest.newer).name, line + b"\n" + body)


def _changed(nest: Nest) -> None:
    path = nest.manifest(nest.newer)
    _put(nest, path.name, path.read_bytes().replace(b'"test-host"', b'"best-host"'))


def _with_key(key: Key, change: Change, nest: Nest) -> None:
    """One more snapshot, newest of all, with another key's good signature; another's so that *change* is believed."""
    snapshot = change(dataclasses.replace(nest.newer, sequence=99, id=secrets.token_hex(8)))
    name = layout.snapshot_name(snapshot.sequence, snapshot.id)
    _put(nest, name, signing.frame(key, Store.open(nest.root, nest.key).id, name, snapshot.to_bytes()))


def _as_ours(change: Change, nest: Nest) -> None:
    """Signed with our own key: a bug of ours, or a session that was tricked."""
    nest.manifest(nest.newer).unlink()
    _with_key(nest.key, change, nest)


def _hostile_texts(snapshot: Snapshot) -> Snapshot:
    texts = dict.fromkeys(("notebook", "created", "label", "trigger", "host", "reason", "traceback"), HOSTILE)
    variables = tuple(
        dataclasses.replace(v, type=HOSTILE, source=HOSTILE) if v.name == "kept" else v for v in snapshot.variables
    )
    return dataclasses.replace(
        snapshot, **texts, variables=variables, warnings=(HOSTILE,), environment={HOSTILE: HOSTILE}
    )


def _named_as_paths(snapshot: Snapshot) -> Snapshot:
    return dataclasses.replace(snapshot, notebook="../../../../etc/passwd", label="../../etc", host="/dev/zero")


def _data(snapshot: Snapshot, **changes: object) -> Snapshot:
    """With the group of `kept` changed."""
    groups = tuple(
        dataclasses.replace(group, **changes) if "kept" in group.names else group  # type: ignore[arg-type]
        for group in snapshot.groups
    )
    return dataclasses.replace(snapshot, groups=groups)


def _endless_stream(snapshot: Snapshot) -> Snapshot:
    group = next(group for group in snapshot.groups if "kept" in group.names)
    return _data(snapshot, stream=dataclasses.replace(group.stream, size_bytes=1 << 60))


def _short_stream(snapshot: Snapshot) -> Snapshot:
    group = next(group for group in snapshot.groups if "kept" in group.names)
    return _data(snapshot, stream=dataclasses.replace(group.stream, size_bytes=10))


def _endless_blob(snapshot: Snapshot) -> Snapshot:
    blobs = tuple(dataclasses.replace(blob, size_bytes=1 << 60) for blob in snapshot.blobs)
    return dataclasses.replace(snapshot, blobs=blobs)


def _beyond_its_pack(snapshot: Snapshot) -> Snapshot:
    blobs = tuple(dataclasses.replace(blob, offset=1 << 62, size_bytes=BLOB_SIZE_BYTES) for blob in snapshot.blobs)
    return dataclasses.replace(snapshot, blobs=blobs)


def _endless_tensor(snapshot: Snapshot) -> Snapshot:
    buffer = Buffer((0,), 0, 1)
    group = next(group for group in snapshot.groups if "kept" in group.names)
    storage = Storage(0, 0, 1, "torch", "cpu")
    tensor = Tensor("kept", 0, "float32", (1 << 40, 1 << 40), (0, 0), 0)
    return _data(snapshot, buffers=(buffer,), storages=(storage,), tensors=(tensor,) * 1000, names=group.names)


def _flood(nest: Nest) -> None:
    """A first line and then nothing but brackets, or a file that never ends."""
    path = nest.manifest(nest.newer)
    line = path.read_bytes().partition(b"\n")[0]
    _put(nest, path.name, line.replace(nest.key.fingerprint.encode(), b"00000000") + b"\n" + b"[" * (1 << 20))


def _huge(nest: Nest) -> None:
    path = nest.manifest(nest.newer)
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def _names(nest: Nest) -> None:
    """Files in every folder whose names are no names."""
    raw = nest.manifest(nest.newer).read_bytes()
    for folder in (layout.snapshots(nest.root), layout.packs(nest.root), layout.kernels(nest.root), nest.root / "pins"):
        for name in NAMES:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(raw)
    for name in NAMES:
        os.mkdir(os.path.join(os.fsencode(layout.runs(nest.root)), name))


NAMES = tuple(
    name
    for number in (b"0000000099", "\u0660".encode() * 10)
    for name in (
        number + b"-" + b"0" * 16 + b".json\n",
        number + b"-" + b"0" * 16 + b".json\x1b[2J",
        number + b"-" + "\u202e".encode() + b"0" * 15 + b".json",
        number + b"-" + b"0" * 16 + b".JSON",
        number + b"-..%2f..%2fetc.json",
        b"\xff\xfe" + number,
        b"..." + number,
        b"\x1b]0;owned\x07" + number,
        b"0" * 16 + b".pack " + number,
    )
)

FIRST_LINES = {
    "no MAC": b"",
    "a MAC called none": b"ipyrescue-manifest-v1 FINGERPRINT none",
    "an empty MAC": b"ipyrescue-manifest-v1 FINGERPRINT ",
    "a short MAC": b"ipyrescue-manifest-v1 FINGERPRINT " + b"0" * 8,
    "a MAC of zeros": b"ipyrescue-manifest-v1 FINGERPRINT " + b"0" * 64,
    "a MAC of another length": b"ipyrescue-manifest-v1 FINGERPRINT " + b"0" * 128,
    "another algorithm": b"ipyrescue-manifest-v0 FINGERPRINT " + b"0" * 64,
}

MANIFESTS = (
    *(Case(f"the manifest has {what}", partial(_signed, line), "older") for what, line in FIRST_LINES.items()),
    Case("the manifest was changed", _changed, "older"),
    Case("an old manifest under a newer name", partial(_replayed, 99, "9" * 16)),
    Case("an old manifest under the highest number", partial(_replayed, 9_999_999_999, "9" * 16)),
    Case("an old manifest under the newer one's id", lambda nest: _replayed(99, nest.newer.id, nest)),
    Case("a manifest of another store", _of_another_store),
    Case("the store bears another one's id", _store_renamed, None),
    Case("signed with another key", partial(_with_key, THEIRS, lambda snapshot: snapshot)),
    Case(
        "signed with another key, under the highest number",
        partial(_with_key, THEIRS, lambda s: dataclasses.replace(s, sequence=9_999_999_999)),
    ),
    Case("signed with no key", partial(_with_key, Key(b""), lambda snapshot: snapshot)),
    Case("hostile texts, signed with another key", partial(_with_key, THEIRS, _hostile_texts)),
    Case("hostile texts, signed with our key", partial(_as_ours, _hostile_texts), "older"),
    Case("paths for names, signed with another key", partial(_with_key, THEIRS, _named_as_paths)),
    Case("an endless stream, signed with another key", partial(_with_key, THEIRS, _endless_stream)),
    Case("an endless stream, signed with our key", partial(_as_ours, _endless_stream), None, sings=True),
    Case("a stream that is longer than it says", partial(_as_ours, _short_stream), None, sings=True),
    Case("endless blobs, signed with another key", partial(_with_key, THEIRS, _endless_blob)),
    Case("blobs beyond their pack, signed with our key", partial(_as_ours, _beyond_its_pack), "older"),
    Case("endless tensors, signed with another key", partial(_with_key, THEIRS, _endless_tensor)),
    Case("a manifest of brackets", _flood, "older"),
    Case("a manifest of a terabyte", _huge, "older"),
    Case("names that are no names", _names),
)
