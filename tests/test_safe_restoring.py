"""What comes of a snapshot without unpickling: tensors, arrays and plain values, of anybody's; and nothing runs."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any

import pytest
from namespaces import Life

from ipyrescue import safe_restoring
from ipyrescue.errors import CorruptError, RestoreError, StoreError
from ipyrescue.finding import Scope
from ipyrescue.manifest import Group, Import, Snapshot, Storage, Stream, Tensor
from ipyrescue.pickling import plain, strided
from ipyrescue.restoring import Restored
from ipyrescue.store import Store, layout
from ipyrescue.store.signing import Key

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

OURS, THEIRS = Key(b"o" * 32), Key(b"t" * 32)
CANARY = """
class Canary:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")
"""


@pytest.fixture
def theirs(store_root: Path) -> Life:
    """The life of somebody with another key."""
    return Life(Store.open(store_root, THEIRS, create=True))


def safely(life: Life, snapshot: Snapshot, *names: str, **more: Any) -> tuple[dict[str, Any], Restored]:
    """Restore it without unpickling, as the holder of our key; the names that came, and the report."""
    into: dict[str, Any] = {}
    store = Store.open(life.store.root, OURS)
    foreign = store.untrusted(snapshot.id).snapshot
    return into, safe_restoring.restore({}, store, foreign, Scope(names), **{"into": into, **more})


def resigned(life: Life, snapshot: Snapshot) -> Snapshot:
    """A snapshot of theirs that says whatever they like."""
    made = dataclasses.replace(snapshot, id=secrets.token_hex(8), sequence=life.store.next_sequence())
    with life.store.writing():
        life.store.commit(made)
    return made


def test_plain_values_tensors_and_arrays_come_of_a_foreign_snapshot(theirs: Life, tmp_path: Path) -> None:
    song = tmp_path / "song"
    theirs.run(CANARY)
    theirs.run(
        "import torch, numpy as np\nconfig = {'lr': 0.1, 'sizes': [1, (2, None)], 'name': 'x'}\nalias = config\n"
        "losses = [0.5, 0.25]\nw = torch.arange(6.).reshape(2, 3)\nview = w.t()\na = np.arange(4)[::2]\n"
        "words = np.array(['a', 'bc'])\nmodel = torch.nn.Linear(2, 3)\nopt = torch.optim.Adam(model.parameters())\n"
        "model(torch.ones(1, 2)).sum().backward()\nopt.step()\nstate = {'w': w, 'epoch': 3}\n"
        f"canary = [Canary({str(song)!r})]\ndef f(): return 1"
    )
    snapshot = theirs.checkpoint()

    found, restored = safely(theirs, snapshot)

    then = theirs.names
    assert found["config"] == then["config"]
    assert found["alias"] is found["config"]
    assert found["losses"] == [0.5, 0.25]
    assert torch.equal(found["w"], then["w"])
    assert torch.equal(found["view"], then["view"])
    assert found["view"].data_ptr() == found["w"].data_ptr() == found["state"]["w"].data_ptr()
    assert found["state"]["epoch"] == 3
    assert np.array_equal(found["a"], then["a"])
    assert list(found["words"]) == ["a", "bc"]
    assert {name: tuple(t.shape) for name, t in found["model"].items()} == {"weight": (3, 2), "bias": (3,)}
    assert torch.equal(found["opt"]["state.0.exp_avg"], then["opt"].state[then["model"].weight]["exp_avg"])
    assert not song.exists()
    lost = {skipped.name: skipped.reason for skipped in restored.skipped}
    assert lost.keys() == {"canary", "f", "torch", "np", "Canary"}
    assert "made by" in lost["canary"]
    assert "import numpy" in lost["np"]
    assert any("dict of its tensors" in warning and "model (2)" in warning for warning in restored.warnings)


def test_a_snapshot_of_ours_comes_too(store_root: Path) -> None:
    life = Life(Store.open(store_root, OURS, create=True))
    life.run("x = [1]")
    snapshot = life.checkpoint()
    into: dict[str, Any] = {}

    restored = safe_restoring.restore({}, life.store, snapshot, Scope(), into=into)

    assert into == {"x": [1]}
    assert not restored.full


def test_the_tensors_of_a_model_go_into_a_live_one(theirs: Life) -> None:
    theirs.run(
        "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))\nx = 1\n"
        "tied = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])\ntied[1].weight = tied[0].weight"
    )
    snapshot = theirs.checkpoint()
    live = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    tied = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight

    _, restored = safely(theirs, snapshot, "model", into=live)
    safely(theirs, snapshot, "tied", into=tied)

    assert restored.names == ("model",)
    assert str(live.state_dict()) == str(theirs.names["model"].state_dict())
    assert str(tied.state_dict()) == str(theirs.names["tied"].state_dict())


def test_a_model_that_does_not_fit_is_left_alone(theirs: Life) -> None:
    theirs.run("import torch\nmodel = torch.nn.Linear(2, 3)\nother = torch.nn.Linear(2, 2)")
    snapshot = theirs.checkpoint()
    live = torch.nn.Linear(2, 2, bias=False)
    before = live.weight.clone()

    with pytest.raises(RestoreError, match=r"it has no bias; weight is \(3, 2\)"):
        safely(theirs, snapshot, "model", into=live)
    with pytest.raises(RestoreError, match=r"say which variable.*model, other"):
        safely(theirs, snapshot, into=live)

    assert torch.equal(live.weight, before)


@pytest.mark.parametrize(
    "name",
    [
        "__builtins__",
        "__name__",
        "open",
        "print",
        "get_ipython",
        "In",
        "_",
        "_i",
        "class",
        "a-b",
        "\uff4fpen",
        "",
    ],
)
def test_a_name_that_changes_what_code_means_is_not_bound(theirs: Life, name: str) -> None:
    theirs.run("x = 1\ny = 2")
    made = theirs.checkpoint()
    groups = [dataclasses.replace(g, names=tuple(name if n == "x" else n for n in g.names)) for g in made.groups]
    variables = [dataclasses.replace(v, name=name if v.name == "x" else v.name) for v in made.variables]
    snapshot = resigned(theirs, dataclasses.replace(made, groups=tuple(groups), variables=tuple(variables)))
    namespace: dict[str, Any] = {}

    foreign = Store.open(theirs.store.root, OURS).untrusted(snapshot.id).snapshot
    restored = safe_restoring.restore(namespace, theirs.store, foreign, Scope())

    assert namespace == {"y": 2}
    assert [skipped.name for skipped in restored.skipped] == [name]


CLAIMS: dict[str, dict[str, Any]] = {
    "a huge shape": {"shape": (1 << 62, 1 << 62)},
    "a shape that overflows": {"shape": (1 << 32, 1 << 32), "stride": (0, 0)},
    "beyond its end": {"shape": (7,), "stride": (1,)},
    "before its beginning": {"shape": (3,), "stride": (-1,), "offset": 1},
    "behind its end": {"offset": 6},
    "a negative offset": {"offset": -1},
    "a negative shape": {"shape": (-1,), "stride": (1,)},
    "too many axes": {"shape": (1,) * 40, "stride": (1,) * 40},
    "other strides than axes": {"shape": (2, 3), "stride": (1,)},
    "objects": {"dtype": "object"},
    "objects by their letter": {"dtype": "O"},
    "a type that torch has for something else": {"dtype": "load"},
    "a dtype of a megabyte": {"dtype": "f" * (1 << 20)},
    "an endless text": {"dtype": "<U999999"},
    "a type with fields": {"dtype": "[('a', 'O')]"},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_what_a_tensor_claims_is_not_believed(kind: str, claim: dict[str, Any]) -> None:
    """Nothing outside of its 24 bytes is read, and no memory is taken for it."""
    unit = 4 if kind == "numpy" else 1  # its strides and offset count bytes
    fields = {"shape": (6,), "stride": (1,), "offset": 0, "dtype": "float32", **claim}
    fields |= {"stride": tuple(unit * step for step in fields["stride"]), "offset": unit * fields["offset"]}
    memory = torch.UntypedStorage(24) if kind == "torch" else np.zeros(24, np.uint8)
    good = Tensor("x", 0, "float32", (2, 3), (3 * unit, unit), 0)
    storage = Storage(0, 0, 24, kind, "cpu")

    assert tuple(strided.over(memory, good, storage).shape) == (2, 3)
    with pytest.raises(CorruptError, match=r"manifest|no elements of type|not plain"):
        strided.over(memory, Tensor("x", 0, **fields), storage)


def test_a_tensor_that_the_stream_has_otherwise_is_not_shown(theirs: Life) -> None:
    theirs.run("import torch\nx = torch.ones(6)\ny = 2")
    made = theirs.checkpoint()
    groups = [
        dataclasses.replace(g, tensors=tuple(dataclasses.replace(t, shape=(3,)) for t in g.tensors))
        for g in made.groups
    ]

    found, restored = safely(theirs, resigned(theirs, dataclasses.replace(made, groups=tuple(groups))))

    assert found == {"y": 2}
    assert "does not describe" in restored.skipped[-1].reason


def test_one_blob_named_over_and_over_takes_no_memory(theirs: Life) -> None:
    theirs.run("import torch\nx = torch.ones(1 << 18)\ny = 2")
    made = theirs.checkpoint()
    ((position, group),) = [(n, g) for n, g in enumerate(made.groups) if "x" in g.names]
    (buffer,) = group.buffers
    size = made.blobs[buffer.blobs[0]].size_bytes * 100_000
    endless = dataclasses.replace(buffer, blobs=buffer.blobs * 100_000, size_bytes=size)
    groups = [*made.groups]
    groups[position] = dataclasses.replace(group, buffers=(endless,))
    snapshot = resigned(theirs, dataclasses.replace(made, groups=tuple(groups)))

    with pytest.raises(RestoreError, match=r"claims 105 GB for x"):
        safely(theirs, snapshot, room_bytes=1 << 30)
    assert safely(theirs, snapshot, "y", room_bytes=1 << 30)[0] == {"y": 2}


def test_the_memory_of_all_groups_together_must_be_there(theirs: Life) -> None:
    """Each alone would fit; and half of them do."""
    theirs.run("import torch\nxs = [torch.full((1 << 18,), n) for n in range(4)]\na, b, c, d = xs\ndel xs")
    snapshot = theirs.checkpoint()
    room_bytes = 6 << 20  # each has 2 MiB

    with pytest.raises(RestoreError, match=r"claims 8\.\d MB for (a|b|c|d), .* and 6\.3 MB are free\. Name the others"):
        safely(theirs, snapshot, room_bytes=room_bytes)
    assert safely(theirs, snapshot, "a", "b", room_bytes=room_bytes)[0].keys() == {"a", "b"}


def test_values_are_read_into_what_is_left(theirs: Life) -> None:
    """A stream of few bytes makes objects of many."""
    theirs.run("x = [[] for n in range(100_000)]\ny = 2")

    found, restored = safely(theirs, theirs.checkpoint(), room_bytes=10 << 20)

    assert found == {"y": 2}
    assert "opcodes, which is all that memory" in restored.skipped[0].reason


def test_names_that_share_values_are_looked_through_once(
    theirs: Life, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Plain or not: one list under many names takes the time of one."""
    theirs.run(CANARY)
    shared = "; ".join(f"good{n} = good; bad{n} = bad" for n in range(50))
    theirs.run(f"good, bad = [[1]], [[2], Canary({str(tmp_path / 'song')!r})]\nboth = good, bad\n{shared}")
    snapshot = theirs.checkpoint()
    looked: list[Any] = []
    begin = plain._begin
    monkeypatch.setattr(plain, "_begin", lambda value, known: looked.append(value) or begin(value, known))

    found, restored = safely(theirs, snapshot)

    assert len(found) == 51
    assert len(restored.skipped) == 53  # both, bad, 50 more, and the class
    assert len({skipped.reason for skipped in restored.skipped}) == 2
    assert len(looked) == 5  # both, good, bad, and the list in each


