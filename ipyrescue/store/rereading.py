"""A process that reads packs for a kernel's scrub: places of blobs in, what is wrong with each out, a line each.

It costs the kernel no turn of its interpreter, gives way to everybody for the processor and the disk, and ends when
the kernel does. Knows no key and no manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from ipyrescue.manifest import BlobRef
from ipyrescue.store.scrub import Looked, look

_NICENESS = 19
_LOOK_SECONDS = 1.0
_OURS = str(Path(__file__).parents[2])
_COMMAND = "import sys; sys.path.insert(0, sys.argv.pop()); from ipyrescue.store import rereading; rereading.main()"


class Reader:
    """Such a process, as its kernel has it."""

    def __init__(self, root: Path) -> None:
        """Start it. Raises OSError."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(root), _OURS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.path.abspath(os.sep),  # and not the user's: a typing.py beside the notebook would be taken
            start_new_session=True,
        )

    def look(self, some: Sequence[BlobRef]) -> Looked | None:
        """What came of reading these; None when the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        places = [[blob.hash, blob.pack, blob.offset, blob.size_bytes] for blob in some]
        try:
            self._process.stdin.write(json.dumps(places).encode() + b"\n")
            self._process.stdin.flush()
            signature, reasons = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return None
        return Looked(tuple(signature) if signature is not None else None, tuple(reasons))

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()


# --- the process ------------------------------------------------------------------------------------------------


def main() -> None:
    """Read for whoever started this process what it asks for, of the store that is the first argument."""
    _give_way()
    root, parent = Path(sys.argv[1]), os.getppid()
    while line := _next_line(sys.stdin.buffer, parent):
        some = [BlobRef(*fields) for fields in json.loads(line)]
        sys.stdout.buffer.write(json.dumps(look(root, some)).encode() + b"\n")
        sys.stdout.buffer.flush()


def _next_line(asked: IO[bytes], parent: int) -> bytes:
    """The next question; nothing once nobody is there to ask it, though a child of the kernel's may hold the pipe."""
    if sys.platform != "win32":
        while not select.select([asked], [], [], _LOOK_SECONDS)[0]:
            if os.getppid() != parent:
                return b""
    return asked.readline()


def _give_way() -> None:
    with contextlib.suppress(OSError, AttributeError, psutil.Error):
        os.nice(_NICENESS)
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
