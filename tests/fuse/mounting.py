"""The file system of `passthrough.py`, mounted for the length of a block, and told which faults are in force."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROGRAM = Path(__file__).with_name("passthrough.py")


def missing() -> str:
    """What has to be done before this machine can mount one; nothing if it can."""
    if sys.platform != "linux" or not os.path.exists("/dev/fuse"):
        return "it needs /dev/fuse: a Linux with FUSE, in Docker --device /dev/fuse --cap-add SYS_ADMIN"
    if shutil.which("fusermount3") is None:
        return "it needs FUSE's tools: apt-get install fuse3"
    if importlib.util.find_spec("mfusepy") is None:
        return "it needs mfusepy: pip install mfusepy"
    return ""


class Mounted:
    """A mounted pass-through: its *root*, and which faults are in force."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.root = folder / "mount"
        self._process = process
        self._faults = folder / "faults"

    @contextlib.contextmanager
    def faulty(self, *faults: str) -> Iterator[None]:
        """These faults, and no others, until the end of the block."""
        before = self._faults.read_text()
        self._change(" ".join(faults))
        try:
            yield
        finally:
            self._change(before)

    def go_away(self) -> None:
        """As a server that dies, or a network that is cut: from here on every call fails."""
        self._process.kill()
        self._process.wait()

    def _change(self, text: str) -> None:
        """At once: the file system may be reading."""
        new = self._faults.with_name("new")
        new.write_text(text)
        new.replace(self._faults)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Mounted]:
    """Mount one in *folder*, without faults; what another one showed there before is there again."""
    for name in ("shown", "mount"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "faults").touch()
    command = [sys.executable, str(PROGRAM), str(folder / "shown"), str(folder / "mount"), str(folder / "faults")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "mounted\n":
                raise RuntimeError(f"FUSE did not mount; {missing() or 'is this root, or may a user mount here?'}")
            yield Mounted(folder, process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            subprocess.run(
                ["umount", "--lazy", str(folder / "mount")], check=False, stderr=subprocess.DEVNULL
            )  # where it was killed
