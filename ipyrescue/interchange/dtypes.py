"""A dtype as torch or NumPy spells it to what other formats call it. Pure.

`descr` follows numpy.lib.format (the .npy format, version 1.0), `safetensors` the list in that format's README.
"""

from __future__ import annotations

import ast
import re
import sys
from typing import Any

from ipyrescue.errors import StoreError

_NATIVE = "<" if sys.byteorder == "little" else ">"
_PLAIN = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1",
    **{f"{name}{8 * size}": f"{_NATIVE}{name[0]}{size}" for name in ("int", "uint") for size in (2, 4, 8)},
    **{f"float{8 * size}": f"{_NATIVE}f{size}" for size in (2, 4, 8, 16)},
    **{f"complex{8 * size}": f"{_NATIVE}c{size}" for size in (8, 16, 32)},
}  # fmt: skip
_OF_TORCH_ALONE = {
    "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1, "complex32": 4,
}  # fmt: skip
_SAFETENSORS = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_TYPE = re.compile(r"[<>|=]?([biufcSUVmM])([0-9]{1,9})(?:\[[0-9A-Za-z]+\])?")
_LONGEST_FIELDS = 1 << 20
_TIME = re.compile(r"([<>=]?)(datetime|timedelta)64(\[[0-9A-Za-z]+\])?|([<>=]?)([mM])8(\[[0-9A-Za-z]+\])?")


def safetensors(dtype: str) -> str | None:
    """What safetensors calls it; None for what it does not know."""
    return _SAFETENSORS.get(dtype)


def descr(dtype: str) -> Any:
    """What a .npy file says for it: text, or a list of fields; None for what NumPy itself does not know."""
    if dtype in _PLAIN:
        return _PLAIN[dtype]
    time = _TIME.fullmatch(dtype)
    if time:
        kind = time[5] or ("M" if time[2] == "datetime" else "m")
        return f"{time[1] or time[4] or _NATIVE}{kind}8{time[3] or time[6] or ''}"
    if _TYPE.fullmatch(dtype):
        return dtype
    return _fields(dtype)


def stand_in(dtype: str) -> str | None:
    """The unsigned integers of the same size, for a dtype that only torch knows; None for every other."""
    size = _OF_TORCH_ALONE.get(dtype)
    return {1: "uint8", 2: "uint16", 4: "uint32"}[size] if size else None


def item_bytes(dtype: str) -> int:
    """The size of one element. Raises StoreError for a dtype that is not known."""
    if dtype in _OF_TORCH_ALONE:
        return _OF_TORCH_ALONE[dtype]
    described = descr(dtype)
    if described is None:
        raise StoreError(f"Elements of type {dtype} are not plain numbers; -o FILE.pt may take them by unpickling.")
    return _size(described)


def _fields(dtype: str) -> Any:
    """The fields of a structured dtype, where it has no gaps: NumPy then spells it as a list."""
    try:
        fields = ast.literal_eval(dtype) if len(dtype) < _LONGEST_FIELDS else None
        _size(fields)
    except (ValueError, SyntaxError, TypeError, IndexError, RecursionError, MemoryError, AttributeError):
        return None
    return fields if type(fields) is list else None


def _size(described: Any) -> int:
    """Raises ValueError, TypeError, IndexError for what is no description."""
    if type(described) is list:
        return sum(_size(field[1]) * _count(field[2] if len(field) > 2 else ()) for field in described)
    if described == "?":  # how NumPy spells bool in a field
        return 1
    match = _TYPE.fullmatch(described)
    if match is None:
        raise ValueError(described)
    return int(match[2]) * (4 if match[1] == "U" else 1)


def _count(shape: Any) -> int:
    count = 1
    for length in shape if type(shape) is tuple else (shape,):
        if type(length) is not int or length < 0:
            raise ValueError(shape)
        count *= length
    return count
