"""A writer that stands beside the kernel and is fed through shared memory: measured, and not what ipyrescue does.

Turns the seam of the thread (`capture` in the pause, a Draft that touches no live object) into messages to a process
that was started once: buffers as places in the staging area, which it maps too, the rest pickled. Prototype: it trusts
its pipe, and nobody watches it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pause.contenders import Pending, PortableIpyrescue

if TYPE_CHECKING:
    from benchmarks.pause.training import Training

_ROOM = 1.5
"""How much larger than the trained tensors the area is made, so that it need never grow."""


class StandingWriter(PortableIpyrescue):
    """`checkpointing.capture` in the pause; `write` in a process that was started with the training."""

    def begin(self, training: Training) -> None:
        from ipyrescue.capture import staging

        super().begin(training)
        shared: list[int] = []

        def shared_map(size_bytes: int) -> mmap.mmap:
            shared.append(os.memfd_create("ipyrescue-area"))
            os.ftruncate(shared[-1], size_bytes)
            return mmap.mmap(shared[-1], size_bytes)

        private_map, staging._map = staging._map, shared_map
        try:
            self._area.reserve(int(_ROOM * training.size_bytes))
        finally:
            staging._map = private_map
        command = [sys.executable, "-m", "benchmarks.pause.standing", str(self.folder), *map(str, shared)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=shared)
        self._segments = [(segment.address, segment.size_bytes) for segment in self._area._segments]

    def save(self) -> Pending:
        from ipyrescue.checkpointing import capture

        draft = capture(self._names, self._store, self._area, fence=self._fence, **self._said)
        groups = [replace(group, buffers=tuple(map(self._place, group.buffers))) for group in draft.groups]
        message = pickle.dumps((draft.snapshot, groups, draft.sizes, draft.history), 5)
        assert self._process.stdin is not None
        self._process.stdin.write(len(message).to_bytes(8, "little") + message)
        self._process.stdin.flush()
        return _Answer(self._process)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        super().end()

    def _place(self, view: memoryview) -> Any:
        """Where a buffer stands in the area, or its bytes."""
        from ipyrescue.addresses import address_of

        address = address_of(view)
        for number, (start, size_bytes) in enumerate(self._segments):
            if start <= address < start + size_bytes:
                return number, address - start, len(view)
        return bytes(view)


class _Answer:
    """What the process will say when a snapshot is durable."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said = b""

    def done(self) -> bool:
        import select

        assert self._process.stdout is not None
        if not self._said and select.select([self._process.stdout], [], [], 0)[0]:
            self._said = os.read(self._process.stdout.fileno(), 1)
        return bool(self._said)

    def result(self) -> None:
        assert self._process.stdout is not None
        self._said = self._said or os.read(self._process.stdout.fileno(), 1)
        if self._said != b"+":
            raise RuntimeError("the standing writer failed")


def serve(folder: Path, descriptors: Sequence[int]) -> None:
    """Write what comes down the pipe until it is closed."""
    from ipyrescue.checkpointing import Draft, write
    from ipyrescue.store import Store, signing

    os.environ["IPYRESCUE_KEY_FILE"] = str(folder / "key")
    os.setsid()
    os.nice(10)
    area = [memoryview(mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)) for fd in descriptors]
    store = Store.open(folder / "store", signing.load_key(create=True), create=True)
    while header := sys.stdin.buffer.read(8):
        snapshot, groups, sizes, history = pickle.loads(sys.stdin.buffer.read(int.from_bytes(header, "little")))
        whole = tuple(replace(group, buffers=tuple(_view(area, b) for b in group.buffers)) for group in groups)
        write(Draft(snapshot, whole, sizes, history), store)
        os.write(1, b"+")


def _view(area: list[memoryview], where: Any) -> memoryview:
    if isinstance(where, bytes):
        return memoryview(where)
    number, start, size_bytes = where
    return area[number][start : start + size_bytes]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
