"""A hostile or damaged manifest ends in CorruptError or StoreFormatError, never in another exception."""

import copy
import json
import random

import pytest

from ipyrescue.errors import CorruptError, StoreFormatError
from ipyrescue.manifest import BlobRef, Import, Skipped, Snapshot
from tests.store.conftest import snapshot_of

BLOBS = [BlobRef(str(n) * 64, "a" * 16, 4096 * n, 4096) for n in range(3)]
GOOD = snapshot_of(
    BLOBS,
    sequence=7,
    label="warm",
    imports=(Import("np", "numpy"),),
    skipped=(Skipped("gen", "generator", "cannot be pickled", 4),),
    warnings=("torch 2.13",),
)
SCALARS = [
    None, True, False, 0, 1, -1, 2, 1 << 62, 1 << 63, -(1 << 80), 0.0, 1.5, 1e400, "", "x", "a" * 16, "0" * 64,
    "0" * 64 + "\n", "../../x", "\0", "\ud800", [], {}, [[]], {"x": 1}, [0] * 50, {"": None},
]  # fmt: skip
TOKENS = [b"NaN", b"Infinity", b"[" * 5000, b'{"a":1,"a":2}', b"\xef\xbb\xbf", b"\xff", b"\0", b"1e999", b"9" * 5000]


def places(node, path=()):
    """Every path into a JSON value."""
    yield path
    for name, child in node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ()):
        yield from places(child, (*path, name))


def mutated(rng):
    tree = json.loads(GOOD.to_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice([path for path in places(tree) if path])
        node = tree
        for step in path[:-1]:
            node = node[step]
        change(rng, node, path[-1], tree)
    raw = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode("ascii")
    if rng.random() < 0.3:
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.choice(TOKENS) + raw[at + rng.randrange(20) :]
    return raw


def change(rng, node, step, tree):
    kind = rng.randrange(4)
    if kind == 0 and isinstance(node, dict):
        del node[step]
    elif kind == 1 and isinstance(node, dict):
        node[str(step) + "_"] = node[step]
    elif kind == 1:
        node.append(copy.deepcopy(node[step]))
    elif kind == 2:
        node[step] = copy.deepcopy(tree[rng.choice(list(tree))]) if tree else None
    else:
        node[step] = copy.deepcopy(rng.choice(SCALARS))


def test_a_good_manifest_is_read():
    assert Snapshot.from_bytes(GOOD.to_bytes()) == GOOD


@pytest.mark.parametrize("seed", range(8))
def test_mutations_raise_nothing_else(seed):
    """What is accepted all the same is a manifest: written again, it reads the same."""
    rng, accepted = random.Random(seed), 0

    for _ in range(500):
        try:
            snapshot = Snapshot.from_bytes(mutated(rng))
        except (CorruptError, StoreFormatError):
            continue
        accepted += 1
        assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot

    assert accepted < 250


def test_every_truncation_is_noticed():
    raw = GOOD.to_bytes()

    for length in range(len(raw)):
        with pytest.raises(CorruptError):
            Snapshot.from_bytes(raw[:length])


def test_a_newer_format_says_so():
    with pytest.raises(StoreFormatError, match="pip install -U"):
        Snapshot.from_bytes(b'{"format": 2, "anything": ["else"]}')
