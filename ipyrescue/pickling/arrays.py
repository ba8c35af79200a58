"""NumPy arrays: out of a stream as references to their memory, back as arrays on placed memory.

Arrays of types without objects are taken apart here, also those of subclasses that do not say how they pickle; views
keep sharing memory with their base and with tensors over the same memory. A view of an array of objects goes by that
array; a memory map by reference to its file, as long as that is there. Every other array pickles by its own reducer.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ipyrescue.addresses import address_of
from ipyrescue.pickling.buffers import Reference, References
from ipyrescue.pickling.tensors import MAX_DEPTH, MAX_NAMED, items

Describe = Callable[[Any, Reference], None]
Note = Callable[[str], None]
Reduced = tuple[Any, ...]

_MOST_LOOKED_AT = 1000
_BY_FILE = "By reference to its file, whose content is not in the snapshot"
_SEPARATED = "Values kept, separate from the bytearray (or other buffer) whose memory it used"


def reducers(references: References, describe: Describe, note: Note) -> dict[type, Callable[[Any], Any]]:
    """Reducers by type for what NumPy defines, `ndarray` for its subclasses too; empty while NumPy is not loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):
        return {}

    def reduce_array(array: Any) -> Any:
        if type(array) is numpy.ndarray:
            if array.dtype.hasobject:
                return _reduce_view_of_objects(numpy, array)
            return _reduce(numpy, array, references, describe, note)
        return _reduce_subclass(numpy, array, references, note)

    return {numpy.ndarray: reduce_array}


def named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, array) for an array, and for those in plain containers, three levels deep.

    No code of an object runs.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        yield from islice(_walk(numpy.ndarray, name, value, 0), MAX_NAMED)


