"""One contender, one round, one process: `python -m benchmarks.measure '{"contender": ..., ...}'` prints JSON.

A process of its own, because memory that an earlier contender left warm, or a module that it imported, would be
counted for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import mmap
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import contenders, states


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Save or restore as *spec* says, and return what was measured."""
    running = sys.modules["__main__"]  # kept: this very function lives in it
    size = states.Size.of(spec["scale"])
    namespace = states.fresh_namespace(size)
    _load_common_libraries()
    contender = contenders.CONTENDERS[spec["contender"]](Path(spec["folder"]))
    contender.load_libraries()
    if spec["do"] == "save":
        measured = _save(contender, namespace)
    else:
        measured = _restore(contender, namespace, Path(spec["folder"]), size)
    del running
    return measured


def _load_common_libraries() -> None:
    import numpy as np
    import pandas as pd
    import torch

    # First use imports more (pyarrow, torch's own lazy parts); none of it is any contender's doing.
    pd.DataFrame({"name": ["text"], "kind": pd.Categorical(["a"])}).iloc[0]
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).zero_grad()
    np.random.default_rng(0).standard_normal(1)


def _save(contender: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    empty = _resident_bytes()
    states.build(namespace)
    gc.collect()
    full_of_state = _resident_bytes()
    samples = {"full": _timed(contender, namespace, full_of_state)}
    peak = _peak_bytes()
    for name, change in (
        ("step", states.train),
        ("small", states.change_small_variable),
        ("cell", states.change_frame_cell),
    ):
        change(namespace)
        samples[name] = _timed(contender, namespace, full_of_state)
    return {
        "samples": {name: dataclasses.asdict(saved) for name, saved in samples.items()},
        "state_bytes": full_of_state - empty,
        "frame_bytes": int(namespace["frame"].memory_usage(deep=True).sum()),
        "peak_bytes": peak - full_of_state,
        "digest": states.digest(namespace),
    }


def _timed(contender: Any, namespace: dict[str, Any], state_bytes: int) -> contenders.Saved:
    gc.collect()
    settle(3 * state_bytes)
    _reset_peak()
    saved: contenders.Saved = contender.save(namespace)
    return saved


def _restore(contender: Any, namespace: dict[str, Any], folder: Path, size: states.Size) -> dict[str, Any]:
    read_into_page_cache(folder)
    settle(int(3e9 * size.scale) + (1 << 29))
    before = _resident_bytes()
    _reset_peak()
    start = time.perf_counter()
    contender.restore(namespace)
    seconds = time.perf_counter() - start
    peak = _peak_bytes()
    start = time.perf_counter()
    contender.finish(namespace)
    finish_seconds = time.perf_counter() - start
    return {
        "restore_seconds": seconds,
        "finish_seconds": finish_seconds,
        "restore_peak_bytes": peak - before,
        "blake3_seconds": _blake3_seconds(namespace),
        "digest": states.digest(namespace),
    }


def settle(size_bytes: int) -> None:
    """Give every contender the same start.

    What others left to be written is not this one's to wait for. And in a virtual machine free memory is often not
    there until it is touched: the host takes it away and gives it back at a second for each gigabyte, which would be
    charged to whoever comes first. So as much as anybody needs is touched and freed.
    """
    os.sync()
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, size_bytes)


def read_into_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass


def _blake3_seconds(namespace: dict[str, Any]) -> float:
    """How long hashing as many bytes takes by all cores: the tensors, and the numbers of the frame."""
    from blake3 import blake3

    tensors = {id(t): t for t in namespace["net"].state_dict().values()}
    states_of = namespace["opt"].state_dict()["state"].values()
    tensors |= {id(t): t for state in states_of for t in state.values()}
    distinct = {t.untyped_storage().data_ptr(): t for t in tensors.values()}
    views = [t.detach().numpy().reshape(-1).view("u1").data for t in distinct.values()]
    views += [namespace["frame"][name].to_numpy().view("u1").data for name in namespace["frame"].columns[:8]]
    start = time.perf_counter()
    for view in views:
        blake3(max_threads=blake3.AUTO).update(view).digest()
    return time.perf_counter() - start


def _resident_bytes() -> int:
    return _status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _peak_bytes() -> int:
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    """Make the peak begin anew; where the kernel does not let us, it is that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
