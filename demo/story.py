"""The demo: a training run, one cell of a real Jupyter kernel, dies by SIGKILL and goes on in a new one, bit for bit.

    train -> SIGKILL -> a new kernel -> %restore_vars -> the same cell again -> compare with a run that nobody killed

Run by `make demo`. The exit status is 0 only if every bit is the same; see `--help`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel import Kernel, KernelError

IMPORTS = """\
from statistics import mean

import ipyrescue
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
"""

# One thread, so that sums have the same order on every run. A restore sets it again, as it does the random streams.
DATA = """\
torch.manual_seed(7)
torch.set_num_threads(1)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
loader = DataLoader(TensorDataset(images[:1437], labels[:1437]), batch_size=32, shuffle=True)
"""

MODEL = """\
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.norm(self.conv2(x))), 2)
        return self.head(self.dropout(x.flatten(1)))

model = Net(width=SIZE)
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
losses = []
"""

TRAIN = """\
for epoch in ipyrescue.loop(range(EPOCHS), name="train"):
    model.train()
    for x, y in ipyrescue.batches(loader):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    sched.step()
    print(f"epoch {epoch + 1:2}  loss {mean(losses[-len(loader):]):.4f}", flush=True)
"""

SCORE = """\
model.eval()
right = (model(images[1437:]).argmax(1) == labels[1437:]).float().mean()
print(f"{right:.1%} right on 360 digits that it has not seen")
"""

# What is compared: every tensor of model and optimizer by name, all that is not a tensor, and the random stream.
STATE = """\
def state():
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, slots in opt.state_dict()["state"].items():
        tensors |= {f"opt.{number}.{name}": tensor for name, tensor in slots.items()}
    tensors["random stream"] = torch.get_rng_state()
    rest = [epoch, losses, sched.state_dict(), opt.state_dict()["param_groups"]]
    return tensors, rest
"""

DIGEST = """\
import hashlib, json
tensors, rest = state()
every_bit = {name: hashlib.sha256(t.detach().numpy().tobytes()).hexdigest() for name, t in tensors.items()}
print(json.dumps({"tensors": every_bit, "rest": repr(rest)}))
"""

KEEP = """\
torch.save(state(), "rescued.pt")
"""

COMPARE = """\
(rescued, rescued_rest), (tensors, rest) = torch.load("rescued.pt"), state()
assert rescued_rest == rest and rescued.keys() == tensors.keys()
assert all(torch.equal(rescued[name], tensors[name]) for name in tensors)
print(sum(tensor.numel() for tensor in tensors.values()))
"""


@dataclass(frozen=True)
class Size:
    """How much work the training is: *width* of the network, *epochs* of the one cell that trains it."""

    width: int = 64
    epochs: int = 24

    @property
    def cells(self) -> list[str]:
        """The cells that a user types before training begins."""
        return [IMPORTS, DATA, MODEL.replace("SIZE", str(self.width))]

    @property
    def training(self) -> str:
        """The cell that trains."""
        return TRAIN.replace("EPOCHS", str(self.epochs))


SMALL = Size(width=24, epochs=20)
WIDTH = 110
OUTPUT = " " * 11
SHOWN_LINES = 4


class Story:
    """Tells what happens: numbered steps, cells as `In [n]:`, what the kernel says indented below."""

    def __init__(self) -> None:
        self._step = 0
        self._cell = 0

    def step(self, sentence: str) -> None:
        """Begin the next step."""
        self._step += 1
        tell(f"\n{self._step}. {sentence}")

    def new_kernel(self) -> None:
        """Count cells from one again."""
        self._cell = 0

    def run(self, kernel: Kernel, cell: str, *, raises: str | None = None) -> Iterator[str]:
        """Show *cell*, run it and show its lines as they come; yield each."""
        self._cell += 1
        prompts = [f"   In [{self._cell}]: ", "      ...: "]
        tell("")
        for number, line in enumerate(abbreviated(cell)):
            tell(prompts[number > 0] + line)
        for line in kernel.run(cell, raises=raises):
            tell(indented(line))
            yield line

    def show(self, kernel: Kernel, cell: str, *, raises: str | None = None) -> list[str]:
        """Run *cell* to its end."""
        return list(self.run(kernel, cell, raises=raises))


def tell(line: str) -> None:
    """Print a line at once; what a terminal cannot show becomes a question mark."""
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "replace").decode(encoding), flush=True)


def abbreviated(cell: str) -> list[str]:
    """A cell's lines; of a long one that is not the loop the first, and how many more there are."""
    lines = cell.strip().splitlines()
    short = len(lines) <= SHOWN_LINES or lines[0].startswith("for")
    return lines if short else [f"{lines[0]}   ({len(lines) - 1} more lines)"]


def indented(line: str) -> str:
    """A line of output, broken where it would not fit."""
    width = max(60, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH))
    return textwrap.fill(line, width, initial_indent=OUTPUT, subsequent_indent=OUTPUT + "  ")


