"""Torch's global switches on which bit-for-bit results depend: read at a checkpoint, set by a full restore.

Thread count, default dtype, gradient mode, anomaly detection, deterministic algorithms, cuDNN and matmul precision.
"""

from __future__ import annotations

import sys
from typing import Any


def capture() -> dict[str, Any]:
    """Read torch's switches; empty while torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return {}
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn deterministic": torch.backends.cudnn.deterministic,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "matmul precision": torch.get_float32_matmul_precision(),
    }


def apply(flags: dict[str, Any]) -> None:
    """Set torch's switches as they were, touching only those that differ."""
    if not flags:
        return
    import torch

    now = capture()
    setters = {
        "threads": torch.set_num_threads,
        "dtype": torch.set_default_dtype,
        "grad": torch.set_grad_enabled,
        "anomaly": torch.autograd.set_detect_anomaly,
        "matmul precision": torch.set_float32_matmul_precision,
        "cudnn deterministic": lambda value: setattr(torch.backends.cudnn, "deterministic", value),
        "cudnn benchmark": lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    }
    for name, set_flag in setters.items():
        if name in flags and flags[name] != now[name]:
            set_flag(flags[name])
    wanted = flags["deterministic"], flags["warn only"]
    if wanted != (now["deterministic"], now["warn only"]):
        torch.use_deterministic_algorithms(wanted[0], warn_only=wanted[1])