def _walk(ndarray: type, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if kind is ndarray:
        yield name, value
    elif depth < MAX_DEPTH and (kind is dict or kind is list or kind is tuple):  # not `in`: a metaclass may compare
        for key, item in items(value):
            yield from _walk(ndarray, f"{name}.{key}", item, depth + 1)


def borrowed_references(value: Any) -> Iterator[Reference]:
    """References to memory that arrays have of others, by which it can be copied before they are pickled.

    Looks at a variable that is an array, or a small container of them.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):
        return
    for array in (value, *(item for _, item in items(value, _MOST_LOOKED_AT))):
        if type(array) is numpy.ndarray and not array.dtype.hasobject and _root(numpy, array).base is not None:
            yield _place(numpy, array, References(), _unsaid)[0]


def _unsaid(sentence: str) -> None:
    """What is noted of an array is told when it is pickled."""


def kinds() -> tuple[type, ...]:
    """The types whose subclasses are reduced as they are."""
    numpy = sys.modules.get("numpy")
    return (numpy.ndarray,) if numpy is not None and hasattr(numpy, "ndarray") else ()


def _reduce(numpy: Any, array: Any, references: References, describe: Describe, note: Note) -> Reduced:
    reference, place = _place(numpy, array, references, note)
    describe(array, reference)
    return rebuild_array, (reference, *place)


def _reduce_view_of_objects(numpy: Any, array: Any) -> Any:
    """Objects are no memory to copy: their array pickles by itself, and what views it says where in it it lies."""
    root = _root(numpy, array)
    contiguous = root.flags.c_contiguous or root.flags.f_contiguous
    if root is array or type(root) is not numpy.ndarray or root.dtype != array.dtype or not contiguous:
        return NotImplemented
    offset = _address(array) - _address(root) if array.size else 0
    return view_objects, (root, array.dtype, array.shape, array.strides, offset, array.flags.writeable)


def view_objects(
    root: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    """View an array of objects; *strides* and *offset* count bytes of its memory. NumPy refuses what lies outside."""
    import numpy as np

    if shape and 0 not in shape and root.size == 0:
        raise ValueError("an array of objects holds a view of itself")
    return _over(np.ndarray, root.ravel(order="K"), dtype, shape, strides, offset, writeable)


def _place(numpy: Any, array: Any, references: References, note: Note) -> tuple[Reference, Reduced]:
    """The memory of an array, and how the array lies in it."""
    root = _root(numpy, array)
    if _borrows(root):
        note(_SEPARATED)
    start, end = _byte_bounds(numpy)(root)
    reference = references.refer(("numpy", start, end), "numpy", start, end - start, root)
    offset = _address(array) - start if array.size else 0
    return reference, (array.dtype, array.shape, array.strides, offset, array.flags.writeable)


def _root(numpy: Any, array: Any) -> Any:
    """The array that spans all memory that *array* is a view of; of a file that is mapped, only what is viewed."""
    while isinstance(array.base, numpy.ndarray) and not isinstance(array.base, numpy.memmap):
        array = array.base
    return array


def _borrows(root: Any) -> bool:
    """Whether memory belongs to a writable object of Python, which pickles by itself."""
    owner = root.base.obj if type(root.base) is memoryview else root.base
    return type(owner) is bytearray or type(owner).__module__ == "array"


def _byte_bounds(numpy: Any) -> Callable[[Any], tuple[int, int]]:
    lib = numpy.lib
    bounds: Callable[[Any], tuple[int, int]] = (
        lib.array_utils.byte_bounds if hasattr(lib, "array_utils") else numpy.byte_bounds
    )
    return bounds


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def rebuild_array(
    memory: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    """Make an array over *memory*; *strides* and *offset* count bytes."""
    import numpy as np

    return _over(np.ndarray, memory, dtype, shape, strides, offset, writeable)


def _over(
    cls: type, memory: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    import numpy as np

    array: Any = np.ndarray.__new__(
        cls, shape, dtype, buffer=memory if memory.size else None, offset=offset, strides=strides
    )
    array.flags.writeable = writeable
    return array


# --- subclasses -------------------------------------------------------------------------------------------------


def _reduce_subclass(numpy: Any, array: Any, references: References, note: Note) -> Any:
    if type(array) is numpy.ma.MaskedArray:
        return _reduce_masked(numpy, array)
    if array.dtype.hasobject or not _pickles_as_an_array(numpy, type(array)):
        return NotImplemented
    if isinstance(array, numpy.memmap):
        span = _span_in_file(numpy, array)
        if span is not None:
            note(_BY_FILE)
            return rebuild_mapped, (*span, array.dtype, array.shape, array.strides, array.mode, array.offset)
    reference, place = _place(numpy, array, references, note)
    attributes = {name: value for name, value in vars(array).items() if name != "_mmap"}
    return rebuild_of, (type(array), reference, *place), attributes or None, None, None, set_attributes


def _pickles_as_an_array(numpy: Any, kind: type) -> bool:
    """Whether objects of *kind* are no more than an array and attributes: the class does not say how they pickle."""
    says = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__")
    return all(getattr(kind, name, None) is getattr(numpy.ndarray, name, None) for name in says)


def rebuild_of(
    cls: type, memory: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    """Make an array of a subclass over *memory*, as unpickling does: without its `__new__`."""
    return _over(cls, memory, dtype, shape, strides, offset, writeable)


def set_attributes(array: Any, attributes: dict[str, Any]) -> None:
    """Give an array the attributes that user code hung on it."""
    vars(array).update(attributes)


def _reduce_masked(numpy: Any, array: Any) -> Reduced:
    """Take a masked array apart into data and mask, which may have names of their own."""
    state = (array._mask, array._fill_value, array.hardmask, array._sharedmask, array._optinfo, array._basedict)
    return rebuild_masked, (array.view(numpy.ndarray), *state)


def rebuild_masked(
    data: Any, mask: Any, fill_value: Any, hard: bool, shared: bool, optional: dict[str, Any], basic: dict[str, Any]
) -> Any:
    """Put a mask over data."""
    import numpy as np

    array = data.view(np.ma.MaskedArray)
    array._mask, array._fill_value, array._hardmask, array._sharedmask = mask, fill_value, hard, shared
    array._optinfo, array._basedict = optional, basic
    return array


# --- memory maps ------------------------------------------------------------------------------------------------


def _span_in_file(numpy: Any, array: Any) -> tuple[str, int, int, int] | None:
    """File, where the map begins in it, its size, and where in the map *array* begins; None where values must do."""
    mapped = array._mmap
    if mapped is None or mapped.closed or array.filename is None or array.mode == "c":
        return None
    path, size_bytes = str(array.filename), len(mapped)
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    if not os.path.isfile(path) or os.path.getsize(path) < begin + size_bytes:
        return None
    return path, begin, size_bytes, _address(array) - address_of(memoryview(mapped)) if array.size else 0


def rebuild_mapped(
    path: str,
    begin: int,
    size_bytes: int,
    at: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    mode: str,
    offset: int,
) -> Any:
    """Map a file again, never truncating it: what was made by `w+` is read and written now."""
    import numpy as np

    home: Any = np.memmap(path, np.uint8, "r" if mode == "r" else "r+", begin, (size_bytes,))
    array: Any = np.ndarray.__new__(np.memmap, shape, dtype, buffer=home, offset=at, strides=strides)
    array._mmap, array.filename, array.mode, array.offset = home._mmap, home.filename, mode, offset
    return array