def test_a_tensor_is_below_one_name() -> None:
    """Else names of one another's names would have as many dicts of as many tensors."""
    names = ("model", "model.a", "train().model", "x", "." * 50)
    tensors = [
        "model.weight",
        "model.a.weight",
        "train().model.weight",
        "x",
        "modelx.weight",
        "." * 99,
        "y.x.weight",
        "",
    ]
    group = Group(
        names, "data", "pickle", Stream((), 0, "raw"), (), (), (),
        tuple(Tensor(name, 0, "float32", (), (), 0) for name in tensors), (),
    )  # fmt: skip

    assert safe_restoring._by_name(group) == {"model": [0, 1], "train().model": [2]}


def test_a_flipped_byte_costs_its_group(theirs: Life) -> None:
    theirs.run("x = 'x' * 100\ny = 'y' * 100")
    snapshot = theirs.checkpoint()
    blob = next(snapshot.blobs[g.stream.blobs[0]] for g in snapshot.groups if "x" in g.names)
    pack = layout.pack_path(theirs.store.root, blob.pack)
    raw = bytearray(pack.read_bytes())
    raw[blob.offset + 20] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(raw)

    found, restored = safely(theirs, snapshot)

    assert found == {"y": "y" * 100}
    assert "damaged on disk" in restored.skipped[0].reason


