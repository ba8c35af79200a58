"""Tensors to a .safetensors file, one at a time.

The format (https://github.com/huggingface/safetensors, README "Format"): 8 bytes little-endian, the length N of the
header; N bytes of JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}}` with an optional `__metadata__` of
texts, padded by spaces to a multiple of 8; then the tensors back to back, in C order and little-endian. Offsets count
from the end of the header, without a gap; the largest elements come first, so that all are aligned.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO

from ipyrescue.errors import StoreError
from ipyrescue.interchange import dtypes
from ipyrescue.interchange.plain import Plain


def misfit(plain: Plain) -> str | None:
    """Why *plain* cannot stand in such a file; None if it can."""
    return f"safetensors has no type {plain.dtype}" if dtypes.safetensors(plain.dtype) is None else None


def write(
    file: BinaryIO, tensors: Sequence[tuple[str, Plain]], read: Callable[[Plain], bytearray], about: dict[str, str]
) -> None:
    """Write *tensors* under their keys; *read* brings the bytes of one. Raises StoreError, OSError."""
    if sys.byteorder != "little":
        raise StoreError("A safetensors file is little-endian, this machine is not.")
    header: dict[str, object] = {"__metadata__": about}
    ordered = sorted(tensors, key=lambda pair: (-pair[1].item_bytes, pair[0]))
    end = 0
    for key, plain in ordered:
        begin, end = end, end + plain.size_bytes
        header[key] = {"dtype": _dtype(plain), "shape": list(plain.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, plain in ordered:
        file.write(read(plain))


def _dtype(plain: Plain) -> str:
    known = dtypes.safetensors(plain.dtype)
    if known is None:
        raise StoreError(
            f"Nothing was exported: safetensors has no type for {plain.name} ({plain.dtype}). Name the others, or use "
            "-o FILE.npz or -o DIR."
        )
    return known
