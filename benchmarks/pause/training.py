"""The state that every contender saves and the training that it disturbs: a model, fused Adam, a step.

The same seed makes the same state in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from blake3 import blake3

BATCH = 16


class Training:
    """A stack of linear layers whose parameters and two moments fill *scale* GB of float32, after one step."""

    def __init__(self, scale: float) -> None:
        torch.manual_seed(0)
        width = 2048 if scale >= 0.1 else 256
        depth = max(1, round(scale * 1e9 / 12 / (width * width)))
        layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(width, width, bias=False), torch.nn.ReLU())]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)
        self._width = width
        self.step()

    def step(self) -> None:
        """Change every tensor of the state. Gradients are gone afterwards, so nobody has them to save."""
        self.model(torch.randn(BATCH, self._width)).pow(2).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """The state dicts of model and optimizer; the keys of the optimizer's as text, as DCP wants them."""
        state = self.optimizer.state_dict()
        moments = {str(number): tensors for number, tensors in state["state"].items()}
        return {
            "model": self.model.state_dict(),
            "optimizer": {"state": moments, "param_groups": state["param_groups"]},
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of the state by their dotted names."""
        return dict(tensors_of(self.state()))

    @property
    def size_bytes(self) -> int:
        """What the tensors of the state hold."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def spoil(self) -> None:
        """Change every tensor at once, as no training would: a snapshot that looks at them later is torn."""
        with torch.no_grad():
            for tensor in self.tensors().values():
                tensor.add_(1.0)


def tensors_of(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested dicts, by dotted names."""
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from tensors_of(value, f"{prefix}{key}.")


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The hash of each tensor's bytes."""
    return {name: blake3(view(t), max_threads=blake3.AUTO).hexdigest() for name, t in tensors.items()}


def view(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, where they are."""
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())
