"""A tensor or array as a manifest describes it to a live one over verified memory. Unpickles nothing, believes nothing.

Types are those of a list; whatever shape, strides and offset say, every element lies within the storage.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ipyrescue.errors import CorruptError
from ipyrescue.manifest import Storage, Tensor

_MOST_AXES = 32
_MOST_ELEMENTS = 1 << 60
_OF_TORCH = re.compile(
    r"bool|u?int(8|16|32|64)|b?float16|float(32|64)|complex(32|64|128)|float8_(e4m3fn|e5m2|e4m3fnuz|e5m2fnuz|e8m0fnu)"
)
_OF_NUMPY = re.compile(
    r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|[<>][iufc](2|4|8|16)|[<>]U[0-9]{1,6}|\|?S[0-9]{1,6}"
    r"|[<>]?(datetime|timedelta)64(\[[0-9]{0,4}[A-Za-z]{1,2}\])?|[<>][mM]8(\[[0-9]{0,4}[A-Za-z]{1,2}\])?"
)


def over(memory: Any, tensor: Tensor, storage: Storage) -> Any:
    """Make the tensor or array over the placed *memory* of its storage. Raises CorruptError, ImportError."""
    make = {"torch": _tensor, "numpy": _array}.get(storage.kind)
    try:
        if make is not None:
            return make(memory, tensor, storage)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:  # what torch and NumPy find beyond us
        raise CorruptError(f"The manifest describes {tensor.name[:40]!r} as no tensor can be.") from error
    raise CorruptError(f"The manifest places {tensor.name[:40]!r} in memory that is neither torch's nor NumPy's.")


def _tensor(memory: Any, tensor: Tensor, storage: Storage) -> Any:
    import torch

    dtype = getattr(torch, tensor.dtype, None) if _OF_TORCH.fullmatch(tensor.dtype) else None
    if not isinstance(dtype, torch.dtype):
        raise CorruptError(f"torch has no elements of type {tensor.dtype[:40]!r} here.")
    _check(tensor, storage, dtype.itemsize, dtype.itemsize)
    empty = torch.empty(0, dtype=dtype)
    return (
        empty.set_(memory, tensor.offset, tensor.shape, tensor.stride)
        if math.prod(tensor.shape)
        else empty.reshape(tensor.shape)
    )


def _array(memory: Any, tensor: Tensor, storage: Storage) -> Any:
    import numpy as np

    if not _OF_NUMPY.fullmatch(tensor.dtype):
        raise CorruptError(f"Elements of type {tensor.dtype[:40]!r} are not plain numbers, texts or times.")
    try:
        dtype = np.dtype(tensor.dtype)
    except (TypeError, ValueError) as error:
        raise CorruptError(f"NumPy has no elements of type {tensor.dtype!r}.") from error
    _check(tensor, storage, dtype.itemsize, 1)
    if not math.prod(tensor.shape) or not dtype.itemsize:
        return np.empty(tensor.shape, dtype)
    return np.ndarray(tensor.shape, dtype, buffer=memory, offset=tensor.offset, strides=tensor.stride)


def _check(tensor: Tensor, storage: Storage, item_bytes: int, unit_bytes: int) -> None:
    """Raises CorruptError where an element would lie outside, with strides and offset in units of so many bytes."""
    shape, stride = tensor.shape, tensor.stride
    good = len(shape) == len(stride) <= _MOST_AXES and all(length >= 0 for length in shape)
    good = good and math.prod(max(1, length) for length in shape) < _MOST_ELEMENTS and tensor.offset >= 0
    if good and 0 not in shape:
        reach = [(length - 1) * step * unit_bytes for length, step in zip(shape, stride, strict=True)]
        first = tensor.offset * unit_bytes + sum(min(0, step) for step in reach)
        last = tensor.offset * unit_bytes + sum(max(0, step) for step in reach) + item_bytes
        good = 0 <= first and last <= storage.size_bytes and (unit_bytes == 1 or min(stride, default=0) >= 0)
    if not good or (unit_bytes > 1 and storage.offset % unit_bytes):
        raise CorruptError(f"The manifest places elements of {tensor.name[:40]!r} outside of their bytes.")
