"""A notebook's text into its file while cells run: atomically, seldom enough, and never over what somebody else wrote.

Knows nothing of what the text says. A disk that is full, or another error of the system, ends nothing: it is told once,
and tried again at the next save.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import atomic

SAVE_SECONDS = 1.0
"""The least time between the end of a save and the next one."""
MAX_SHARE = 0.1
"""Of the time, saves may take no more than this."""

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Written:
    """A file as it was left: whoever writes it anew changes its time or its size; a hash tells if the bytes differ."""

    mtime_ns: int
    size_bytes: int
    hash: str

    @classmethod
    def of(cls, path: Path | int, data: bytes) -> Written | None:
        """*path*, or an open file, as it is now, when it holds *data*; None where it is gone."""
        with contextlib.suppress(OSError):
            status = os.stat(path)
            return cls(status.st_mtime_ns, status.st_size, hashlib.sha256(data).hexdigest())
        return None

    def may_be_replaced(self, path: Path) -> bool:
        """Whether *path* is as it was left, or gone."""
        try:
            status = path.stat()
            if (status.st_mtime_ns, status.st_size) == (self.mtime_ns, self.size_bytes):
                return True
            return hashlib.sha256(path.read_bytes()).hexdigest() == self.hash
        except FileNotFoundError:
            return True


class OutputFile:
    """The file of a run's outputs. *text* makes what it is to hold, *tell* takes sentences for people."""

    def __init__(
        self,
        path: Path,
        *,
        aside: Path,
        written: Written | None,
        text: Callable[[], str],
        tell: Callable[[str], None],
        moved: Callable[[Path], None],
    ) -> None:
        """*written* is the file as it may be replaced; if it changes, *aside* or a name like it is taken.

        *moved* hears of that name before anything is written there.
        """
        self.path = Path(os.path.realpath(path))
        self.failure: str | None = None
        self._aside = aside
        self.written = written
        self._text, self._tell, self._moved = text, tell, moved
        self._changed = False
        self._next_at = 0.0
        self._saving = asyncio.Lock()

    def changed(self) -> None:
        """There is something to save, soon."""
        self._changed = True

    async def follow(self) -> None:
        """Save what has changed, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._changed and time.monotonic() >= self._next_at:
                await self.save()

    async def save(self) -> bool:
        """Save now; return whether that is durable."""
        async with self._saving:
            started = time.monotonic()
            self._changed = False
            data = self._data()
            try:
                while not await asyncio.to_thread(self._write, data):
                    self._step_aside()
            except OSError as error:
                self._changed = True
                self._fail(error)
            else:
                self._recover()
            now = time.monotonic()
            self._next_at = now + max(SAVE_SECONDS, (now - started) * (1 / MAX_SHARE - 1))
            return self.failure is None

    async def save_at_last(self) -> bool:
        """Save once more; where that fails, beside the notebook. Return whether it is durable anywhere."""
        if await self.save():
            return True
        wanted, self.path = self.path, free_name(self._aside)
        with contextlib.suppress(OSError):
            if await asyncio.to_thread(self._write, self._data()):
                self._tell(f"{wanted} could not be written ({self.failure}), so the outputs are in {self.path}.")
                return True
        self.path = wanted
        return False

    def _data(self) -> bytes:
        return self._text().encode("utf-8", "backslashreplace")

    def _step_aside(self) -> None:
        """Leave a file to whoever has written to it since."""
        theirs, self.path = self.path, free_name(self._aside)
        self._moved(self.path)
        self._tell(f"{theirs} was changed by somebody else, so the outputs go to {self.path} from now on.")

    def _write(self, data: bytes) -> bool:
        """Whether *data* is in the file now; it is not where somebody else has written there since."""
        with drafted(self.path, data) as (draft, written):
            if not self._is_ours():
                return False
            atomic.rename(draft, self.path)
            self.written = written
        atomic.sync_folder(self.path.parent)
        return True

    def _is_ours(self) -> bool:
        with contextlib.suppress(OSError):  # of what cannot be read, writing it will tell
            return self.written is None or self.written.may_be_replaced(self.path)
        return True

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            self._tell(
                f"The outputs could not be written to {self.path}: {error.strerror or error}. The run goes on, the log "
                "has all of them, and it is tried again."
            )
        self.failure = str(error.strerror or error)

    def _recover(self) -> None:
        if self.failure is not None:
            self.failure = None
            self._tell(f"The outputs are in {self.path} again.")


def free_name(path: Path) -> Path:
    """*path*, or `train.run-2.ipynb` and so on, whichever does not exist."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


@contextlib.contextmanager
def drafted(path: Path, data: bytes) -> Iterator[tuple[Path, Written | None]]:
    """*data* durable beside *path*, readable by whom *path* is, to be renamed; gone at the end. Raises OSError.

    How it was left is known before it has its name: what is written to it afterwards is somebody else's.
    """
    draft = path.with_name(f".{path.name}.ipyrescue")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | atomic.SAFE_FLAGS
    fd = os.open(draft, flags, 0o666)
    try:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(fd, path.stat().st_mode & 0o777)
            atomic.write_all(fd, data)
            atomic.sync_file(fd)
            written = Written.of(fd, data)
        finally:
            os.close(fd)
        yield draft, written
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
