"""A snapshot that a forked child completes: what was copied comes from the copies, all the rest from where it is."""

from __future__ import annotations

import os
import sys
import time
from ast import literal_eval
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from blake3 import blake3
from namespaces import Life, reborn

from ipyrescue import checkpointing
from ipyrescue.capture import children
from ipyrescue.capture.forking import ForkingWriter, forked_at, worth_keeping_out
from ipyrescue.capture.staging import LiveArea
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.selection import Occasion, Origin
from ipyrescue.store import blobs as store_blobs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are children on Linux only")

LARGE = 1 << 20


def by_a_child(life: Life) -> Snapshot:
    """What a snapshot is when a child makes it that lacks the memory which was copied, and is written over besides."""
    origin = Origin(life.notebook, life.incarnation, "test-host")

    def complete() -> bytes:
        draft = checkpointing.thaw(staged, None, lacks_memory=True, forked_at=forked_at())
        churn = [np.full(LARGE, 170, np.uint8) for _ in range(100)]
        assert churn
        return checkpointing.write(draft, life.store).id.encode()

    with life.as_main():
        staged = checkpointing.freeze(
            life.names, life.store, life.area, origin=origin, occasion=Occasion(), settings=Settings()
        )
        ticket = ForkingWriter().submit(complete, absent=worth_keeping_out(staged.spans))
        assert ticket.wait(60, gone=True)
    return life.store.load(ticket.result(60).decode())


def meanwhile(life: Life, change: str, ever: str) -> Snapshot:
    """What a child makes that begins to read only when this process has run *change*, after the fork.

    And *ever* again happens while the child hashes and writes, as if it were done by yet another process.
    """
    changed, has_changed = os.pipe()

    def complete() -> bytes:
        os.read(changed, 1)
        draft = checkpointing.thaw(staged, None, lacks_memory=True, forked_at=forked_at())
        with mock.patch.object(store_blobs, "blake3", lambda view: _hashed_before(ever, life, view)):
            return checkpointing.write(draft, life.store).id.encode()

    with life.as_main():
        origin = Origin(life.notebook, life.incarnation, "test-host")
        staged = checkpointing.freeze(
            life.names, life.store, life.area, origin=origin, occasion=Occasion(), settings=Settings()
        )
        ticket = ForkingWriter().submit(complete, absent=worth_keeping_out(staged.spans))
        exec(change, life.names)
        os.write(has_changed, b"x")
        assert ticket.wait(60, gone=True)
    os.close(changed)
    os.close(has_changed)
    return life.store.load(ticket.result(60).decode())


def _hashed_before(change: str, life: Life, view: memoryview) -> Any:
    digest = blake3(view)
    exec(change, life.names)
    return digest


def at_once(life: Life) -> Snapshot:
    """The same from memory where it is, in this process."""
    origin = Origin(life.notebook, life.incarnation, "test-host")
    with life.as_main():
        draft = checkpointing.capture(
            life.names, life.store, LiveArea(), origin=origin, occasion=Occasion(), settings=Settings()
        )
        churn = [np.full(LARGE, 170, np.uint8) for _ in range(100)]
        assert churn
        return checkpointing.write(draft, life.store)


def restored(life: Life, snapshot: Snapshot) -> dict[str, Any]:
    assert snapshot.skipped == ()
    after = reborn(life)
    after.restore(source=snapshot.id)
    return after.names


@pytest.mark.parametrize("way", [by_a_child, at_once])
def test_arrays_and_parameters_that_share_memory_come_back_sharing_it(life: Life, way: Any) -> None:
    """A parameter in the middle of an array, and an array in that of a parameter: only the parameters are copied."""
    life.run(f"""
import numpy as np, torch
outer = np.arange(3 * {LARGE} // 4, dtype=np.float32)
inner = torch.nn.Parameter(torch.from_numpy(outer[100 : 100 + {LARGE} // 2]))
whole = torch.nn.Parameter(torch.arange(3 * {LARGE} // 4, dtype=torch.float32))
middle = whole.detach().numpy()[5000 : 5000 + {LARGE} // 4]
ends = whole.detach().numpy()[:10], whole.detach().numpy()[-10:]
opt = torch.optim.SGD([inner, whole], lr=1.0, momentum=0.9)
inner.grad, whole.grad = torch.ones_like(inner), torch.ones_like(whole)
opt.step()
""")
    names = restored(life, way(life))

    for name in ("outer", "middle"):
        assert np.array_equal(names[name], life.names[name])
    for name in ("inner", "whole"):
        assert torch.equal(names[name], life.names[name])
    names["outer"][100] = names["middle"][0] = -7
    names["ends"][0][3] = -8
    assert names["inner"][0] == names["whole"][5000] == -7
    assert names["whole"][3] == -8


