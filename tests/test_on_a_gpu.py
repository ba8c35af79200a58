"""On a real GPU (make test-gpu): memory is copied off it behind what was queued, comes back to it, and trains on."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from kernels import REPLY_SECONDS, kernels
from namespaces import reborn

from ipyrescue import checkpointing
from ipyrescue.addresses import address_of
from ipyrescue.capture import cuda
from ipyrescue.capture.forking import ForkingWriter, forked_at, worth_keeping_out
from ipyrescue.capture.staging import StagingArea
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.selection import Occasion, Origin
from ipyrescue.store import Store, signing

if TYPE_CHECKING:
    from namespaces import Life

pytestmark = pytest.mark.gpu

DEVICE = "cuda:0"
NUMBERS = 1 << 20
CYCLES = 200_000_000
"""What the device computes before what is to be seen: about a tenth of a second."""

# Nothing but elementwise kernels and one sum, of which torch says that they give the same bits each time.
TRAINING = f"""
import hashlib, torch
from torch.nn.functional import dropout
torch.manual_seed(0)
weights = torch.nn.Parameter(torch.randn({NUMBERS}, device="{DEVICE}"))
opt = torch.optim.Adam([weights], lr=1e-3)
steps = 0
def update():
    global steps
    opt.zero_grad()
    dropout(weights * torch.randn_like(weights), 0.3).square().sum().backward()
    opt.step()
    steps += 1
def train(count):
    for _ in range(count):
        update()
def digest():
    tensors = weights, *(opt.state[weights][name] for name in ("exp_avg", "exp_avg_sq", "step"))
    return hashlib.sha256(b"".join(t.detach().cpu().numpy().tobytes() for t in tensors)).hexdigest()
train(3)
"""


@pytest.fixture
def area() -> Iterator[StagingArea]:
    staging = StagingArea()
    yield staging
    staging.release()


def tensor_at(address: int, size_bytes: int) -> torch.Tensor:
    return torch.frombuffer((ctypes.c_char * size_bytes).from_address(address), dtype=torch.uint8)


def numbers_in(view: memoryview) -> torch.Tensor:
    return torch.frombuffer(bytearray(view), dtype=torch.float32)


def test_a_copy_waits_for_what_was_queued_and_sees_nothing_later(area: StagingArea) -> None:
    """On a stream of its own, which leaves the user's the current one."""
    mine = torch.arange(NUMBERS, dtype=torch.float32, device=DEVICE)
    expected = mine.cpu() + 1
    current = torch.cuda.current_stream()
    torch.cuda.synchronize()

    torch.cuda._sleep(CYCLES)
    mine.add_(1)
    (view,) = area.hold_from_devices([mine.untyped_storage()])
    mine.zero_()
    torch.cuda.synchronize()

    assert torch.equal(numbers_in(view), expected)
    assert torch.cuda.current_stream() == current
    assert cuda._streams[DEVICE] != current


def test_host_memory_is_pinned_once_and_used_again(area: StagingArea, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    pin, unpin = cuda.pin, cuda.unpin

    def pin_and_tell(address: int, size_bytes: int) -> None:
        calls.append(("pin", address))
        pin(address, size_bytes)

    def unpin_and_tell(address: int) -> None:
        calls.append(("unpin", address))
        unpin(address)

    monkeypatch.setattr(cuda, "pin", pin_and_tell)
    monkeypatch.setattr(cuda, "unpin", unpin_and_tell)
    used = []
    for value in (1.0, 2.0, 3.0):
        area.reset()
        tensor = torch.full((NUMBERS,), value, device=DEVICE)
        (view,) = area.hold_from_devices([tensor.untyped_storage()])
        assert torch.equal(numbers_in(view), tensor.cpu())
        used.append(address_of(view))
        assert tensor_at(used[-1], view.nbytes).is_pinned()
        del view
    area.release()
    gc.collect()

    assert len(set(used)) == 1
    assert calls == [("pin", used[0]), ("unpin", used[0])]


def by_a_child(life: Life) -> Snapshot:
    """A snapshot that a child writes, while this process trains on."""
    origin = Origin(life.notebook, life.incarnation, "test-host")

    def complete() -> bytes:
        draft = checkpointing.thaw(staged, None, lacks_memory=True, forked_at=forked_at())
        return checkpointing.write(draft, life.store).id.encode()

    with life.as_main():
        staged = checkpointing.freeze(
            life.names, life.store, life.area, origin=origin, occasion=Occasion(), settings=Settings()
        )
        ticket = ForkingWriter().submit(complete, absent=worth_keeping_out(staged.spans))
        life.run("train(50)")
        assert ticket.wait(60, gone=True)
    return life.store.load(ticket.result(60).decode())


def test_what_a_child_writes_is_the_moment_of_the_cut_and_trains_on_to_the_same_bits(life: Life) -> None:
    """Weights, the optimizer's state and the random stream of the device."""
    names = life.run(TRAINING)
    at_the_cut = names["digest"]()
    snapshot = by_a_child(life)
    assert snapshot.skipped == ()
    assert torch.cuda.get_device_name(0) in snapshot.environment["cuda devices"]
    assert names["digest"]() != at_the_cut

    after = reborn(life)
    restored = after.restore(source=snapshot.id)

    assert restored.warnings == ()
    assert after.names["steps"] == 3
    assert str(after.names["weights"].device) == DEVICE
    assert after.names["opt"].param_groups[0]["params"][0] is after.names["weights"]
    assert after.names["digest"]() == at_the_cut
    after.run("train(50)")
    assert after.names["digest"]() == names["digest"]()


def test_random_streams_of_the_device_are_rewound(life: Life) -> None:
    names = life.run(f'import torch\ntorch.cuda.manual_seed_all(5)\nfirst = torch.rand({NUMBERS}, device="{DEVICE}")')
    life.checkpoint()
    expected = torch.rand(NUMBERS, device=DEVICE)

    after = reborn(life)
    after.restore()

    assert torch.equal(torch.rand(NUMBERS, device=DEVICE), expected)
    assert torch.equal(after.names["first"], names["first"])


def test_device_cpu_brings_the_same_bits_to_the_host(life: Life) -> None:
    names = life.run(TRAINING)
    life.checkpoint()

    after = reborn(life)
    after.restore(device="cpu")

    assert after.names["weights"].device.type == "cpu"
    assert after.names["digest"]() == names["digest"]()


def test_a_kernel_that_is_killed_while_it_trains_comes_back(tmp_path: Path) -> None:
    """Snapshots inside the cell, each of a whole iteration, by a child of a process that has a CUDA context."""

    def inside() -> list[Any]:
        store = Store.open(tmp_path / ".ipyrescue", signing.load_key())
        return [found for found in store.snapshots() if found.cut == "boundary"]

    with kernels(tmp_path) as make:
        first = make(IPYRESCUE_MAX_SHARE="100%")
        first.run("%load_ext ipyrescue")
        first.run(f"{TRAINING}seal = steps, digest()")
        first.run("%checkpoint_vars weights opt every=0.3s")
        first.begin("while True:\n    update()\n    seal = steps, digest()")
        deadline = time.monotonic() + REPLY_SECONDS
        while len(inside()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.kill()

        second = make()
        second.run("%load_ext ipyrescue")
        second.run("%restore_vars")
        assert second.value("(steps, digest()) == seal")
        assert second.value("(steps > 3, str(weights.device))") == (True, DEVICE)
        second.run("train(1)")
