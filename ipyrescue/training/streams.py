"""The random streams of this process and of a loader's samplers: read without drawing from them, and put back.

Global ones: Python's `random`, NumPy's legacy generator, torch on the CPU and on each CUDA device that is in use. Of
samplers: every generator that is an attribute of theirs. Plain data, so that a snapshot can hold them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_DEPTH = 4


def read() -> dict[str, Any]:
    """The state of every global random stream of the libraries that are loaded."""
    states: dict[str, Any] = {"python": random.getstate()}
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        states["numpy"] = numpy.random.get_state(legacy=True)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def put_back(states: Mapping[str, Any]) -> None:
    """Set every global random stream that *states* has, as far as its library and device are here."""
    if "python" in states:
        random.setstate(states["python"])
    if "numpy" in states and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(states["numpy"])
    torch = sys.modules.get("torch")
    if "torch" in states and torch is not None:
        torch.set_rng_state(states["torch"].cpu())
        if "cuda" in states and torch.cuda.is_available():
            for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
                torch.cuda.set_rng_state(state.cpu(), device)


def read_generators(owner: object) -> dict[str, Any]:
    """The states of the generators that *owner* (a loader) and its samplers have, by dotted name."""
    return {name: _state(generator) for name, generator in _generators(owner)}


def put_back_generators(owner: object, states: Mapping[str, Any]) -> None:
    """Set those generators of *owner* that *states* has."""
    for name, generator in _generators(owner):
        if name in states:
            _set_state(generator, states[name])


def _generators(owner: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the generators among the attributes of *owner*, then those of its samplers."""
    for name, value in sorted(getattr(owner, "__dict__", {}).items()):
        if _is_generator(value):
            yield f"{prefix}{name}", value
        elif "sampler" in name and depth < _DEPTH:
            yield from _generators(value, f"{prefix}{name}.", depth + 1)


def _is_generator(value: object) -> bool:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if isinstance(value, random.Random) or (torch is not None and isinstance(value, torch.Generator)):
        return True
    return numpy is not None and isinstance(value, (numpy.random.Generator, numpy.random.RandomState))


def _state(generator: Any) -> Any:
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
