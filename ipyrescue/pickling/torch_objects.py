"""What torch builds around tensors and does not let `pickle` have: optimizers whole, parametrized and scripted modules.

Optimizers drop what they hold beside parameter groups and state (hooks, attributes, LBFGS's parameters); parametrized
modules refuse, because their class is made for the one module; scripted modules are known to `torch.jit` alone. Torch
is never imported: who has not imported it has none of these.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

Reduced = tuple[Any, ...]
Note = Callable[[str], None]

_ATTRIBUTES_DROPPED = "Optimizer kept without the hooks and attributes that cannot be saved"


def reduce_torch_object(value: Any, note: Note, *, lenient: bool) -> Any:
    """Reduce an optimizer or a module that needs it, else NotImplemented; *lenient* drops what hangs on optimizers."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "optim"):
        return NotImplemented
    kind = type(value)
    if issubclass(kind, torch.optim.Optimizer):
        return _reduce_optimizer(torch, value, note, lenient)
    if issubclass(kind, torch.jit.ScriptModule) and isinstance(value, torch.jit.RecursiveScriptModule):
        return _reduce_script_module(torch, value)
    if kind.__module__ == "torch.nn.utils.parametrize" and "parametrizations" in vars(value).get("_modules", ()):
        return _reduce_parametrized(kind, value)
    return (torch.finfo, (getattr(torch, value.dtype),)) if kind is torch.finfo else _reduce_iinfo(torch, kind, value)


def _reduce_iinfo(torch: Any, kind: type, value: Any) -> Any:
    return (torch.iinfo, (getattr(torch, value.dtype),)) if kind is torch.iinfo else NotImplemented


# --- optimizers -------------------------------------------------------------------------------------------------


def _reduce_optimizer(torch: Any, optimizer: Any, note: Note, lenient: bool) -> Any:
    kind: Any = type(optimizer)
    if kind.__getstate__ is not torch.optim.Optimizer.__getstate__ or kind.__reduce_ex__ is not object.__reduce_ex__:
        return NotImplemented
    own = optimizer.__getstate__()
    beside = {name: value for name, value in vars(optimizer).items() if name not in own}
    step = beside.get("step")
    counted = type(step) in (types.FunctionType, types.MethodType) and getattr(step, "_wrapped_by_lr_sched", False)
    if counted:
        del beside["step"]
    if lenient:
        note(_ATTRIBUTES_DROPPED)
        beside = {name: value for name, value in beside.items() if type(value) in (bool, int, float, str)}
    return make_instance, (kind,), (own, beside, counted), None, None, set_optimizer_state


def make_instance(cls: Any) -> Any:
    """Make an instance without calling its `__init__`."""
    return cls.__new__(cls)


def set_optimizer_state(optimizer: Any, state: Reduced) -> None:
    """Fill an optimizer; where a scheduler counted its steps, its steps are counted again."""
    own, beside, counted = state
    optimizer.__setstate__(own)
    vars(optimizer).update(beside)
    if counted:
        optimizer.step = _counted(optimizer)


def _counted(optimizer: Any) -> Any:
    """An optimizer's `step` as a learning rate scheduler wraps it, so that it can tell in which order they run."""
    reference = weakref.ref(optimizer)
    function = type(optimizer).step

    @functools.wraps(function)
    def step(*arguments: Any, **keywords: Any) -> Any:
        alive = reference()
        alive._opt_called = True  # type: ignore[union-attr]
        return function(alive, *arguments, **keywords)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    return step


# --- modules ----------------------------------------------------------------------------------------------------


def _reduce_parametrized(kind: type, module: Any) -> Reduced:
    names = tuple(module.parametrizations)
    return make_parametrized, (kind.__bases__[0], names), vars(module), None, None, set_attributes


def make_parametrized(base: Any, names: tuple[str, ...]) -> Any:
    """Make an empty module of class *base* whose tensors *names* are computed by parametrizations."""
    from torch.nn.utils import parametrize

    module = base.__new__(base)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    return module


def set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    """Fill an object past its own `__setattr__`."""
    vars(value).update(attributes)


def _reduce_script_module(torch: Any, module: Any) -> Reduced:
    """Its code goes as `torch.jit.save` writes it, its tensors as tensors, which an optimizer goes on sharing."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return make_script_module, (pickle.PickleBuffer(file.getvalue()),), tensors, None, None, set_script_tensors


def make_script_module(saved: Any) -> Any:
    """Load what `torch.jit.save` wrote."""
    import torch

    return torch.jit.load(io.BytesIO(saved), map_location="cpu")


def set_script_tensors(module: Any, tensors: dict[str, Any]) -> None:
    """Put tensors in the place of those that `torch.jit` made."""
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        functools.reduce(getattr, path, module)._c.setattr(leaf, tensor)
