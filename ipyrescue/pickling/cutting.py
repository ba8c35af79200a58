"""Groups to blobs: streams and buffers cut to size, so that what did not change has the same bytes again.

A large buffer is cut by itself; the small ones of a group stand together in few blobs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ipyrescue.manifest import BLOB_SIZE_BYTES, Buffer, Group, Stream
from ipyrescue.pickling.encode import EncodedGroup, compress

_COALESCE_BELOW_BYTES = 64 << 10


class Cutter:
    """Collects blobs of at most `BLOB_SIZE_BYTES`, large buffers by themselves, small ones of a group together."""

    def __init__(self) -> None:
        self.blobs: list[memoryview] = []

    def cut(self, data: memoryview, size_bytes: int = BLOB_SIZE_BYTES) -> tuple[int, ...]:
        """Add *data* as blobs of *size_bytes* and return their numbers."""
        first = len(self.blobs)
        self.blobs += [data[at : at + size_bytes] for at in range(0, len(data), size_bytes)]
        return tuple(range(first, len(self.blobs)))

    def cut_together(self, parts: Mapping[int, memoryview]) -> dict[int, Buffer]:
        """Add small parts joined into few blobs; return for each where it stands."""
        where: dict[int, Buffer] = {}
        joined = bytearray()
        for key, part in parts.items():
            if len(joined) + len(part) > BLOB_SIZE_BYTES:
                self.blobs.append(memoryview(bytes(joined)))
                joined.clear()
            where[key] = Buffer((len(self.blobs),) if len(part) else (), len(joined) if len(part) else 0, len(part))
            joined += part
        if joined:
            self.blobs.append(memoryview(bytes(joined)))
        return where


def cut_group(group: EncodedGroup, cutter: Cutter) -> Group:
    """Cut one group's stream, compressed, and its buffers; *cutter* collects the blobs."""
    codec, packed = compress(group.stream)
    stream = Stream(cutter.cut(memoryview(packed)), len(group.stream), codec)
    small = {i: b for i, b in enumerate(group.buffers) if len(b) < _COALESCE_BELOW_BYTES}
    together = cutter.cut_together(small)
    buffers = tuple(
        together[i] if i in together else Buffer(cutter.cut(b), 0, len(b)) for i, b in enumerate(group.buffers)
    )
    return Group(
        names=group.names,
        kind=group.kind,
        encoder=group.encoder,
        stream=stream,
        buffers=buffers,
        storages=group.storages,
        out_of_band=group.out_of_band,
        tensors=group.tensors,
        depends=group.depends,
    )
