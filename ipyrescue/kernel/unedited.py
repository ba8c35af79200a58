"""A script run as `python train.py` would run it, under a guard of ours: nothing in it has to know of ipyrescue.

    python -m ipyrescue.kernel.unedited --every SECONDS [--resume [--of INCARNATION ...]] [--with-parent PID] --
        train.py ARGUMENTS

Its globals are saved as those of a notebook are, its tracebacks and exit codes are its own. With `--resume`, where the
last process of the script died, see `ipyrescue.kernel.restarting`; `--of` names the processes whose snapshots count.
With `--with-parent` it gets SIGTERM when process PID, its parent, is gone (Linux). Knows no runs.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import io
import linecache
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import decode_source
from types import FrameType, TracebackType
from typing import Any

from ipyrescue.errors import RescueError
from ipyrescue.kernel import restarting, resuming, session
from ipyrescue.manifest import Settings

_PR_SET_PDEATHSIG = 1
_NO_SUCH_FILE = 2


def main(words: Sequence[str]) -> None:
    """Run the script that *words* name, to its end; whatever it raises goes on to the interpreter."""
    options = _parsed(words)
    if options.with_parent is not None:
        _end_with(options.with_parent)
    path = os.path.abspath(options.script)
    source = _read(path)
    module = _become(path, [options.script, *options.arguments])
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        _pin(path, source)
        with Protection(path, options.every) as protection:
            restarting.prepare(path, source, protection.begin, again=options.resume, runs=options.of)
            exec(code, vars(module))  # noqa: S102 - it is what this module is for
    except BaseException as error:
        _show_own_frames(error, path)
        raise


class Protection:
    """What stands around the script as a guard would, from `begin` on. Nothing of it raises into the script."""

    def __init__(self, path: str, every_seconds: float) -> None:
        self._path = path
        self._settings = Settings(every_seconds=every_seconds)
        self._process = os.getpid()
        self._begun: float | None = None

    def begin(self, frame: FrameType) -> None:
        """Make snapshots from now on; *frame* is where the program stands."""
        try:
            recorder = session.recorder()
            recorder.guards(recorder.settled(self._settings), frame, os.path.basename(self._path))
            self._begun = time.monotonic()
        except RescueError as error:
            resuming.say(f"{os.path.basename(self._path)} runs and is NOT protected: {error}")

    def __enter__(self) -> Protection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun is None or os.getpid() != self._process:
            return
        if isinstance(error, SystemExit) and error.code in (None, 0):
            error = None  # how many a script ends well
        elif error is not None:
            error = error.with_traceback(_from(self._path, trace))
        session.recorder().guards_no_more(None, self._begun, sys._getframe(), error)


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ipyrescue.kernel.unedited", allow_abbrev=False)
    parser.add_argument("--every", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--of", action="append", default=[], metavar="INCARNATION")
    parser.add_argument("--with-parent", type=int, metavar="PID")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def _end_with(parent: int) -> None:
    """Have SIGTERM sent when the parent is gone: prctl(2). It may be gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


# --- as python itself does it -------------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(_NO_SUCH_FILE) from None


def _become(path: str, arguments: list[str]) -> types.ModuleType:
    """Put the module in the place of `__main__`, and all else where a script finds it: what spawned children do too."""
    module = types.ModuleType("__main__")
    given = {"__file__": path, "__cached__": None, "__builtins__": builtins}
    vars(module).update(given, __loader__=SourceFileLoader("__main__", path))
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    sys.argv[:] = arguments
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    return module


def _pin(path: str, source: bytes) -> None:
    """Keep the text that runs: whoever edits the file meanwhile does not move the ends of iterations."""
    lines = io.StringIO(decode_source(source)).readlines()
    # Without a time the entry is never compared with the file again.
    linecache.cache[path] = (len(source), None, lines, path)


def _show_own_frames(error: BaseException, path: str) -> None:
    """Leave our frames, and those of `python -m`, out of what is shown of an exception that nobody caught."""
    own, shown = _from(path, error.__traceback__), sys.excepthook

    def show(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> Any:
        if raised is error:
            trace = sys.last_traceback = raised.__traceback__ = own
        return shown(kind, raised, trace)

    sys.excepthook = show


def _from(path: str, trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    # By its own name: what stands as __main__ is the script's from now on.
    from ipyrescue.kernel import unedited

    unedited.main(sys.argv[1:])