def main() -> int:
    """Run the demo and return its exit status."""
    arguments = parsed()
    logging.getLogger("asyncio").disabled = True  # what Ctrl-C cuts off in the client's event loop is no news
    started = time.monotonic()
    try:
        with folder(arguments.keep) as place:
            same = tell_story(place, SMALL if arguments.small else Size())
    except KernelError as error:
        tell(f"\nThe demo failed. {error}")
        return 1
    except KeyboardInterrupt:
        tell("\nInterrupted. The kernels are stopped.")
        return 130
    tell(f"It took {time.monotonic() - started:.0f} seconds.")
    return 0 if same else 1


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="train a tiny network, for tests")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="work in DIR, which is made, and leave it there")
    arguments = parser.parse_args()
    if arguments.keep and arguments.keep.exists():
        parser.error(f"{arguments.keep} exists already")
    return arguments


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """Provide the folder of the notebook: a temporary one, or one that stays."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ipyrescue-demo-", ignore_cleanup_errors=True) as place:
            yield Path(place).resolve()
        return
    keep.mkdir(parents=True)
    yield keep.resolve()


def tell_story(place: Path, size: Size) -> bool:
    """Train, kill, restore, go on, compare; return whether every bit is the same."""
    story, notebook = Story(), place / "digits.ipynb"
    tell("A training run is killed in the middle of a cell, and goes on in a new kernel, bit for bit.")
    with Kernel(notebook) as kernel:
        prepare(story, kernel, size)
        kill_while_training(story, kernel, size, place / ".ipyrescue")
    with Kernel(notebook) as kernel, Kernel(place / "undisturbed.ipynb") as undisturbed:
        requests = begin_undisturbed(undisturbed, size)
        come_back(story, kernel)
        rescued = finish(story, kernel, size)
        return compare(story, undisturbed, requests, rescued)


def begin_undisturbed(kernel: Kernel, size: Size) -> list[str]:
    """Set a kernel without ipyrescue to the same training, beside the story; return its requests."""
    return [kernel.begin(without_ipyrescue(cell)) for cell in (*size.cells, size.training)]


def without_ipyrescue(cell: str) -> str:
    """The cell as it stands in a notebook that does not know ipyrescue."""
    for ours, theirs in (("import ipyrescue\n", ""), ("ipyrescue.batches(loader)", "loader")):
        cell = cell.replace(ours, theirs)
    return re.sub(r"ipyrescue\.loop\((.*), name=.*\):", r"\1:", cell)


def prepare(story: Story, kernel: Kernel, size: Size) -> None:
    """Load the extension, type the cells of the training, and ask for protection."""
    story.step(f"A Jupyter kernel (process {kernel.pid}) starts for digits.ipynb and loads ipyrescue.")
    story.show(kernel, "%load_ext ipyrescue")
    story.step("Handwritten digits, a small CNN, AdamW, a scheduler and a shuffled DataLoader: ordinary cells.")
    for cell in size.cells:
        story.show(kernel, cell)
    story.step("From here on the session is saved every second, however much of the time that takes.")
    story.show(kernel, "%config IPyRescue.max_share = '100%'")
    story.show(kernel, "%checkpoint_vars model opt sched every=1s")


def manifests(store: Path) -> set[str]:
    """The snapshots that exist: a snapshot is there as soon as its manifest is."""
    return {path.name for path in (store / "snapshots").glob("*.json")}


def kill_while_training(story: Story, kernel: Kernel, size: Size, store: Path) -> None:
    """Let the cell train until a snapshot was made in its midst, and a while longer; then kill the kernel under it."""
    story.step("One cell trains it all. In its midst the kernel gets SIGKILL.")
    before, saved_at = manifests(store), None
    for line in story.run(kernel, size.training):
        saved_at = saved_at or (line if manifests(store) - before else None)
        if saved_at not in (None, line):
            kernel.kill()
            break
    else:
        raise KernelError("The cell ended before the kernel could be killed.")
    tell(f"\n   *** kill -9 {kernel.pid} ***   The process is gone, and with it every variable.")


def come_back(story: Story, kernel: Kernel) -> None:
    """Show an empty kernel, what it says about the dead one, and the restore."""
    story.step(f"A new kernel (process {kernel.pid}). It knows nothing, but ipyrescue knows what happened.")
    story.new_kernel()
    story.show(kernel, "model", raises="NameError")
    story.show(kernel, "%load_ext ipyrescue")
    story.show(kernel, "%restore_vars")


def finish(story: Story, kernel: Kernel, size: Size) -> str:
    """Run the cell again that was killed; return the digest of all that the training made."""
    story.step("The cell that was killed, run again as it is. It goes on at the very batch where it was saved.")
    story.show(kernel, size.training)
    story.show(kernel, SCORE)
    return digest(kernel, KEEP)


def digest(kernel: Kernel, *also: str) -> str:
    """Hash every tensor inside the kernel; nothing of this belongs to the story."""
    for cell in (STATE, *also):
        list(kernel.run(cell))
    return "".join(kernel.run(DIGEST))


def compare(story: Story, undisturbed: Kernel, requests: list[str], rescued: str) -> bool:
    """Hold the result against that of the kernel that nobody killed."""
    story.step("Meanwhile the same cells ran in a third kernel, without ipyrescue and without a crash.")
    *_, last_line = [line for request in requests for line in undisturbed.output(request)]
    tell(f"\n{OUTPUT}... {last_line}")
    whole = digest(undisturbed)
    return verdict(story, rescued, whole, list(undisturbed.run(COMPARE, raises="AssertionError")))


def verdict(story: Story, rescued: str, whole: str, elementwise: list[str]) -> bool:
    """Say in one sentence whether the run that died equals the one that did not."""
    story.step("The comparison: weights, optimizer, random stream, scheduler and every loss.")
    ours, theirs = json.loads(rescued), json.loads(whole)
    different = [name for name in theirs["tensors"] if ours["tensors"].get(name) != theirs["tensors"][name]]
    if different or ours != theirs or not elementwise[0].isdigit():
        tell(f"\n   NOT the same: {', '.join(different) or 'losses, scheduler or settings'}; {elementwise[0]}")
        return False
    tensors, numbers = len(theirs["tensors"]), int(elementwise[0])
    tell(f"\n   The same, bit for bit: {tensors} tensors, {numbers:,} numbers, equal one by one and by SHA-256.")
    return True


if __name__ == "__main__":
    sys.exit(main())