@pytest.mark.parametrize("way", [by_a_child, at_once])
def test_memory_that_lives_only_while_its_owner_is_pickled_is_kept_for_it(life: Life, way: Any) -> None:
    """Arrays and tensors that an object makes when it is asked for its state."""
    life.run(f"""
import numpy as np, torch
masked = np.ma.masked_array(np.arange({LARGE}))
table = __import__("pandas").DataFrame({{"x": np.arange({LARGE}), "y": [str(n % 7) for n in range({LARGE})]}})
generator = torch.Generator(); generator.manual_seed(5)
random = np.random.default_rng(3)
text = "x" * {LARGE}; raw = bytes(range(256)) * 4096; changing = bytearray(raw)
fortran = np.asfortranarray(np.arange({LARGE}).reshape(1024, -1)); backwards = np.arange({LARGE})[::-1]
dates = np.arange({LARGE}).astype("datetime64[s]"); named = np.zeros({LARGE} // 8, dtype=[("a", "i4"), ("b", "f4")])
words = np.array(["a", "bc"] * ({LARGE} // 8))
""")
    names = restored(life, way(life))

    assert (names["masked"] == life.names["masked"]).all()
    assert names["table"].equals(life.names["table"])
    assert torch.equal(names["generator"].get_state(), life.names["generator"].get_state())
    assert names["random"].bit_generator.state == life.names["random"].bit_generator.state
    for name in ("text", "raw", "changing"):
        assert names[name] == life.names[name]
    for name in ("fortran", "backwards", "dates", "named", "words"):
        assert np.array_equal(names[name], life.names[name])


def test_memory_that_processes_share_comes_back_as_it_was_at_the_cut(
    life: Life, tmp_path: Path, monkeypatch: Any
) -> None:
    """A fork freezes none of it. What only objects hold is copied late: it is told, and it is never damaged."""
    monkeypatch.chdir(tmp_path)
    life.run(f"""
import mmap, numpy as np, torch
class Replay:
    def __init__(self): self.tensor = torch.zeros({LARGE}).share_memory_()
shared = torch.zeros({LARGE}).share_memory_()
mapped = torch.from_file("mapped.bin", shared=True, size={LARGE})
array = np.frombuffer(mmap.mmap(-1, {LARGE}), dtype=np.uint8)
part = array[100:200]
listed = [np.asarray(np.memmap("listed.bin", np.uint8, "w+", shape=({LARGE},)))]
alone = np.zeros({LARGE}, np.uint8)
replay = Replay()
""")
    change = """
for own in (shared, mapped, replay.tensor):
    own.fill_(1)
array[:] = 1; listed[0][:] = 1; alone[:] = 1
"""
    snapshot = meanwhile(life, change, "replay.tensor.numpy()[:] += 1")
    names = restored(life, snapshot)

    for found in (names["shared"], names["mapped"], names["array"], names["part"], names["listed"][0], names["alone"]):
        assert not found.any()
    assert names["replay"].tensor.unique().tolist() == [1.0]
    assert snapshot.warnings == (
        "Copied from memory that processes share, and may have changed while it was saved: replay.",
    )


def test_without_room_for_copies_the_child_copies_what_processes_share(life: Life, monkeypatch: Any) -> None:
    life.run("import torch; shared = torch.zeros(300_000).share_memory_()")
    monkeypatch.setattr(checkpointing, "_take_shared", lambda *_: None)
    snapshot = meanwhile(life, "shared.fill_(1)", "shared.numpy()[:] += 1")

    assert restored(life, snapshot)["shared"].unique().tolist() == [1.0]
    assert snapshot.warnings[0].endswith("while it was saved: shared.")


def test_the_pause_ends_with_the_fork(monkeypatch):
    """What a child does before it encodes, at low priority, is no time that a cell has waited."""
    start = children.give_way

    def slowly(niceness: int) -> None:
        start(niceness)
        time.sleep(0.3)

    monkeypatch.setattr(children, "give_way", slowly)

    def complete() -> bytes:
        return repr((forked_at(), time.perf_counter())).encode()

    before = time.perf_counter()
    ticket = ForkingWriter().submit(complete)
    assert ticket.wait(60, gone=True)
    forked, began = literal_eval(ticket.result().decode())

    assert before <= forked <= began - 0.3
