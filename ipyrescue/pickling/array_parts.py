"""Tensors and arrays to what can be compared of them: dtype, layout, and the memory on which they lie.

Devices are compared but for CUDA, which counts as the CPU: where a tensor was stands in the manifest, and a comparison
must not need the room of a second model on the GPU. NumPy and torch are never imported.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_HASHED_AT_ONCE_BYTES = 64 << 20


@dataclass(frozen=True)
class Memory:
    """A range of memory: the device that has it, its first address there and its size.

    *owner* keeps it alive. Where it *holds_addresses*, only who shares it counts.
    """

    device: str
    start: int
    size_bytes: int
    owner: Any = field(repr=False)
    holds_addresses: bool = False

    @property
    def where(self) -> tuple[str, int, int]:
        """What tells ranges apart."""
        return self.device, self.start, self.size_bytes

    def digest(self) -> bytes:
        """A hash of every byte, read a piece at a time."""
        found = hashlib.blake2b(digest_size=16)
        for at in range(0, 0 if self.holds_addresses else self.size_bytes, _HASHED_AT_ONCE_BYTES):
            size_bytes = min(_HASHED_AT_ONCE_BYTES, self.size_bytes - at)
            if self.device == "cpu":
                found.update(_bytes_at(self.start + at, size_bytes))
            else:
                piece = self.owner[at : at + size_bytes].cpu()
                found.update(_bytes_at(piece.data_ptr(), size_bytes))
        return found.digest()


def _bytes_at(address: int, size_bytes: int) -> memoryview:
    return memoryview((ctypes.c_char * size_bytes).from_address(address))


@dataclass(frozen=True)
class Layout:
    """How an array lies on its memory, in words; *others* are its further parts by name."""

    words: str
    content: bytes = b""
    memory: Memory | None = None
    others: tuple[tuple[str, Any], ...] = ()


# --- arrays -----------------------------------------------------------------------------------------------------


def array_layout(numpy: Any, array: Any) -> Layout:
    """How a NumPy array lies; the items of an array of objects are parts of it."""
    dtype, shape = array.dtype, array.shape
    words = f"{dtype} {shape}"
    if dtype.hasobject:
        plain = numpy.ndarray.view(array, numpy.ndarray)
        items = list(plain.ravel("C")) if dtype.names is None else plain.tolist()
        return Layout(words, memory=_shared_only(numpy, array), others=(("items", items),))
    memory, offset = _array_memory(numpy, array)
    facts = (dtype.str, dtype.descr if dtype.names else "", array.strides, offset, array.flags.writeable)
    return Layout(words, repr(facts).encode(), memory)


def _shared_only(numpy: Any, array: Any) -> Memory | None:
    """The memory of an array of objects, whose bytes are addresses."""
    start, end = _bounds(numpy)(array)
    return Memory("cpu", start, end - start, array, holds_addresses=True) if array.size else None


def _bounds(numpy: Any) -> Callable[[Any], tuple[int, int]]:
    lib = numpy.lib
    bounds: Callable[[Any], tuple[int, int]] = (
        lib.array_utils.byte_bounds if hasattr(lib, "array_utils") else numpy.byte_bounds
    )
    return bounds


def _array_memory(numpy: Any, array: Any) -> tuple[Memory | None, int]:
    if not array.size:
        return None, 0
    root = array
    while isinstance(root.base, numpy.ndarray) and not isinstance(root.base, numpy.memmap):
        root = root.base
    start, end = _bounds(numpy)(root)
    return Memory("cpu", start, end - start, root), array.__array_interface__["data"][0] - start


# --- tensors ----------------------------------------------------------------------------------------------------


def tensor_layout(torch: Any, tensor: Any) -> Layout:
    """How a tensor lies, whatever its layout; its gradient is a part of it, its graph is not."""
    with torch._C.DisableTorchFunctionSubclass():
        if torch.nn.parameter.is_lazy(tensor):
            return Layout("without a shape yet", repr((str(tensor.dtype), tensor.requires_grad)).encode())
        is_leaf = tensor.is_leaf
        words = f"{str(tensor.dtype).removeprefix('torch.')} {_shape(tensor)}"
        facts = [str(tensor.layout), _device(tensor), is_leaf and tensor.requires_grad]
        grad = (("grad", tensor.grad),) if is_leaf and tensor.grad is not None else ()
        try:
            found = _layout_of(torch, tensor)
        except (RuntimeError, NotImplementedError):
            # A wrapper: its tensors are its attributes.
            found = Layout("")
    content = repr(facts).encode() + found.content
    return Layout(f"{words} {found.words}".rstrip(), content, found.memory, (*grad, *found.others))


def _shape(tensor: Any) -> Any:
    return "nested" if tensor.is_nested else tuple(tensor.shape)


def _device(tensor: Any) -> str:
    kind: str = tensor.device.type
    return "cpu" if kind == "cuda" else kind


def _layout_of(torch: Any, tensor: Any) -> Layout:
    if tensor.is_nested:
        return Layout("nested", others=tuple((str(i), part) for i, part in enumerate(tensor.detach().unbind())))
    others = _PARTS_OF_SPARSE.get(str(tensor.layout))
    if others is not None:
        return Layout("", others=tuple((name, getattr(tensor.detach(), name)()) for name in others))
    if tensor.is_quantized:
        return Layout(f"{tensor.qscheme()}", others=(("values", tensor.int_repr()), ("scale", _scale(torch, tensor))))
    facts = (tensor.stride(), tensor.storage_offset(), tensor.is_conj(), tensor.is_neg())
    storage = tensor.untyped_storage()
    memory = None if tensor.device.type == "meta" else storage_memory(torch, storage)
    return Layout("", repr(facts).encode(), memory)


_PARTS_OF_SPARSE: dict[str, tuple[str, ...]] = {
    "torch.sparse_coo": ("_indices", "_values", "is_coalesced"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}


def _scale(torch: Any, tensor: Any) -> tuple[Any, ...]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return tensor.q_scale(), tensor.q_zero_point()
    axis = tensor.q_per_channel_axis()
    return tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), axis


def storage_memory(torch: Any, storage: Any) -> Memory | None:
    """The memory of a torch storage; None where it has none that can be read."""
    size_bytes = storage.nbytes()
    if not size_bytes or storage.device.type == "meta":
        return None
    device = str(storage.device)
    owner = storage if device == "cpu" else torch.empty(0, dtype=torch.uint8, device=device).set_(storage)
    return Memory(device, storage.data_ptr(), size_bytes, owner)


# --- what else torch and NumPy have -----------------------------------------------------------------------------


def known(value: Any) -> Layout | None:
    """The layout of what torch or NumPy made, or None for anything else."""
    kind = type(value)
    for library, look in _LOOK.items():
        module = sys.modules.get(library)
        if module is not None:
            found = look(module, kind, value)
            if found is not None:
                return found
    return None


def _of_numpy(numpy: Any, kind: type, value: Any) -> Layout | None:
    if not hasattr(numpy, "ndarray"):
        return None
    if issubclass(kind, numpy.ndarray):
        return array_layout(numpy, value)
    if issubclass(kind, numpy.dtype):
        return Layout(f"{value!r}", repr(value.metadata).encode())
    if issubclass(kind, numpy.generic) and not issubclass(kind, numpy.object_):
        return Layout(f"{value.dtype}", value.tobytes())
    return None


def _of_torch(torch: Any, kind: type, value: Any) -> Layout | None:
    if not hasattr(torch, "UntypedStorage"):
        return None
    if issubclass(kind, torch.Tensor):
        return tensor_layout(torch, value)
    if kind is torch.UntypedStorage:
        return Layout(f"of {value.nbytes()} bytes", memory=storage_memory(torch, value))
    if issubclass(kind, torch.storage.TypedStorage):
        return Layout(f"{value.dtype}", memory=storage_memory(torch, value._untyped_storage))
    if kind in (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.qscheme, torch.finfo, torch.iinfo):
        return Layout(f"{value!r}")
    if kind is torch.SymInt:
        return Layout("of a nested tensor")
    if kind is torch.Generator:
        return Layout(str(value.device), others=(("state", value.get_state()),))
    return None


_LOOK: dict[str, Callable[[Any, type, Any], Layout | None]] = {"numpy": _of_numpy, "torch": _of_torch}
