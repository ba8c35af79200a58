"""A process without IPython, a script or a plain `python`, as what this folder asks of a shell.

The namespace is that of `__main__`, whoever calls. The code of the user is the script, the files in its folder and
below, and what is typed at a prompt; libraries are not, wherever they are installed. Knows no snapshots.
"""

from __future__ import annotations

import linecache
import os
import re
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

from ipyrescue import identity
from ipyrescue.capture.headers import in_linecache
from ipyrescue.identity import Identity
from ipyrescue.store.lives import Cause

_TYPED = re.compile(r"<stdin>|<python-input-\d+>")
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "")
_NAMES_OF_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
_FOLDERS_OF_LIBRARIES = ("site-packages", "dist-packages")
_REASON_CHARACTERS = 200


class Script:
    """What a kernel's shell is to a notebook: whose namespace it is, whose code, and when a cell begins; here never."""

    def __init__(self) -> None:
        self.main = sys.modules["__main__"]
        self.user_ns_hidden: dict[str, Any] = {}
        self.events = SimpleNamespace(register=_ignore, unregister=_ignore)
        self.history_manager = SimpleNamespace(input_hist_raw=(), input_hist_parsed=())
        self.left_by: BaseException | None = None
        """The `sys.exit` by which the last guard of the script was left, if it was."""

    @property
    def user_ns(self) -> dict[str, Any]:
        """The variables of the user, and all else that `__main__` has."""
        return vars(self.main)

    @property
    def file(self) -> str | None:
        """The script; None for a prompt and for `python -c`."""
        file = getattr(self.main, "__file__", None)
        return os.path.abspath(file) if isinstance(file, str) else None

    def identity(self, cwd: Path, store: Path | None) -> Identity:
        """Which script this is, as `ipyrescue.identity` tells it."""
        return identity.of_script(self.file, os.environ, cwd, store)

    def broken_off(self) -> Cause | None:
        """What keeps the exit of this process from being a clean end: an exception that nobody caught.

        At a prompt there are many of those, and none ends the process. `sys.exit` is an end, unless it is called within
        a guard.
        """
        if hasattr(sys, "ps1") or sys.flags.interactive:
            return None
        error: object = getattr(sys, "last_value", None)
        error = error if error is not None else self.left_by
        if not isinstance(error, BaseException):
            return None
        said = next(iter(str(error).splitlines()), "")
        return Cause("raised", "ended", f"{type(error).__name__}: {said}"[:_REASON_CHARACTERS].rstrip(": "))


class ScriptCode:
    """Tells the code of the user by its file name: that of the script, of files in its folder, or of a prompt."""

    def __init__(self, script: Script) -> None:
        self._folders = tuple(_folders(script))
        self._others = (_OWN, *_libraries())
        self._known: dict[str, bool] = {}

    def is_cell(self, code: CodeType) -> bool:
        """Whether the user wrote it here, and installed it nowhere."""
        filename = code.co_filename
        known = self._known.get(filename)
        if known is None:
            known = self._known[filename] = self._is_users(filename)
        return known

    def source(self, code: CodeType) -> str | None:
        """The text of the file that *code* stands in."""
        return in_linecache(code)

    def number(self, code: CodeType) -> int | None:
        """None: a script has no cells."""
        return None

    def _is_users(self, filename: str) -> bool:
        if filename.startswith("<"):
            return _TYPED.fullmatch(filename) is not None
        if any(f"{os.sep}{name}{os.sep}" in filename for name in _FOLDERS_OF_LIBRARIES):
            return False
        path = os.path.realpath(filename)
        return path.startswith(self._folders) and not path.startswith(self._others)

    def pin_sources(self, frame: FrameType | None) -> None:
        """Keep the text of the user's modules as they run, also when the files are edited meanwhile.

        Where a file is another one already, no text is kept: a wrong one would misplace the ends of iterations.
        *frame* is where the program stands.
        """
        loaded = _code_by_file(frame)
        for filename in filter(self._is_users, loaded):
            if not filename.startswith("<"):
                lines = linecache.getlines(filename)
                if not _is_text_of("".join(lines), loaded[filename]):
                    lines = []
                # Without a time the entry is never compared with the file again.
                linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


def is_definition(value: object) -> bool:
    """Whether *value* is a function that `def` or `lambda` made in `__main__`."""
    return type(value) is types.FunctionType and value.__module__ == "__main__"


def _ignore(event: str, hook: Callable[..., Any]) -> None:
    """No cell begins or ends here."""


def _folders(script: Script) -> Iterator[str]:
    """The folder of the script; of `python -m package.module` the one that holds the package."""
    file = script.file
    if file is None:
        return
    folder = os.path.dirname(os.path.realpath(file))
    package = getattr(getattr(script.main, "__spec__", None), "parent", None) or ""
    for _ in package.split(".") if package else ():
        folder = os.path.dirname(folder)
    yield os.path.join(folder, "")


def _libraries() -> tuple[str, ...]:
    """Where installed code stands, the interpreter's own included."""
    folders = [*map(sysconfig.get_path, _NAMES_OF_LIBRARIES), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders if folder)


def _code_by_file(frame: FrameType | None) -> dict[str, list[CodeType]]:
    """Code objects by the files that they were compiled from: what runs at *frame*, and what modules define."""
    found: dict[str, list[CodeType]] = {}
    while frame is not None:
        found.setdefault(frame.f_code.co_filename, []).append(frame.f_code)
        frame = frame.f_back
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()) if type(module) is types.ModuleType else ():
            if type(value) is types.FunctionType:
                found.setdefault(value.__code__.co_filename, []).append(value.__code__)
    return found


def _is_text_of(text: str, codes: list[CodeType]) -> bool:
    """Whether all *codes* are what *text* compiles to."""
    try:
        compiled = list(_all_code(compile(text, "<script>", "exec", dont_inherit=True)))
    except (SyntaxError, ValueError, RecursionError):
        return False
    there = {_print(code) for code in compiled}
    return all(_print(code) in there for code in codes)


def _all_code(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_code(constant)


def _print(code: CodeType) -> tuple[object, ...]:
    """What two compilations of one text have in common, and those of two texts hardly ever."""
    lines = tuple(line for _, _, line in code.co_lines())
    return code.co_name, code.co_firstlineno, code.co_code, code.co_names, lines
