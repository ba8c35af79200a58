"""Torch tensors: out of a stream as references to their storages, back as tensors on placed memory.

A tensor with plain strided memory is taken apart here, also that of a subclass which does not say how it pickles.
Every other kind (sparse, quantised, wrapper subclasses, conjugate views) goes by torch's own reducers, whose storages
end up here as well, so that `torch.save` is never called. Torch is never imported: who has not imported it has no
tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from ipyrescue.pickling.buffers import Reference, References

_PROTOCOL = 5
MAX_NAMED = 20_000
MAX_DEPTH = 3

Reduced = tuple[Any, ...]
Describe = Callable[[Any, Reference], None]
Note = Callable[[str], None]

_GRAPH_DROPPED = "Values kept, autograd graph dropped"
_HOOKS_DROPPED = "Values kept, gradient hooks dropped"


def reducers(references: References, describe: Describe, note: Note) -> dict[type, Callable[[Any], Any]]:
    """Reducers by type for what torch defines, `Tensor`'s for its subclasses too; empty while torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "UntypedStorage"):
        return {}

    def reduce_tensor(tensor: Any) -> Any:
        return _reduce_tensor(torch, tensor, references, describe, note)

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


def kinds() -> tuple[type, ...]:
    """The types whose subclasses are reduced as they are."""
    torch = sys.modules.get("torch")
    return (torch.Tensor,) if torch is not None and hasattr(torch, "Tensor") else ()


def _reduce_tensor(torch: Any, tensor: Any, references: References, describe: Describe, note: Note) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        _note_what_is_dropped(tensor, note)
        if _is_plain(torch, tensor):
            return _reduce_plain(torch, tensor, references, describe)
        is_leaf = tensor.is_leaf
        left = (tensor.grad if is_leaf else None, is_leaf and tensor.requires_grad)
    own = tensor.__reduce_ex__(_PROTOCOL)
    return own if left == (None, False) or len(own) > 2 else (*own, left, None, None, set_leaf_state)


def _note_what_is_dropped(tensor: Any, note: Note) -> None:
    if tensor.grad_fn is not None:
        note(_GRAPH_DROPPED)
    if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        note(_HOOKS_DROPPED)


def _reduce_plain(torch: Any, tensor: Any, references: References, describe: Describe) -> Any:
    reference = _refer(tensor.untyped_storage(), references)
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
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
    """Whether *tensor* is strided memory, which is asked past the methods and properties of a subclass."""
    own = torch.Tensor
    return (
        _pickles_as_a_tensor(torch, type(tensor))
        and own.layout.__get__(tensor) is torch.strided
        and own.device.__get__(tensor).type in ("cpu", "cuda")
        and not own.is_quantized.__get__(tensor)
        and not own.is_conj(tensor)
        and not own.is_neg(tensor)
        and not own.is_nested.__get__(tensor)
        and type(own.untyped_storage(tensor)) is torch.UntypedStorage
    )


def _pickles_as_a_tensor(torch: Any, kind: type) -> bool:
    """Whether objects of *kind* are no more than a tensor and attributes: the class does not say how they pickle."""
    if kind in (torch.Tensor, torch.nn.Parameter):
        return True
    says = ("__reduce__", "__setstate__", "__getstate__", "__torch_dispatch__")
    return kind.__reduce_ex__ in (torch.Tensor.__reduce_ex__, torch.nn.Parameter.__reduce_ex__) and all(
        getattr(kind, name, None) is getattr(torch.Tensor, name, None) for name in says
    )


def _refer(storage: Any, references: References) -> Reference:
    device = str(storage.device)
    size_bytes = storage.nbytes() if device != "meta" else 0
    start = storage.data_ptr() if size_bytes else 0
    return references.refer(("torch", storage._cdata), "torch", start, size_bytes, storage, device)


def storage_reference(tensor: Any) -> Reference | None:
    """A reference to the memory of a plain tensor, by which it can be copied before it is pickled."""
    torch: Any = sys.modules["torch"]
    with torch._C.DisableTorchFunctionSubclass():
        return _refer(torch.Tensor.untyped_storage(tensor), References()) if _is_plain(torch, tensor) else None


def gradient(tensor: Any) -> Any:
    """The gradient of a leaf, past what a subclass makes of it; asking another tensor would warn."""
    torch: Any = sys.modules["torch"]
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.grad if tensor.is_leaf else None


def trained_by(optimizer: Any) -> list[Any]:
    """The parameters that an optimizer changes; of any other object none."""
    torch = sys.modules.get("torch")
    if torch is None or not issubclass(type(optimizer), torch.optim.Optimizer):
        return []
    return [each for each in _parameters(_attributes(torch.optim.Optimizer, optimizer)) if each.requires_grad]


