"""Streams and placed memory to objects: imports first, then classes and functions, then the rest.

Decoding always builds fresh classes. Groups are decoded one at a time, so that the caller can bind what one
group brings before the next is decoded: a `__hash__` or `__setstate__` may look for a global of its own.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipyrescue.manifest import Group, Import, Storage
from ipyrescue.pickling import devices, reducers
from ipyrescue.pickling.encode import decompress
from ipyrescue.pickling.pickler import GroupUnpickler, import_dill
from ipyrescue.pickling.reducers import OtherPythonError

_HUGE_PAGE_BYTES = 2 << 20
_NO_CLASSES: Mapping[str, type] = {}


@dataclass(frozen=True)
class Placed:
    """A group whose bytes are verified and whose memory is where it will live; *storages* by key.

    *position* is the group's place in the snapshot, by which other groups depend on it.
    """

    position: int
    group: Group
    packed_stream: bytes
    storages: tuple[Any, ...]


@dataclass(frozen=True)
class Decoded:
    """What one group brought: values by name, or the reason why it brought nothing."""

    group: Group
    values: Mapping[str, Any]
    failure: str | None = None


@dataclass(frozen=True)
class Memory:
    """Writable host memory for one buffer, to be filled by the store before it is placed."""

    view: memoryview
    owner: Any
    torch: bool


def homeless(groups: Mapping[int, Group]) -> dict[int, str]:
    """Why the memory of some of *groups* cannot be allocated here: the library that is to own it cannot be imported."""
    kinds = {position: {storage.kind for storage in group.storages} for position, group in groups.items()}
    libraries = {"numpy", "torch"} & set().union(*kinds.values())
    failures = {library: failure for library in sorted(libraries) if (failure := _import_failure(library))}
    return {p: failure for library, failure in failures.items() for p in kinds if library in kinds[p]}


def _import_failure(library: str) -> str | None:
    try:
        importlib.import_module(library)
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
        return f"import {library} failed: {error}"
    return None


def allocate(group: Group) -> list[Memory]:
    """Allocate host memory for each buffer of a group, as the library whose object will own it does."""
    owners = [{s.kind for s in group.storages if s.buffer == position} for position in range(len(group.buffers))]
    return [_allocate(b.size_bytes, "torch" in kinds) for b, kinds in zip(group.buffers, owners, strict=True)]


def _allocate(size_bytes: int, for_torch: bool) -> Memory:
    if for_torch:
        import torch

        storage = torch.UntypedStorage(size_bytes)
        _ask_for_huge_pages(storage.data_ptr(), size_bytes)
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        return Memory(memoryview(flat.numpy()), storage, torch=True)
    if "numpy" in sys.modules:
        import numpy as np

        array = np.empty(size_bytes, np.uint8)
        return Memory(memoryview(array.data), array, torch=False)
    block = bytearray(size_bytes)
    return Memory(memoryview(block), block, torch=False)


def _ask_for_huge_pages(address: int, size_bytes: int) -> None:
    """Have fresh memory come in pages of 2 MiB (Linux, madvise(2)): far fewer faults while it is filled.

    NumPy asks by itself, torch does not. What the kernel refuses stays as it was.
    """
    first = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    whole = (address + size_bytes - first) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
    if sys.platform == "linux" and whole > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), mmap.MADV_HUGEPAGE)


def place(
    position: int, group: Group, packed_stream: bytes, memory: Sequence[Memory], device: str | None = None
) -> tuple[Placed, list[str]]:
    """Turn filled memory into storages on their devices, or all on *device*; tell of devices that are gone."""
    warnings: list[str] = []
    storages = tuple(_place(s, memory[s.buffer], device or s.device, warnings) for s in group.storages)
    return Placed(position, group, packed_stream, storages), warnings


def _place(storage: Storage, memory: Memory, device: str, warnings: list[str]) -> Any:
    part = memory.view[storage.offset : storage.offset + storage.size_bytes]
    if storage.kind == "torch":
        return _on_device(_torch_storage(storage, memory, part), device, warnings)
    if storage.kind == "numpy":
        import numpy as np

        return np.frombuffer(part, np.uint8) if storage.size_bytes else np.empty(0, np.uint8)
    return bytes(part) if storage.kind == "bytes" else bytearray(part)


def _torch_storage(storage: Storage, memory: Memory, part: memoryview) -> Any:
    import torch

    if part.nbytes == memory.view.nbytes:
        return memory.owner
    return torch.frombuffer(part, dtype=torch.uint8).untyped_storage() if part.nbytes else torch.UntypedStorage(0)


def _on_device(storage: Any, device: str, warnings: list[str]) -> Any:
    if device == "cpu":
        return storage
    import torch

    if devices.is_here(device):
        return torch.empty(0, dtype=torch.uint8).set_(storage).to(device).untyped_storage()
    sentence = f"{device} is not here: its tensors are on the CPU now."
    if sentence not in warnings:
        warnings += filter(None, (sentence, devices.why_not(device)))
    return storage


def import_modules(imports: Sequence[Import]) -> Iterator[tuple[str, Any, str | None]]:
    """Import each module again, then its submodules; yield its name, the module unless it failed, and what failed."""
    for wanted in imports:
        module, failure = _import(wanted.module)
        below = [_import(name)[1] for name in wanted.submodules] if failure is None else []
        yield wanted.name, module, failure or "; ".join(filter(None, below)) or None


def _import(name: str) -> tuple[Any, str | None]:
    try:
        return importlib.import_module(name), None
    except Exception as error:  # noqa: BLE001 - an import may raise anything; the others go on
        return None, f"import {name} failed: {error}"


def decode(
    groups: Sequence[Placed],
    namespace: dict[str, Any],
    own_classes: Mapping[str, type] = _NO_CLASSES,
    made_by: str | None = None,
) -> Iterator[Decoded]:
    """Decode groups in their order, one at each step; what fails is told, not raised.

    *own_classes* stand, by their name, for what groups of classes hold, so that instances belong to them. *made_by* is
    the Python of the snapshot, as `reducers.python` says it: where it is another, a class that fails does so for that.
    """
    classes: dict[str, type] = {}
    failed: dict[int, str] = {}
    for placed in groups:
        lost = [failed[position] for position in placed.group.depends if position in failed]
        if lost:
            yield Decoded(placed.group, {}, lost[0])
            failed[placed.position] = lost[0]
            continue
        try:
            decoded = _decode(placed, namespace, classes, own_classes)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - so may a reducer; it costs its group
            reason = _reason(error, made_by if placed.group.kind == "class" else None)
            decoded = _kept(placed.group, classes, own_classes) or Decoded(placed.group, {}, reason)
        if decoded.failure:
            failed[placed.position] = _dependants_reason(decoded)
        yield decoded


def _reason(error: BaseException, made_by: str | None) -> str:
    """Why a group failed. The classes of another Python may fail before their bytecode is met."""
    if isinstance(error, OtherPythonError):
        return str(error)
    told = f"{type(error).__name__}: {error}"
    if made_by in (None, reducers.python()) or isinstance(error, ImportError):
        return told
    return f"made by {made_by}, this is {reducers.python()} ({told})"


def _dependants_reason(decoded: Decoded) -> str:
    """Why what needs the classes of a group cannot come back either."""
    names = ", ".join(decoded.group.names)
    return f"needs {names or 'a class'}, which did not come back: {decoded.failure}"


def _decode(
    placed: Placed, namespace: dict[str, Any], classes: dict[str, type], own_classes: Mapping[str, type]
) -> Decoded:
    session: dict[str, Callable[..., Any]] = {
        "storage": placed.storages.__getitem__,
        "namespace": lambda: namespace,
        "cell_class": classes.__getitem__,
    }
    buffers = [placed.storages[key] for key in placed.group.out_of_band]
    if placed.group.encoder == "dill":
        import_dill()
    stream = decompress(placed.group.stream, placed.packed_stream)
    values, defined = GroupUnpickler(stream, buffers, session).load()
    if placed.group.kind == "randomness":
        return Decoded(placed.group, {"": values[0]})
    found = dict(zip(placed.group.names, values, strict=True))
    own = {id(found[name]): own_classes[name] for name in found if name in own_classes}
    classes.update({key: own.get(id(cls), cls) for key, cls in defined.items()})
    return Decoded(placed.group, {name: own.get(id(value), value) for name, value in found.items()})


def _kept(group: Group, classes: dict[str, type], own_classes: Mapping[str, type]) -> Decoded | None:
    """The live classes in the place of those that cannot be made here, where all of a group are kept."""
    own = {name: own_classes[name] for name in group.names if name in own_classes}
    if group.kind != "class" or not own or len(own) < len(group.names):
        return None
    classes.update({cls.__qualname__: cls for cls in own.values()})
    return Decoded(group, own)
