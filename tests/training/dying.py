"""A hand-written training with everything that has a state, in a process that is killed and started again.

    python dying.py FOLDER KILLS

Torch is imported once; each life is a fork with a `__main__` of its own, and a store of its own for the run that nobody
killed (`whole`) and the other one (`killed`). Prints how many lives were killed.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from namespaces import Life, open_store

import ipyrescue
from ipyrescue.errors import SnapshotNotFoundError
from ipyrescue.selection import Occasion
from ipyrescue.training import progress

EPOCHS = 5
BATCHES = 24

SETUP = f"""
import torch
from torch import nn

torch.manual_seed(1)
x = torch.randn(190, 8)
data = torch.utils.data.TensorDataset(x, x.argmax(1) % 3)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
average = torch.optim.swa_utils.AveragedModel(model, avg_fn=lambda mean, new, _: 0.9 * mean + 0.1 * new)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, total_steps={EPOCHS * BATCHES // 2} + 1)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)
losses = []
"""

TRAINING = f"""
torch.manual_seed(2)  # as cells begin; it must not rewind a run that goes on
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
for epoch in ipyrescue.loop(range({EPOCHS}), name="epochs"):
    for inputs, targets in ipyrescue.batches(loader):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs + 0.1 * torch.randn_like(inputs)), targets)
        scaler.scale(loss / 2).backward()
        losses.append(loss.item())
        if len(losses) % 2 == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()
            average.update_parameters(model)
        checkpoint()
"""


def main(folder: Path, kills: int) -> None:
    import torch

    torch.set_num_threads(1)
    exec(SETUP, {})  # imports what torch puts off until then; forks have it already
    live(folder / "whole", None)
    killed, chance = 0, random.Random(0)
    while killed < kills:
        killed += live(folder / "killed", chance.randint(1, EPOCHS * BATCHES // kills))
    live(folder / "killed", None)
    print(killed)


def live(root: Path, steps_before_death: int | None) -> bool:
    """Train in a process of its own; kill it at some instant after so many steps. Return whether it was killed."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        status = 1
        try:
            begin_or_go_on(root, tell, saves=root.name == "killed")
            status = 0
        except BaseException:  # noqa: BLE001 - told, and the status says so
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tell)
    for _ in range(steps_before_death or 0):
        os.read(told, 1)
    if steps_before_death is not None:
        time.sleep(random.uniform(0, 0.05))  # anywhere in the steps that follow, or in the writing of a snapshot
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(told)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def begin_or_go_on(root: Path, tell: int, *, saves: bool) -> None:
    """Restore what the last life left, if it left anything; then run the cell of the training, and save its end."""
    progress._registry = progress._Registry()  # a fork leaves loops alone; this one stands for a new process
    life = Life(open_store(root))
    try:
        restored = life.restore()
        progress.resume(restored.progress)
    except SnapshotNotFoundError:
        life.run(SETUP)

    def checkpoint() -> None:
        os.write(tell, b".")
        if saves:
            frame = sys._getframe(1)
            save(life, progress.states(frame, progress.header_of_tail(frame)))

    life.names["ipyrescue"], life.names["checkpoint"] = ipyrescue, checkpoint
    life.run(TRAINING)
    save(life, {})


def save(life: Life, states: dict) -> None:
    kept = life.names.pop("checkpoint")
    life.checkpoint(Occasion(progress=states))
    life.names["checkpoint"] = kept


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
