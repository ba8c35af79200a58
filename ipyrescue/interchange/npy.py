r"""Tensors to .npy files, and to the zip of them that is a .npz.

The format (numpy.lib.format, version 1.0): the magic `\x93NUMPY`, two bytes of version, the length of the header as
two bytes little-endian, and the header: a literal of Python's with `descr`, `fortran_order` and `shape`, padded by
spaces and ended by a newline so that the data begin at a multiple of 64. A longer header is of version 2.0, and its
length takes four bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

from ipyrescue.errors import StoreError
from ipyrescue.interchange import dtypes
from ipyrescue.interchange.plain import Plain

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_MOST_OF_VERSION_1 = 0xFFFF


def misfit(plain: Plain) -> str | None:
    """Why *plain* cannot stand in a .npy file as what it is; None if it can."""
    return f"NumPy has no type {plain.dtype}" if dtypes.descr(plain.dtype) is None else None


def header(plain: Plain, dtype: str | None = None) -> bytes:
    """The header for *plain*, whose elements are said to be of *dtype*. Raises StoreError where NumPy has none."""
    described = dtypes.descr(dtype or plain.dtype)
    if described is None:
        raise StoreError(
            f"Nothing was exported: NumPy has no type for {plain.name} ({plain.dtype}). Name the others, or use "
            "-o FILE.safetensors or -o DIR."
        )
    literal = repr({"descr": described, "fortran_order": False, "shape": plain.shape}).encode("latin-1")
    version, length_bytes = (b"\x01\x00", 2) if len(literal) + _ALIGNMENT < _MOST_OF_VERSION_1 else (b"\x02\x00", 4)
    before = len(_MAGIC) + len(version) + length_bytes
    text = literal + b" " * (-(before + len(literal) + 1) % _ALIGNMENT) + b"\n"
    return _MAGIC + version + len(text).to_bytes(length_bytes, "little") + text


def write(
    file: BinaryIO, tensors: Sequence[tuple[str, Plain]], read: Callable[[Plain], bytearray], about: dict[str, str]
) -> None:
    """Write a .npz: each tensor as `KEY.npy`, stored as it is. *about* becomes the archive's comment."""
    headers = [header(plain) for _, plain in tensors]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.comment = "; ".join(f"{key}: {value}" for key, value in about.items()).encode()[:0xFFFF]
        for (key, plain), head in zip(tensors, headers, strict=True):
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as entry:
                entry.write(head)
                entry.write(read(plain))