def is_trained(variable: Any, tensor: Any) -> bool:
    """Whether training probably writes to a *tensor* that was found in *variable*, or this process alone can read it.

    A guess that costs time where it is wrong, never a byte, since a fork freezes what is not copied (but for what
    processes share, see `sharing`): a tensor that is a variable itself is mostly data, and a parameter without
    `requires_grad` is frozen.
    """
    torch: Any = sys.modules["torch"]
    with torch._C.DisableTorchFunctionSubclass():
        if torch.Tensor.device.__get__(tensor).type != "cpu":
            return True
        return variable is not tensor and (tensor.requires_grad or not issubclass(type(tensor), torch.nn.Parameter))


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
    if cls is not torch.Tensor:
        return torch.Tensor._make_subclass(cls, tensor, requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def set_tensor_state(tensor: Any, state: tuple[Any, dict[str, Any] | None]) -> None:
    """Give a rebuilt tensor its gradient and the attributes that user code hung on it."""
    import torch

    grad, attributes = state
    with torch._C.DisableTorchFunctionSubclass():
        tensor.grad = grad
        if attributes:
            tensor.__dict__.update(attributes)


def set_leaf_state(tensor: Any, state: tuple[Any, bool]) -> None:
    """Give a tensor that torch rebuilt what its reducer leaves out: the gradient, and that it wants one."""
    grad, requires_grad = state
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)
    if grad is not None:
        tensor.grad = grad


def _same(storage: Any) -> Any:
    return storage


def _typed_storage(storage: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, tensor) for the tensors of a value that have an obvious path.

    Modules by their own names (`model.fc1.weight`), optimizers by the numbers of `state_dict`
    (`opt.state.0.exp_avg`), plain containers by key, three levels deep.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return
    for count, found in enumerate(_walk(torch, name, value, 0)):
        if count >= MAX_NAMED:
            return
        yield found


def _walk(torch: Any, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if issubclass(kind, torch.Tensor):
        yield name, value
    elif issubclass(kind, torch.nn.Module):
        yield from _walk_module(torch, name, value, set())
    elif issubclass(kind, torch.optim.Optimizer):
        yield from _walk_optimizer(torch, name, value)
    elif depth < MAX_DEPTH:
        for key, item in items(value):
            yield from _walk(torch, f"{name}.{key}", item, depth + 1)


def _walk_module(torch: Any, name: str, module: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What `named_parameters` and `named_buffers` say, each module once, whatever a class makes of either."""
    if id(module) in seen:
        return
    seen.add(id(module))
    held = _attributes(torch.nn.Module, module)
    for key, item in (*items(held.get("_parameters")), *items(held.get("_buffers"))):
        if issubclass(type(item), torch.Tensor):
            yield f"{name}.{key}", item
    for key, item in items(held.get("_modules")):
        if issubclass(type(item), torch.nn.Module):
            yield from _walk_module(torch, f"{name}.{key}", item, seen)


def _walk_optimizer(torch: Any, name: str, optimizer: Any) -> Iterator[tuple[str, Any]]:
    held = _attributes(torch.optim.Optimizer, optimizer)
    numbers = {id(parameter): number for number, parameter in enumerate(_parameters(held))}
    for parameter, state in _pairs(held.get("state")):
        for key, item in items(state) if id(parameter) in numbers else ():
            if issubclass(type(item), torch.Tensor):
                yield f"{name}.state.{numbers[id(parameter)]}.{key}", item


def _parameters(held: dict[str, Any]) -> list[Any]:
    """The parameters of an optimizer that has the attributes *held*, as `state_dict` counts them."""
    groups = [dict(items(group)) for _, group in items(held.get("param_groups"))]
    return [parameter for group in groups for _, parameter in items(group.get("params"))]


def _attributes(base: Any, value: Any) -> dict[str, Any]:
    """What an object of a subclass of *base* holds, past what the subclass says that it holds."""
    attributes: dict[str, Any] = vars(base)["__dict__"].__get__(value)
    return attributes


def items(value: Any, most: int = MAX_NAMED) -> list[tuple[Any, Any]]:
    """What a plain container holds, by key or number; nothing of any other object, or of one with more than *most*."""
    if (type(value) is list or type(value) is tuple) and len(value) <= most:
        return list(enumerate(value))
    return [(key, item) for key, item in _pairs(value, most) if type(key) is str or type(key) is int]


def _pairs(value: Any, most: int = MAX_NAMED) -> list[tuple[Any, Any]]:
    """The items of a dictionary, past the methods of a subclass."""
    return list(dict.items(value)) if issubclass(type(value), dict) and dict.__len__(value) <= most else []
