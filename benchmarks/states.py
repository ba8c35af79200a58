"""The state that every contender saves: a notebook's variables, made by running cells in a `__main__` of their own.

The same seed makes the same state in every process, so contenders can be measured in processes of their own.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import linecache
import sys
import types
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

FULL_DATA_FROM_GB = 0.3
"""Below this size of model and optimizer the frame and the list of dicts shrink with it."""

_DEFINE = """
import numpy as np
import pandas as pd
import torch

torch.manual_seed(seed)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        torch.nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth))
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight  # tied, as in most language models

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)

def train(steps):
    for _ in range(steps):
        tokens, following = torch.randint(vocabulary, (2, 64))
        loss = torch.nn.functional.cross_entropy(net(tokens), following)
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    return loss.item()

net = Net()
opt = torch.optim.Adam(net.parameters(), foreach=False, fused=False)
"""

_TRAIN = """
loss = train(1)
"""

_DATA = """
rng = np.random.default_rng(seed)
frame = pd.DataFrame({f"x{i}": rng.standard_normal(rows) for i in range(6)})
frame["n"] = rng.integers(0, 1 << 40, rows)
frame["day"] = rng.integers(0, 365, rows)
frame["kind"] = pd.Categorical.from_codes(rng.integers(0, 4, rows), ["a", "b", "c", "d"])
frame["name"] = pd.Series(rng.integers(0, 10_000, rows)).map(lambda i: f"customer {i}")
records = [
    {"id": i, "score": i * 0.5, "name": f"record {i}", "tags": ["a", "b", str(i % 7)], "seen": None}
    for i in range(record_count)
]
for i in range(50):
    globals()[f"v{i:02}"] = [i, i * 0.5, f"text {i}", [i] * 10, {"i": i, "half": i / 2}][i % 5]
v49 = v48
"""

_SMALL_CHANGE = "v07 = 'changed'\n"
_CELL_CHANGE = "frame.iloc[rows // 2, 0] = 42.0\n"


@dataclass(frozen=True)
class Size:
    """How large a state is; *scale* counts gigabytes of model and Adam."""

    scale: float
    width: int
    vocabulary: int
    depth: int
    rows: int
    records: int

    @classmethod
    def of(cls, scale: float) -> Size:
        """Choose a model whose parameters and two moments fill *scale* GB of float32."""
        width = 2048 if scale >= FULL_DATA_FROM_GB else 512 if scale >= 0.03 else 128
        parameters = scale * 1e9 / 12
        depth = max(1, round((parameters - 4 * width * width) / (width * width + width)))
        data = min(1.0, scale / FULL_DATA_FROM_GB)
        return cls(scale, width, 4 * width, depth, round(1_000_000 * data), round(200_000 * data))


def fresh_namespace(size: Size) -> dict[str, Any]:
    """Put a new `__main__` in place of the one that runs, as a kernel's is, and return its namespace."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    numbers = {"width": size.width, "vocabulary": size.vocabulary, "depth": size.depth}
    module.__dict__.update(numbers, seed=0, rows=size.rows, record_count=size.records)
    return module.__dict__


def build(namespace: dict[str, Any]) -> None:
    """Run the cells: a model, Adam after one step with the gradients dropped, a frame, dicts, 50 small variables."""
    for cell in (_DEFINE, _TRAIN, _DATA):
        _run(cell, namespace)


def build_untrained(namespace: dict[str, Any]) -> None:
    """Run the cell that defines model and optimizer: what somebody with state dicts does before loading them."""
    _run(_DEFINE, namespace)


def train(namespace: dict[str, Any]) -> None:
    """Take a step, which changes every byte of model and optimizer."""
    _run(_TRAIN, namespace)


def change_small_variable(namespace: dict[str, Any]) -> None:
    """Bind one of the small variables anew."""
    _run(_SMALL_CHANGE, namespace)


def change_frame_cell(namespace: dict[str, Any]) -> None:
    """Write one number into the frame."""
    _run(_CELL_CHANGE, namespace)


def data_names(namespace: dict[str, Any]) -> list[str]:
    """The names that are neither model nor optimizer nor code."""
    kinds = (type, types.FunctionType, types.ModuleType)
    others = ("net", "opt", "rng")
    return [n for n, v in namespace.items() if not n.startswith("__") and n not in others and not isinstance(v, kinds)]


def digest(namespace: dict[str, Any]) -> dict[str, str]:
    """A hash for each variable, and what is the same object as what: equal for equal states."""
    hashes = {f"net.{name}": _of_tensor(tensor) for name, tensor in namespace["net"].state_dict().items()}
    for number, state in enumerate(namespace["opt"].state_dict()["state"].values()):
        hashes |= {f"opt.{number}.{key}": _of_tensor(tensor) for key, tensor in state.items()}
    hashes |= {name: _of_value(namespace[name]) for name in sorted(data_names(namespace))}
    net, opt = namespace["net"], namespace["opt"]
    held = {id(p) for group in opt.param_groups for p in group["params"]}
    hashes["optimizer holds the model's parameters"] = str({id(p) for p in net.parameters()} == held)
    hashes["weights are tied"] = str(net.head.weight is net.embedding.weight)
    hashes["v49 is v48"] = str(namespace["v49"] is namespace["v48"])
    return hashes


def _of_tensor(tensor: Any) -> str:
    return blake3(tensor.detach().contiguous().numpy().data.cast("B")).hexdigest()


def _of_value(value: Any) -> str:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        rows = pd.util.hash_pandas_object(value).to_numpy()
        return hashlib.sha256(rows.tobytes() + str(value.dtypes.to_dict()).encode()).hexdigest()
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _run(cell: str, namespace: dict[str, Any]) -> None:
    """Run source text as IPython does: compiled under a name of its own, its lines known to `linecache`."""
    filename = f"<benchmark {hashlib.sha256(cell.encode()).hexdigest()[:8]}>"
    linecache.cache[filename] = (len(cell), None, cell.splitlines(keepends=True), filename)
    exec(compile(cell, filename, "exec"), namespace)
