"""A value to one text that two processes can compare: types, dtypes, layouts and every byte of memory.

It knows what the cases hold, and for the rest goes by attributes. Addresses never enter.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import struct
import sys
import types
from typing import Any


def digest(value: Any) -> str:
    """A short text that is the same for the same value, down to NaN payloads and strides."""
    text = describe(value, {})
    return text if len(text) < 200 else f"{text[:160]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def describe(value: Any, seen: dict[int, int]) -> str:
    """The long form; *seen* numbers what was met before, so that identity and cycles count."""
    kind = type(value)
    if kind is float:
        return struct.pack("<d", value).hex()
    if kind is complex:
        return struct.pack("<dd", value.real, value.imag).hex()
    if value is None or kind in (bool, int, str, bytes, range, slice):
        return repr(value)
    if id(value) in seen:
        return f"#{seen[id(value)]}"
    seen[id(value)] = len(seen)
    _kept_alive.append(value)
    return f"{kind.__module__}.{kind.__qualname__}({_body(value, kind, seen)})"


_kept_alive: list[Any] = []


def _body(value: Any, kind: type, seen: dict[int, int]) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{describe(k, seen)}: {describe(v, seen)}" for k, v in value.items())
        return pairs + _attributes(value, seen)
    if isinstance(value, (list, tuple)):
        return ", ".join(describe(item, seen) for item in value) + _attributes(value, seen)
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(describe(item, {}) for item in value))
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} {value.__code__.co_code.hex()} {describe(value.__defaults__, seen)}"
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, pathlib.PurePath):
        return str(value)  # its attributes are what it has worked out so far
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value).hex()
    return _library(value, kind, seen)


def _library(value: Any, kind: type, seen: dict[int, int]) -> str:
    torch, numpy, pandas = (sys.modules.get(name) for name in ("torch", "numpy", "pandas"))
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor(torch, value, seen)
    if torch is not None and isinstance(value, torch.nn.Module):
        return f"{value.training} {describe(dict(value.state_dict()), seen)}"
    if torch is not None and isinstance(value, (torch.dtype, torch.device, torch.layout, torch.Size)):
        return repr(value)
    if torch is not None and isinstance(value, torch.Generator):
        return f"{value.device} {bytes(value.get_state().numpy()).hex()}"
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array(numpy, value, seen)
    if numpy is not None and isinstance(value, numpy.generic):
        return f"{value.dtype} {value.tobytes().hex()}"
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return describe(value.bit_generator.state, seen)
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index)):
        return _frame(pandas, value, seen)
    if kind.__module__.startswith("pyarrow") and hasattr(value, "to_pylist"):
        return f"{getattr(value, 'schema', getattr(value, 'type', ''))} {describe(value.to_pylist(), {})}"
    return _attributes(value, seen) or _text(value)


def _tensor(torch: Any, t: Any, seen: dict[int, int]) -> str:
    if t.is_nested:
        return f"{t.dtype} {t.layout} {[describe(p, {}) for p in t.detach().unbind()]}"
    facts = [t.dtype, tuple(t.shape), t.layout, t.device, t.requires_grad, t.is_leaf]
    if t.grad is not None:
        facts.append(describe(t.grad, seen))
    if t.layout in (torch.sparse_coo,):
        return f"{facts} {t.is_coalesced()} {describe(t._indices(), {})} {describe(t._values(), {})}"
    if t.layout in (torch.sparse_csr, torch.sparse_bsr):
        return f"{facts} {[describe(p, {}) for p in (t.crow_indices(), t.col_indices(), t.values())]}"
    if t.layout in (torch.sparse_csc, torch.sparse_bsc):
        return f"{facts} {[describe(p, {}) for p in (t.ccol_indices(), t.row_indices(), t.values())]}"
    facts += [t.stride(), t.storage_offset(), t.is_conj(), t.is_neg()]
    if t.device.type == "meta":
        return str(facts)
    if t.is_quantized:
        return f"{facts} {t.qscheme()} {_scale(torch, t)} {bytes(t.int_repr().contiguous().flatten().numpy()).hex()}"
    plain = t.detach().resolve_conj().resolve_neg().contiguous().flatten()
    bits = plain.view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8)
    return f"{facts} {bytes(bits.as_subclass(torch.Tensor).numpy()).hex()}"


def _scale(torch: Any, t: Any) -> str:
    if t.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f"{t.q_scale()} {t.q_zero_point()}"
    return f"{t.q_per_channel_scales().tolist()} {t.q_per_channel_zero_points().tolist()} {t.q_per_channel_axis()}"


def _array(numpy: Any, a: Any, seen: dict[int, int]) -> str:
    facts = [numpy.lib.format.dtype_to_descr(a.dtype), str(a.dtype), a.shape, a.strides, a.flags.writeable]
    if isinstance(a, numpy.ma.MaskedArray):
        return f"{facts} {describe(a.data, {})} {describe(numpy.ma.getmaskarray(a), {})} {a.fill_value!r}"
    if a.dtype.hasobject:
        return f"{facts} {describe(a.tolist(), seen)}"
    return f"{facts} {a.tobytes().hex()}{_attributes(a, seen)}"


def _frame(pandas: Any, value: Any, seen: dict[int, int]) -> str:
    facts = [describe(dict(getattr(value, "attrs", {})), seen)]
    if isinstance(value, pandas.DataFrame):
        facts += [describe(value.columns, {}), describe(value.index, {})]
        facts += [f"{value.dtypes.iloc[i]} {_cells(value.iloc[:, i])}" for i in range(value.shape[1])]
    elif isinstance(value, pandas.Series):
        facts += [repr(value.name), str(value.dtype), describe(value.index, {}), _cells(value)]
    else:
        facts += [repr(value.names), str(value.dtype), repr(getattr(value, "freq", None)), _cells(value)]
    return " ".join(facts)


def _cells(column: Any) -> str:
    return ",".join(describe(item, {}) if type(item) is float else repr(item) for item in column.tolist())


def _attributes(value: Any, seen: dict[int, int]) -> str:
    """What an instance of a class with attributes holds."""
    found = dict(getattr(value, "__dict__", None) or {})
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return "".join(f" {name}={describe(item, seen)}" for name, item in found.items())


def _text(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
