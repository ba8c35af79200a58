"""Children of a process that is as busy as can be: none of them hangs for a lock that a thread held at the fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SNAPSHOTS = int(os.environ.get("SNAPSHOTS_UNDER_LOAD", "40"))
TESTS = Path(__file__).parent.parent

BUSY = """
import io, itertools, json, logging, os, random, re, sys, threading, time
from pathlib import Path
import torch
from namespaces import Life, open_store, reborn
from ipyrescue import checkpointing
from ipyrescue.capture.fence import Fence
from ipyrescue.capture import forking
from ipyrescue.capture.forking import ForkingWriter, forked_at, worth_keeping_out
from ipyrescue.manifest import Settings
from ipyrescue.selection import Occasion, Origin

folder, count = Path(sys.argv[1]), int(sys.argv[2])
forking._NICENESS = 0  # a hang is looked for, and a nice child waits for all the others
stop, rounds = threading.Event(), [0] * 8
logging.basicConfig(filename=folder / "log", level=logging.DEBUG)

def allocates(n): return [bytearray(random.randrange(1, 200_000)) for _ in range(50)]
def logs(n): logging.getLogger(f"a.b{n % 7}").info("round %d", n)
def matches(n): re.compile(rf"(a|b{n % 500})+c?").search("ab" * 200)
def speaks_json(n): json.loads(json.dumps({str(i): [i, n] for i in range(100)}))
DEEDS = [allocates, logs, matches, speaks_json] * 2

def busy(position):
    for n in itertools.count():
        if stop.is_set(): return
        DEEDS[position](n)
        rounds[position] += 1
        time.sleep(0.005)

def computes():
    while not stop.is_set():
        torch.linalg.svd(torch.randn(60, 60))
        torch.sin(torch.randn(400_000)).sum()
        time.sleep(0.01)

class Numbers(torch.utils.data.Dataset):
    def __len__(self): return 1 << 30
    def __getitem__(self, n): return torch.full((8,), float(n))

class Own:
    def __reduce__(self): return list, ([1, 2],)

torch.set_num_threads(2)
threads = [threading.Thread(target=busy, args=(n,), daemon=True) for n in range(8)]
threads.append(threading.Thread(target=computes, daemon=True))
for thread in threads: thread.start()
batches = iter(torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2))

life = Life(open_store(folder / "store"))
life.run("import torch\\nmodel = torch.nn.Linear(600, 600)\\nopt = torch.optim.AdamW(model.parameters())\\nstep = 0")
names, writer, fence = life.names, ForkingWriter(), Fence(60.0)
origin = Origin(life.notebook, life.incarnation, "host")
for step in range(count):
    names["opt"].zero_grad()
    names["model"](next(batches)[:, :1].expand(4, 600) * 1e-3).sum().backward()
    names["opt"].step()
    names["step"] = step
    names["own"] = Own() if step % 10 == 0 else None
    with life.as_main():
        staged = checkpointing.freeze(
            names, life.store, life.area, origin=origin, occasion=Occasion(), settings=Settings()
        )
        own, absent = names["own"] is not None, worth_keeping_out(staged.spans)
        def complete():
            draft = checkpointing.thaw(staged, fence, lacks_memory=not own and bool(absent), forked_at=forked_at())
            return checkpointing.write(draft, life.store).id.encode()
        ticket = writer.submit(complete, absent=() if own else absent, deadline_seconds=60.0)
    saved = ticket.result(120).decode()
    if step % 10 == 9:
        for other in life.store.snapshots(None)[3:]: life.store.forget(other.id)
stop.set()
for thread in threads: thread.join(60)
del batches
after = reborn(life)
after.restore(source=saved)
assert after.names["step"] == count - 1
assert all(map(torch.equal, after.names["model"].parameters(), names["model"].parameters()))
print("made", count, "beside", min(rounds) > count)
"""


@pytest.mark.slow
@pytest.mark.timeout(180 + SNAPSHOTS)
@pytest.mark.skipif(sys.platform != "linux", reason="there are children on Linux only")
def test_no_child_hangs_under_busy_threads(tmp_path: Path) -> None:
    """Eight threads that allocate, log, match and speak JSON, torch's own, and a DataLoader's workers beside them."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BUSY, str(tmp_path), str(SNAPSHOTS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as busy:
        said = busy.communicate()

    assert said == (f"made {SNAPSHOTS} beside True\n", "")
