"""A snapshot becomes a namespace again: which one is taken, and what happens when part of it is bad."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from namespaces import Life, reborn

from ipyrescue import gpus
from ipyrescue.errors import RestoreError, SnapshotNotFoundError
from ipyrescue.finding import candidates
from ipyrescue.manifest import Snapshot
from ipyrescue.pickling import decode, devices, randomness
from ipyrescue.selection import Occasion


def damage(life: Life, snapshot: Snapshot, position: int = 0) -> None:
    """Flip one byte in the pack that holds a snapshot's blob."""
    blob = snapshot.blobs[position]
    pack = life.store.root / "packs" / f"{blob.pack}.pack"
    raw = bytearray(pack.read_bytes())
    raw[blob.offset] ^= 1
    os.chmod(pack, 0o600)
    pack.write_bytes(raw)


def test_the_newest_consistent_snapshot_is_taken(life: Life) -> None:
    """An interrupted one is saved and listed, but not chosen over a consistent one."""
    life.run("x = 1")
    life.checkpoint()
    life.run("x = 2")
    life.checkpoint(Occasion(trigger="exception", cut="interrupted", reason="ValueError: no"))
    after = reborn(life)

    restored = after.restore()

    assert after.names["x"] == 1
    assert restored.snapshot.consistent


def test_the_dead_life_is_taken_before_the_living_one() -> None:
    """People press Run All first: what the new kernel saved since does not hide what died."""

    def made(sequence: int, incarnation: str, cut: str = "cell_end") -> Snapshot:
        return replace(_EMPTY, sequence=sequence, incarnation=incarnation * 16, cut=cut, id=f"{sequence:016x}")

    newest_first = [made(5, "b"), made(4, "b"), made(3, "a", "interrupted"), made(2, "a"), made(1, "c")]

    dead = [s.sequence for s in candidates(newest_first, {"a" * 16}, "n.ipynb")]
    none_dead = [s.sequence for s in candidates(newest_first, set(), "n.ipynb")]

    assert dead == [2, 5, 4, 1]
    assert none_dead == [5, 4, 2, 1]


def test_snapshots_of_another_notebook_are_never_taken(life: Life) -> None:
    """Two notebooks in one folder share a store and never each other's snapshots; the error names the other."""
    life.run("x = 1")
    life.checkpoint()
    other = reborn(life)
    other.notebook = "other.ipynb"

    with pytest.raises(SnapshotNotFoundError, match=r"train\.ipynb"):
        other.restore()


def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(life: Life) -> None:
    """The older one is bound and a sentence names the damaged one."""
    life.run("import numpy as np\nx = np.zeros(100_000)")
    life.checkpoint()
    life.run("x = np.ones(100_000)")
    newest = life.checkpoint()
    damage(life, newest, position=len(newest.blobs) - 2)
    after = reborn(life)

    restored = after.restore()

    assert after.names["x"].sum() == 0
    assert newest.id[:8] in restored.warnings[0]
    assert "damaged" in restored.warnings[0]


def test_a_damaged_blob_costs_its_group_when_the_user_names_the_snapshot(life: Life) -> None:
    """With from=, what is good comes back and what is not is named."""
    life.run("import numpy as np\nx = np.arange(100_000)\ny = 2")
    snapshot = life.checkpoint()
    group = next(g for g in snapshot.groups if g.names == ("x",))
    damage(life, snapshot, position=group.buffers[0].blobs[0])
    after = reborn(life)

    restored = after.restore(source=snapshot.id[:6])

    assert after.names["y"] == 2
    assert "x" not in after.names
    assert [s.name for s in restored.skipped] == ["x"]


def test_restoring_a_part_that_would_separate_objects_is_refused(life: Life) -> None:
    """A model without its optimizer would be two models; the error says what to type."""
    life.run("import torch\nmodel = torch.nn.Linear(2, 2)\nopt = torch.optim.Adam(model.parameters())\nx = 1")
    life.checkpoint()
    after = reborn(life)

    with pytest.raises(RestoreError, match="%restore_vars model opt"):
        after.restore("model")
    assert "model" not in after.names
    assert after.restore("x").names == ("x",)
    assert after.restore("model", "opt").names == ("model", "opt")


