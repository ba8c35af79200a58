"""The global random streams: read without drawing from them, and rewound by a full restore.

Python's `random`, NumPy's legacy global generator, torch on the CPU and on every CUDA device that is in use; and with
them the switches of `flags`, without which the same random numbers give other results.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from ipyrescue.pickling import flags


def capture() -> dict[str, Any]:
    """Read the state of every global random stream of the libraries that are loaded."""
    streams: dict[str, Any] = {"python": random.getstate(), "flags": flags.capture()}
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        streams["numpy"] = numpy.random.get_state(legacy=True)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        streams["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            streams["cuda"] = torch.cuda.get_rng_state_all()
    return streams


def rewind(streams: dict[str, Any]) -> list[str]:
    """Set every global random stream; return a sentence for each that could not be set."""
    warnings = []
    flags.apply(streams["flags"])
    random.setstate(streams["python"])
    if "numpy" in streams:
        import numpy as np

        np.random.set_state(streams["numpy"])
    if "torch" in streams:
        import torch

        torch.set_rng_state(streams["torch"].cpu())
        warnings += _rewind_cuda(torch, streams.get("cuda", []))
    return warnings


def _rewind_cuda(torch: Any, states: list[Any]) -> list[str]:
    devices = torch.cuda.device_count() if states and torch.cuda.is_available() else 0
    for device, state in zip(range(devices), states, strict=False):
        torch.cuda.set_rng_state(state.cpu(), device)
    if len(states) <= devices:
        return []
    return [f"The random streams of {len(states) - devices} CUDA device(s) have no device here: not rewound."]
