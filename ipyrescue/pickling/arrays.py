"""NumPy arrays: out of a stream as references to their memory, back as arrays on placed memory.

Only exact arrays of types without objects are taken apart here; views keep sharing memory with their base and
with tensors over the same memory. Every other array pickles by its own reducer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ipyrescue.pickling.buffers import Reference, References

Describe = Callable[[Any, Reference], None]


def reducers(references: References, describe: Describe) -> dict[type, Callable[[Any], Any]]:
    """Reducers by exact type for what NumPy defines; empty while NumPy is not loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):
        return {}

    def reduce_array(array: Any) -> Any:
        if array.dtype.hasobject:
            return NotImplemented
        root = _root(numpy, array)
        start, end = _byte_bounds(numpy)(root)
        reference = references.refer(("numpy", start, end), "numpy", start, end - start, root)
        describe(array, reference)
        offset = array.__array_interface__["data"][0] - start if array.size else 0
        return rebuild_array, (reference, array.dtype, array.shape, array.strides, offset, array.flags.writeable)

    return {numpy.ndarray: reduce_array}


def _root(numpy: Any, array: Any) -> Any:
    """The array that spans all memory that *array* is a view of; of a file that is mapped, only what is viewed."""
    while isinstance(array.base, numpy.ndarray) and not isinstance(array.base, numpy.memmap):
        array = array.base
    return array


def _byte_bounds(numpy: Any) -> Callable[[Any], tuple[int, int]]:
    lib = numpy.lib
    bounds: Callable[[Any], tuple[int, int]] = (
        lib.array_utils.byte_bounds if hasattr(lib, "array_utils") else numpy.byte_bounds
    )
    return bounds


def rebuild_array(
    memory: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    """Make an array over *memory*; *strides* and *offset* count bytes."""
    import numpy as np

    array: Any = np.ndarray(shape, dtype, buffer=memory if memory.size else None, offset=offset, strides=strides)
    array.flags.writeable = writeable
    return array