def test_an_unknown_name_gets_the_nearest_right_one(life: Life) -> None:
    """A typing error is answered with what was meant."""
    life.run("model = 1")
    life.checkpoint()

    with pytest.raises(RestoreError, match="Did you mean model"):
        reborn(life).restore("modle")


def test_keep_existing_binds_only_what_is_not_there(life: Life) -> None:
    """Names that exist stay; separated objects are told."""
    life.run("a = [1]\nb = {'a': a}\nc = 3")
    life.checkpoint()
    after = reborn(life)
    after.run("a = 'mine'")

    restored = after.restore(keep_existing=True)

    assert after.names["a"] == "mine"
    assert after.names["c"] == 3
    assert any("separate" in warning for warning in restored.warnings)


def test_nothing_is_bound_when_binding_fails(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure halfway rolls the namespace back whole."""
    life.run("a = 1\nb = 2\nc = 3")
    life.checkpoint()
    after = reborn(life)
    after.run("a = 'before'")

    class Stubborn(dict):
        def __setitem__(self, name: str, value: object) -> None:
            if name == "c":
                raise MemoryError("no")
            super().__setitem__(name, value)

    stubborn = Stubborn(after.names)
    from ipyrescue import restoring

    found = restoring.find(after.store, None, notebook=after.notebook, incarnation=after.incarnation)
    with pytest.raises(RestoreError, match="as it was"):
        restoring.restore(stubborn, after.store, found, restoring.Scope())
    assert stubborn["a"] == "before"
    assert "b" not in stubborn


def test_an_edited_class_is_told_not_overwritten_in_silence(life: Life) -> None:
    """The difference between the live class and the snapshot's is shown."""
    life.run("class Net:\n    def size(self):\n        return 1\nnet = Net()")
    life.checkpoint()
    life.run("class Net:\n    def size(self):\n        return 2\n")

    restored = life.restore()

    assert any("return 2" in warning and "return 1" in warning for warning in restored.warnings)


def test_tracebacks_through_restored_functions_show_their_lines(life: Life) -> None:
    """The text of a cell's function is known after a restore, and after a restore of that."""
    import inspect

    life.run("x = 0\n\ndef divide(a):\n    return a / x\n")
    life.checkpoint()
    import linecache

    for name in [name for name in linecache.cache if name.startswith("<cell")]:
        del linecache.cache[name]
    after = reborn(life)
    after.restore()

    assert "return a / x" in inspect.getsource(after.names["divide"])


MODEL = """
import torch
model = torch.nn.Linear(3, 3)
opt = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 3)).sum().backward(); opt.step()
half, numbers = torch.arange(8), list(range(3))
"""


def as_if_on_gpus(life: Life, snapshot: Snapshot, *devices: str) -> Snapshot:
    """Commit *snapshot* again as a machine with GPUs would have: the storages of each group on the next device."""
    groups = tuple(
        replace(
            g, storages=tuple(replace(s, device=devices[n % len(devices)]) for s in g.storages if s.kind == "torch")
        )
        if g.kind == "data" and any(s.kind == "torch" for s in g.storages)
        else g
        for n, g in enumerate(snapshot.groups)
    )
    moved = replace(snapshot, groups=groups, id=os.urandom(8).hex(), sequence=life.store.next_sequence())
    with life.store.writing():
        life.store.commit(moved)
    return moved


def everything_of(names: dict[str, object]) -> list[torch.Tensor]:
    model, opt = names["model"], names["opt"]
    states = [value for state in opt.state.values() for value in state.values()]
    return [*model.state_dict().values(), *(p.grad for p in model.parameters()), *states, names["half"]]


def test_device_cpu_brings_every_tensor_to_the_cpu_and_says_so(life: Life) -> None:
    """The optimizer's state too, bit for bit, and still of the model's parameters."""
    life.run(MODEL)
    as_if_on_gpus(life, life.checkpoint(), "cuda:0", "cuda:1")
    after = reborn(life)

    restored = after.restore(device="cpu")

    assert restored.warnings == (
        "Tensors of cuda:0, cuda:1 are on the CPU now, as device=cpu says; a variable that names a device still "
        "names it.",
    )
    for before, now in zip(everything_of(life.names), everything_of(after.names), strict=True):
        assert now.device.type == "cpu"
        assert torch.equal(before, now)
    assert after.names["opt"].param_groups[0]["params"][0] is after.names["model"].weight


def test_device_cpu_asks_for_no_gpu(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is there may be what killed the kernel; its random streams stay as they are, which is told."""
    life.run(MODEL)
    capture = randomness.capture
    monkeypatch.setattr(randomness, "capture", lambda: {**capture(), "cuda": [torch.get_rng_state()] * 2})
    as_if_on_gpus(life, life.checkpoint(), "cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked for a GPU"))

    warnings = reborn(life).restore(device="cpu").warnings

    assert any("random streams of 2 CUDA device(s) were not rewound" in warning for warning in warnings)


def test_without_device_cpu_what_is_gone_is_told(life: Life) -> None:
    life.run(MODEL)
    as_if_on_gpus(life, life.checkpoint(), "cuda:7")

    restored = reborn(life).restore()

    assert "cuda:7 is not here: its tensors are on the CPU now." in restored.warnings


def test_why_a_gpu_is_gone_is_told_once(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what torch itself warned of, which it does once in a process, whoever asks first."""
    life.run(MODEL)
    as_if_on_gpus(life, life.checkpoint(), "cuda:0", "cuda:1")
    asked = []

    def unavailable() -> bool:
        if len(asked) < 2:
            warnings.warn(
                "CUDA initialization: out of luck (Triggered internally at CUDAFunctions.cpp:108.)", stacklevel=2
            )
        asked.append(1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(devices, "_said", [])
    monkeypatch.setattr(gpus, "look", lambda said: gpus.Facts(said=said))
    filters = list(warnings.filters)

    told = reborn(life).restore().warnings

    assert told == (
        "cuda:0 is not here: its tensors are on the CPU now.",
        "torch.cuda.is_available() is False: torch says: CUDA initialization: out of luck.",
        "cuda:1 is not here: its tensors are on the CPU now.",
    )
    assert warnings.filters == filters


def test_memory_goes_to_the_device_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a call that torch has for storages of every device; `meta` stands for a GPU. Empty ones too."""
    monkeypatch.setattr(devices, "is_here", lambda device: True)
    for size in (4, 0):
        placed = decode._on_device(torch.zeros(size).untyped_storage(), "meta", [])
        assert (type(placed), placed.device.type, placed.nbytes()) == (torch.UntypedStorage, "meta", 4 * size)


def test_a_gpu_beyond_those_that_are_here_is_told(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run(MODEL)
    as_if_on_gpus(life, life.checkpoint(), "cuda:7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    assert "torch sees 2 GPUs here, as CUDA_VISIBLE_DEVICES=0,1 says." in reborn(life).restore().warnings


def test_a_library_that_is_gone_costs_what_lives_in_it(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory cannot be allocated; the rest is bound."""
    life.run(MODEL + "import numpy as np\narray = np.arange(3)\nplain = [1]")
    life.checkpoint()
    after = reborn(life)
    monkeypatch.setitem(sys.modules, "torch", None)

    restored = after.restore()

    assert after.names["plain"] == [1]
    assert after.names["array"].tolist() == [0, 1, 2]
    reasons = {skipped.name: skipped.reason for skipped in restored.skipped}
    assert reasons.keys() == {"torch", "model", "opt", "half"}
    assert all(reason.startswith("import torch failed: ") for reason in reasons.values())


def test_a_snapshot_names_the_distributions_of_its_objects(life: Life) -> None:
    """However deep they lie; what is only imported is not among them."""
    life.run("import pandas as pd, sklearn, dill\ndeep = {'frames': [pd.DataFrame({'a': [1]})]}")

    found = life.checkpoint().environment

    assert found["pandas"] == pd.__version__
    assert "dill" not in found
    assert "scikit-learn" not in found
    life.run("from sklearn.linear_model import LinearRegression\nfits = {'first': [LinearRegression()]}")
    assert "scikit-learn" in life.checkpoint().environment


def test_device_cpu_says_nothing_where_nothing_moved(life: Life) -> None:
    """Neither for what was on the CPU, nor for a device whose tensors were not asked for."""
    life.run(MODEL)
    life.checkpoint()
    assert reborn(life).restore(device="cpu").warnings == ()

    as_if_on_gpus(life, life.checkpoint(), "cuda:0")
    assert reborn(life).restore("numbers", device="cpu").warnings == ()


@pytest.mark.parametrize(
    ("free", "refused"),
    [
        ({"cuda:0": 0}, "on cuda:0, where 0 B are free"),
        ({"cuda:0": 1 << 20, "cuda:1": 1}, "on cuda:1, where 1 B are free"),
        ({"cuda:0": 1 << 20, "cuda:1": 1 << 20}, None),
        ({}, None),
    ],
)
def test_a_full_gpu_is_refused_before_anything_is_placed(
    life: Life, monkeypatch: pytest.MonkeyPatch, free: dict[str, int], refused: str | None
) -> None:
    """With the numbers and the line that brings it to the CPU; a device that is gone needs no room."""
    life.run(MODEL)
    moved = as_if_on_gpus(life, life.checkpoint(), "cuda:0", "cuda:1")
    monkeypatch.setattr(devices, "free_bytes", free.get)
    after = reborn(life)

    if refused is None:
        assert "model" in after.restore().names
        return
    with pytest.raises(RestoreError, match=f"{refused}.*from={moved.id[:8]} device=cpu"):
        after.restore()
    assert "model" not in after.names
    assert "model" in after.restore(device="cpu").names


def test_a_gpu_that_fills_up_meanwhile_is_the_same_sentence(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run(MODEL)
    life.checkpoint()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("ipyrescue.pickling.decode.place", full)
    with pytest.raises(RestoreError, match=r"Nothing was restored: CUDA out of memory.*2 GiB. Bring .* device=cpu"):
        reborn(life).restore()


def test_what_is_needed_on_gpus_is_counted_by_device(life: Life) -> None:
    life.run("import torch\na = torch.zeros(250)\nb = torch.zeros(1000, dtype=torch.uint8)\nc = a[:2]")
    snapshot = life.checkpoint()
    assert devices.needed_bytes(snapshot.groups) == {}

    assert devices.needed_bytes(as_if_on_gpus(life, snapshot, "cuda:0").groups) == {"cuda:0": 2000}


def test_a_store_moved_to_another_path_restores(life: Life, tmp_path: Path) -> None:
    """A store is known by what is in it, not by where it stands."""
    life.run("x = [1, 2]")
    life.checkpoint()
    moved = tmp_path / "elsewhere" / ".ipyrescue"
    moved.parent.mkdir()
    life.store.root.rename(moved)
    from namespaces import open_store

    after = Life(open_store(moved))
    after.restore()

    assert after.names["x"] == [1, 2]


def _template() -> Snapshot:
    from ipyrescue.manifest import Settings

    return Snapshot(
        format=1, id="0" * 16, sequence=0, notebook="n.ipynb", incarnation="0" * 16, created="2026-01-01T00:00:00",
        label=None, trigger="command", cut="cell_end", reason=None, cell=None, host="h", settings=Settings(),
        environment={}, imports=(), variables=(), skipped=(), warnings=(), groups=(), blobs=(), new_bytes=0,
        pause_seconds=0.0,
    )  # fmt: skip


_EMPTY = _template()
