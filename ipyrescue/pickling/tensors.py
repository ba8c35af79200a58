"""Torch tensors: out of a stream as references to their storages, back as tensors on placed memory.

An exact `torch.Tensor` or `nn.Parameter` with plain strided memory is taken apart here. Every other kind (sparse,
quantised, subclasses, conjugate views) goes by torch's own reducers, whose storages end up here as well, so
that `torch.save` is never called. Torch is never imported: who has not imported it has no tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from ipyrescue.pickling.buffers import Reference, References

_MAX_NAMED = 20_000
_MAX_DEPTH = 3

Reduced = tuple[Any, ...]
Describe = Callable[[Any, Reference], None]


def reducers(references: References, describe: Describe) -> dict[type, Callable[[Any], Any]]:
    """Reducers by exact type for what torch defines; empty while torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "UntypedStorage"):
        return {}

    def reduce_tensor(tensor: Any) -> Any:
        return _reduce_tensor(torch, tensor, references, describe)

    def reduce_untyped(storage: Any) -> Reduced:
        return _same, (_refer(storage, references),)

    def reduce_typed(storage: Any) -> Reduced:
        return _typed_storage, (_refer(storage._untyped_storage, references), storage.dtype)

    return {
        torch.Tensor: reduce_tensor,
        torch.nn.Parameter: reduce_tensor,
        torch.UntypedStorage: reduce_untyped,
        torch.storage.TypedStorage: reduce_typed,
    }


def _reduce_tensor(torch: Any, tensor: Any, references: References, describe: Describe) -> Any:
    if not _is_plain(torch, tensor):
        return NotImplemented
    reference = _refer(tensor.untyped_storage(), references)
    describe(tensor, reference)
    is_leaf = tensor.is_leaf
    arguments = (
        type(tensor),
        reference,
        tensor.dtype,
        tensor.storage_offset(),
        tuple(tensor.size()),
        tensor.stride(),
        is_leaf and tensor.requires_grad,
    )
    state = (tensor.grad if is_leaf else None, tensor.__dict__ or None)
    if state == (None, None):
        return rebuild_tensor, arguments
    return rebuild_tensor, arguments, state, None, None, set_tensor_state


def _is_plain(torch: Any, tensor: Any) -> bool:
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.is_nested
        and type(tensor.untyped_storage()) is torch.UntypedStorage
    )


def _refer(storage: Any, references: References) -> Reference:
    device = str(storage.device)
    size_bytes = storage.nbytes() if device != "meta" else 0
    start = storage.data_ptr() if size_bytes else 0
    return references.refer(("torch", storage._cdata), "torch", start, size_bytes, storage, device)


def storage_reference(tensor: Any) -> Reference | None:
    """A reference to the memory of a plain tensor, by which it can be copied before it is pickled."""
    torch = sys.modules["torch"]
    return _refer(tensor.untyped_storage(), References()) if _is_plain(torch, tensor) else None


def rebuild_tensor(
    cls: type,
    storage: Any,
    dtype: Any,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
) -> Any:
    """Make a tensor of class *cls* over *storage*; *offset*, *shape* and *stride* count elements."""
    import torch

    tensor = torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, shape, stride)
    if cls is torch.nn.Parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def set_tensor_state(tensor: Any, state: tuple[Any, dict[str, Any] | None]) -> None:
    """Give a rebuilt tensor its gradient and the attributes that user code hung on it."""
    grad, attributes = state
    tensor.grad = grad
    if attributes:
        tensor.__dict__.update(attributes)


def _same(storage: Any) -> Any:
    return storage


def _typed_storage(storage: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def dropped_graph(value: Any) -> bool:
    """Whether *value* is a tensor whose values are kept but whose autograd graph cannot be."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(type(value), torch.Tensor) and value.grad_fn is not None


def dropped_hooks(value: Any) -> bool:
    """Whether *value* is a tensor with gradient hooks: the autograd engine has them, and no pickle."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(type(value), torch.Tensor) and bool(value._backward_hooks)


def named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, tensor) for the tensors of a value that have an obvious path.

    Modules by their own names (`model.fc1.weight`), optimizers by the numbers of `state_dict`
    (`opt.state.0.exp_avg`), plain containers by key, three levels deep.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return
    for count, found in enumerate(_walk(torch, name, value, 0)):
        if count >= _MAX_NAMED:
            return
        yield found


def _walk(torch: Any, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, torch.nn.Module):
        yield from torch.nn.Module.named_parameters(value, name, remove_duplicate=False)
        yield from torch.nn.Module.named_buffers(value, name, remove_duplicate=False)
    elif isinstance(value, torch.optim.Optimizer):
        yield from _walk_optimizer(torch, name, value)
    elif depth < _MAX_DEPTH:
        for key, item in _items(value):
            yield from _walk(torch, f"{name}.{key}", item, depth + 1)


def _walk_optimizer(torch: Any, name: str, optimizer: Any) -> Iterator[tuple[str, Any]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        for key, item in optimizer.state.get(parameter, {}).items():
            if isinstance(item, torch.Tensor):
                yield f"{name}.state.{number}.{key}", item


def _items(value: Any) -> list[tuple[Any, Any]]:
    if type(value) is dict and len(value) <= _MAX_NAMED:
        return [(key, item) for key, item in value.items() if isinstance(key, (str, int))]
    if type(value) in (list, tuple) and len(value) <= _MAX_NAMED:
        return list(enumerate(value))
    return []
