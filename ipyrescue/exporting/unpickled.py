"""An order to a .pt or .parquet file: restores the variables that are wanted as a new kernel would, and writes them.

The store is only read; signature and hashes are checked before anything is unpickled. Every tensor is on the CPU. What
is written as .pt is read back by `torch.load(weights_only=True)` before it counts.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from ipyrescue import restoring
from ipyrescue.errors import RescueError, RestoreError
from ipyrescue.manifest import Snapshot
from ipyrescue.restoring import Scope
from ipyrescue.store import Store, signing

_STATES = (("Optimizer", "optimizer_state"), ("LRScheduler", "scheduler_state"), ("Module", "model_state"))
"""What the checkpoints of PyTorch's own tutorials call the state of an object, by a class that it derives from."""


def main() -> None:
    """Follow the order on standard input and answer with one JSON object; end at once."""
    order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    warnings.simplefilter("ignore")
    sys.path += order["path"]
    try:
        answer = follow(order)
    except RescueError as error:
        answer = {"error": str(error)}
    with open(order["answer"], "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os._exit(0)


def follow(order: dict[str, Any]) -> dict[str, Any]:
    """Restore what is wanted and write it; return which keys were written and what was left out. Raises RescueError."""
    store = Store.open(Path(order["store"]), signing.load_key(Path(order["key_path"])))
    snapshot = store.load(order["snapshot"])
    values, lost = restored(store, snapshot, tuple(order["names"]))
    write = {"pt": _write_pt, "parquet": _write_parquet}[order["format"]]
    return write(order, values, lost)


def restored(store: Store, snapshot: Snapshot, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of *names*, of all for none; and why some did not come back. Raises RescueError."""
    main_module = types.ModuleType("__main__")
    main_module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main_module
    scope = Scope(names=names, device="cpu" if _uses_a_gpu(snapshot) else None, force=True)
    found = restoring.restore(main_module.__dict__, store, [snapshot], scope)
    lost = {item.name: item.reason for item in found.skipped}
    missing = [f"{name} ({lost.get(name, 'not restored')})" for name in names if name not in main_module.__dict__]
    if missing:
        raise RestoreError(f"Nothing was exported: {', '.join(missing)} did not come back.")
    wanted = names or tuple(variable.name for variable in snapshot.globals)
    return {name: main_module.__dict__[name] for name in wanted if name in main_module.__dict__}, lost


def _uses_a_gpu(snapshot: Snapshot) -> bool:
    return any(storage.device != "cpu" for group in snapshot.groups for storage in group.storages)


# --- .pt ------------------------------------------------------------------------------------------------------------


def _write_pt(order: dict[str, Any], values: dict[str, Any], lost: dict[str, str]) -> dict[str, Any]:
    import torch

    contents: dict[str, Any] = {}
    left_out = dict(lost)
    keys = _keys(values)
    for name, value in values.items():
        try:
            contents[keys[name]] = _simple(torch, value.state_dict() if name in _with_state(values) else value)
        except Exception as error:  # noqa: BLE001 - a state_dict of the user's may raise anything; it costs its name
            left_out[name] = str(error)
    wanted = [f"{name} ({left_out[name]})" for name in order["names"] if name in left_out]
    if wanted or not contents:
        told = ", ".join(wanted) or "nothing in it is a tensor, has a state_dict or is a simple value"
        raise RestoreError(f"Nothing was exported: torch.load(weights_only=True) would refuse {told}.")
    torch.save(contents, order["draft"])
    torch.load(order["draft"], weights_only=True, map_location="cpu")
    return {"keys": list(contents), "left_out": left_out}


def _with_state(values: dict[str, Any]) -> set[str]:
    return {name for name, value in values.items() if _state_key(value) is not None}


def _keys(values: dict[str, Any]) -> dict[str, str]:
    """`model_state` and `optimizer_state` where there is one of the kind, else `NAME_state`; the name for a value."""
    kinds = {name: _state_key(value) for name, value in values.items()}
    known = list(kinds.values())
    keys = {name: name if kind is None else kind for name, kind in kinds.items()}
    for name, kind in kinds.items():
        if kind is not None and (known.count(kind) > 1 or kind in values):
            keys[name] = f"{name}_state"
    return keys


def _state_key(value: Any) -> str | None:
    bases = {cls.__name__ for cls in type(value).__mro__ if cls.__module__.startswith("torch.")}
    return next((key for base, key in _STATES if base in bases), None)


def _simple(torch: Any, value: Any) -> Any:
    """The same of types that weights_only allows; arrays become tensors. Raises TypeError for what has no such."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes, complex):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if kind.__module__ == "numpy" and hasattr(value, "__array__"):
        return _of_numpy(torch, value)
    if isinstance(value, dict):
        return {_simple(torch, key): _simple(torch, item) for key, item in value.items()}
    if kind in (list, tuple, set):
        return kind(_simple(torch, item) for item in value)
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} is no simple value")


def _of_numpy(torch: Any, value: Any) -> Any:
    if value.ndim == 0:
        return value.item()
    if value.dtype.kind not in "biufc":
        raise TypeError(f"an array of {value.dtype} is no tensor")
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))


# --- .parquet -------------------------------------------------------------------------------------------------------


def _write_parquet(order: dict[str, Any], values: dict[str, Any], lost: dict[str, str]) -> dict[str, Any]:
    """One table of pandas, polars or pyarrow, by its own method."""
    ((name, table),) = values.items()
    for method in ("to_parquet", "write_parquet"):
        if hasattr(table, method):
            getattr(table, method)(order["draft"])
            return {"keys": [name], "left_out": {}}
    raise RestoreError(f"Nothing was exported: {name} is a {type(table).__qualname__}, no table of pandas or polars.")