def test_an_import_is_not_made(theirs: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of that name beside the notebook would run."""
    (tmp_path / "evil_module_of_theirs.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs.run("x = 1")
    made = theirs.checkpoint()
    snapshot = resigned(theirs, dataclasses.replace(made, imports=(Import("m", "evil_module_of_theirs"),)))

    found, restored = safely(theirs, snapshot)

    assert found == {"x": 1}
    assert "an import runs code" in restored.skipped[0].reason


def test_where_nothing_is_plain_it_says_so(theirs: Life) -> None:
    theirs.run("x = {1, 2}")

    with pytest.raises(RestoreError, match=r"Nothing of snapshot .* without unpickling: x .*a set"):
        safely(theirs, theirs.checkpoint())


def test_a_name_that_it_does_not_hold_is_told(theirs: Life) -> None:
    theirs.run("losses = [1]")

    with pytest.raises(RestoreError, match=r"has no variable loses\. Did you mean losses\?"):
        safely(theirs, theirs.checkpoint(), "loses")


def test_hashes_are_needed(theirs: Life) -> None:
    """Another store's snapshot, whose packs are not here."""
    theirs.run("x = 'x' * 100")
    snapshot = theirs.checkpoint()
    for pack in layout.packs(theirs.store.root).iterdir():
        pack.unlink()

    with pytest.raises((RestoreError, CorruptError, StoreError), match="missing"):
        safely(theirs, snapshot)
