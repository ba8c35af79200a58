"""The state of a restored module or optimizer into a live one, so that what refers to the live one stays attached."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import Any


def load_in_place(live: Any, restored: Any) -> Callable[[], object] | None:
    """Load the state of *restored* into *live* by `load_state_dict`; return what undoes it.

    `None`, and nothing is changed, where they are no modules or optimizers of the same kind and shapes.
    """
    torch = sys.modules.get("torch")
    if torch is None or type(live).__qualname__ != type(restored).__qualname__ or not _fit(torch, live, restored):
        return None
    before = copy.deepcopy(live.state_dict())
    try:
        live.load_state_dict(restored.state_dict())
    except BaseException:
        live.load_state_dict(before)
        raise
    return lambda: live.load_state_dict(before)


def is_module(value: Any) -> bool:
    """Whether *value* is a live module of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "nn") and issubclass(type(value), torch.nn.Module)


def load_tensors(module: Any, tensors: Mapping[str, Any]) -> list[str]:
    """Copy *tensors* into the parameters and buffers of a live module, by their dotted names; say what does not fit.

    Strictly: each has its place, each place its tensor, of the same shape and type, or nothing is copied. A place that
    shares its memory with one that has a tensor needs none of its own.
    """
    torch: Any = sys.modules["torch"]
    places = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    filled = {places[name].data_ptr() for name in tensors.keys() & places.keys()}
    misfits = [f"it has no {name}" for name in sorted(tensors.keys() - places.keys())]
    misfits += [f"{n} is missing" for n, p in places.items() if n not in tensors and p.data_ptr() not in filled]
    for name in sorted(tensors.keys() & places.keys()):
        theirs, ours = tensors[name], places[name]
        if getattr(theirs, "dtype", None) != ours.dtype or tuple(theirs.shape) != tuple(ours.shape):
            misfits.append(
                f"{name} is {tuple(theirs.shape)} of {theirs.dtype}, not {tuple(ours.shape)} of {ours.dtype}"
            )
    if not misfits:
        with torch.no_grad():
            for name, tensor in tensors.items():
                places[name].copy_(tensor)
    return misfits


def _fit(torch: Any, live: Any, restored: Any) -> bool:
    for kind, shapes in ((torch.nn.Module, _shapes_of_module), (torch.optim.Optimizer, _shapes_of_optimizer)):
        if isinstance(live, kind) and isinstance(restored, kind):
            return bool(shapes(live) == shapes(restored))
    return False


def _shapes_of_module(module: Any) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in module.state_dict().items()}


def _shapes_of_optimizer(optimizer: Any) -> list[list[Any]]:
    return [[parameter.shape for parameter in group["params"]] for group in optimizer.param_groups]
