"""The fresh process of a check: an order becomes lines of JSON, one for each group that was loaded and compared.

It restores as a new kernel would, into a `__main__` of its own, but without a shell, without rewinding the random
streams and with every tensor on the CPU. It only reads the store. Before each thing that may kill it, it says what that
is; it dies with the kernel that started it, is the first to go where memory runs out, and ends without a finalizer, as
what it holds belongs to the kernel (a temporary directory, say).
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import json
import os
import signal
import sys
import types
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from ipyrescue import getting, restoring
from ipyrescue.checking.orders import Expected, Found, Namespace, Order
from ipyrescue.errors import RescueError
from ipyrescue.manifest import Snapshot
from ipyrescue.pickling import collector
from ipyrescue.pickling import decode as decoding
from ipyrescue.pickling.decode import Decoded, Placed
from ipyrescue.pickling.digests import Digest, digests, first_different_chunk, tokens
from ipyrescue.restoring import Scope
from ipyrescue.store import Store, signing

_PR_SET_PDEATHSIG = 1
"""prctl(2): which signal this process gets when the one that started it is gone."""


def main() -> None:
    """Follow the order on standard input, and end at once."""
    _die_with_the_kernel()
    order = Order.from_bytes(sys.stdin.buffer.read())
    _close_standard_input()
    sys.path[:] = order.path
    warnings.simplefilter("ignore")
    with open(order.report, "w", encoding="utf-8") as report:
        try:
            follow(order, _Teller(report))
        except RescueError as error:
            _Teller(report).tell(error=str(error))
        report.flush()
        os._exit(0)


def follow(order: Order, teller: _Teller) -> None:
    """Restore the snapshot of an order, and tell of each import and each group."""
    teller.began("read")
    store = Store.open(Path(order.store), signing.load_key(Path(order.key_path)))
    snapshot = store.load(order.snapshot)
    namespace = _fresh_main()
    _import(snapshot, order, namespace, teller)
    teller.began("read")
    placed = _read(store, snapshot, order, teller)
    with collector.held_off():
        for decoded, position in _decoded(placed, namespace.values, teller):
            if decoded.failure is not None:
                teller.tell(at=position, failed=decoded.failure)
                continue
            values = {name: value for name, value in decoded.values.items() if name not in snapshot.pseudo_names}
            namespace.values.update({name: value for name, value in values.items() if name})
            namespace.know_classes(values)
            if position not in order.checked:
                teller.began("compare", position)
                found = compare(values, order.expected.get(position, {}), namespace)
                teller.tell(at=position, found={name: f.__dict__ for name, f in found.items()})
    teller.tell(done=True)


class _Teller:
    """Writes one line for each thing that the kernel is to know."""

    def __init__(self, report: TextIO) -> None:
        self._report = report

    def tell(self, **facts: Any) -> None:
        self._report.write(json.dumps(facts) + "\n")
        self._report.flush()

    def began(self, step: str, of: int | str | None = None) -> None:
        self.tell(began=step, of=of)


def _fresh_main() -> Namespace:
    """A `__main__` that is as empty as a new kernel's."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return Namespace(module.__dict__)


def _import(snapshot: Snapshot, order: Order, namespace: Namespace, teller: _Teller) -> None:
    for wanted in snapshot.imports:
        if wanted.name in order.lost_imports:
            continue
        teller.began("import", wanted.name)
        ((name, module, failure),) = decoding.import_modules([wanted])
        if failure is None:
            namespace.values[name] = module
        teller.tell(imported=name, failed=failure)


def _read(store: Store, snapshot: Snapshot, order: Order, teller: _Teller) -> list[Placed]:
    """Read and verify all that can be decoded, and tell what cannot."""
    unloadable = set(order.lost)
    for position, group in enumerate(snapshot.groups):
        if position not in unloadable and unloadable.intersection(group.depends):
            unloadable.add(position)
            teller.tell(at=position, failed="a class that it needs did not come back")
    got = getting.get(store, snapshot, frozenset(snapshot.names))
    for position, reason in got.damaged.items():
        teller.tell(at=position, failed=reason)
    placed, _ = restoring.place(got, Scope(device="cpu" if _uses_a_gpu(snapshot) else None))
    return [group for group in placed if group.position not in unloadable]


def _uses_a_gpu(snapshot: Snapshot) -> bool:
    return any(storage.device.startswith("cuda") for group in snapshot.groups for storage in group.storages)


def _decoded(placed: Collection[Placed], namespace: dict[str, Any], teller: _Teller) -> Iterator[tuple[Decoded, int]]:
    decoding_one_by_one = decoding.decode(list(placed), namespace)
    for group in placed:
        teller.began("load", group.position)
        yield next(decoding_one_by_one), group.position


def compare(values: dict[str, Any], expected: Expected, namespace: Namespace) -> dict[str, Found]:
    """Compare the values of one group with what the kernel has."""
    anatomy = namespace.of_group(values)
    now = digests(values, anatomy)
    different = {name: _different_chunk(now[name], expected.get(name, Digest())) for name in values}
    chunks = {name: chunk for name, chunk in different.items() if chunk is not None}
    seen = tokens(values, anatomy, chunks) if chunks else {}
    return {name: Found(chunk, tuple(seen.get(name, ())), now[name].incomparable)
            for name, chunk in different.items()}  # fmt: skip


def _different_chunk(now: Digest, expected: Digest) -> int | None:
    if now.incomparable is not None or expected.incomparable is not None:
        return None
    return first_different_chunk(expected, now)


# --- a process that does no harm ------------------------------------------------------------------------------------


def _die_with_the_kernel() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _close_standard_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
