"""A hand-written training with everything that has a state, in a process that is killed and started again.

    python dying.py FOLDER KILLS

Torch is imported once; each life is a fork. Prints how many lives were killed; leaves `whole` (a run that nobody
killed) and `killed` in the FOLDER, each the snapshot of its end.
"""

import os
import pickle
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn

import ipyrescue
from ipyrescue.training import progress, streams

EPOCHS = 10
BATCHES = 24
NAMES = ("model", "average", "optimizer", "schedule", "scaler", "losses")


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    setup()  # imports what torch puts off until then; forks have it already
    killed, chance = 0, random.Random(0)
    while True:  # one place calls `live`: the way from here to a loop is part of its name
        name = "killed" if (folder / "whole").exists() else "whole"
        dies = name == "killed" and killed < kills
        killed += live(folder / name, chance.randint(1, EPOCHS * BATCHES // kills) if dies else None)
        if name == "killed" and not dies:
            break
    print(killed)


def live(file: Path, steps_before_death: int | None) -> bool:
    """Train in a process of its own; kill it at some instant after so many steps. Return whether it was killed."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        status = 1
        try:
            begin_or_go_on(file, tell)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tell)
    for _ in range(steps_before_death or 0):
        os.read(told, 1)
    if steps_before_death is not None:
        time.sleep(random.uniform(0, 0.02))  # anywhere in the steps that follow, or in the writing of a snapshot
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(told)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def begin_or_go_on(file: Path, tell: int) -> None:
    progress._registry = progress._Registry()  # a fork leaves loops alone; this one stands for a new process
    values = setup()
    if file.exists():
        states, values, random_streams = pickle.loads(file.read_bytes())
        streams.put_back(random_streams)
        progress.resume(states)
    train(file, tell, **values)


def setup():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return {
        "model": model,
        "average": torch.optim.swa_utils.AveragedModel(model, avg_fn=moving_average),
        "optimizer": optimizer,
        "schedule": torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, total_steps=EPOCHS * BATCHES // 2 + 1),
        "scaler": torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7),
        "losses": [],
    }


def moving_average(average, value, _):
    return 0.9 * average + 0.1 * value


def train(file, tell, *, model, average, optimizer, schedule, scaler, losses):
    """What would stand in a cell: an optimizer step after every second batch."""
    torch.manual_seed(2)  # as cells begin; it must not rewind a run that goes on
    x = torch.randn(190, 8)
    loader = torch.utils.data.DataLoader(list(zip(x, x.argmax(1) % 3, strict=True)), batch_size=8, shuffle=True)
    for _ in ipyrescue.loop(range(EPOCHS), name="epochs"):
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
            os.write(tell, b".")
            checkpoint(file, (model, average, optimizer, schedule, scaler, losses))


def checkpoint(file, values):
    """A snapshot in one file: the variables with what they share, where the loops are, and the random streams."""
    frame = sys._getframe(1)
    states = progress.states(frame, progress.header_of_tail(frame))
    temporary = file.with_suffix(".new")
    temporary.write_bytes(pickle.dumps((states, dict(zip(NAMES, values, strict=True)), streams.read())))
    temporary.rename(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
