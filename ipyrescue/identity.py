"""Which notebook or script this process serves, and where its snapshots go: names from outside into an `Identity`.

Pure but for asking whether a folder can be written. Names from outside become keys in JSON, never paths inside of
the store.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

STORE_NAME = ".ipyrescue"
"""The store's folder beside a notebook."""

_FILE_NAME = re.compile(r".*[^.]\.[A-Za-z]\w{0,15}")
_VS_CODE_SUFFIX = re.compile(r"-jvsc-[0-9a-f-]+(?=\.ipynb$)")


@dataclass(frozen=True)
class Identity:
    """One notebook, script or console. *notebook* is its key in every manifest; *path* is where the file stands.

    *kind* is `notebook`, `script` or `console`; a console has no file.
    """

    notebook: str
    kind: str
    path: Path | None
    store_root: Path

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        return PurePosixPath(self.notebook).name if self.kind != "console" else "this console"


def resolve(
    user_ns: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
    store: Path | None,
    *,
    console: str = "ipython",
    writable: Callable[[Path], bool] | None = None,
) -> Identity:
    """Tell which notebook the kernel serves: Jupyter's name, else VS Code's, else a console in this folder.

    *cwd* is the kernel's folder when it started; *store* is `Configuration.store`; *console* is what runs without a
    notebook, `ipython` or `ipykernel`. Ask again now and then: VS Code puts its name into *user_ns* late.
    """
    path = notebook_path(user_ns, environ, cwd)
    return _identity("notebook", path, environ, cwd, store, console, writable or _can_write)


def of_script(
    file: str | None,
    environ: Mapping[str, str],
    cwd: Path,
    store: Path | None,
    *,
    writable: Callable[[Path], bool] | None = None,
) -> Identity:
    """Tell which script a process without IPython runs: its *file*, else a console in this folder.

    Jupyter's name is not asked: whatever a kernel starts inherits that.
    """
    path = _plain(cwd / file) if file is not None else None
    return _identity("script", path, environ, cwd, store, "python", writable or _can_write)


def _identity(
    kind: str,
    path: Path | None,
    environ: Mapping[str, str],
    cwd: Path,
    store: Path | None,
    console: str,
    writable: Callable[[Path], bool],
) -> Identity:
    folder = path.parent if path is not None else _plain(cwd)
    root = _plain(cwd / store.expanduser()) if store else _default_root(folder, environ, writable)
    if path is not None:
        return Identity(_relative(path, root.parent), kind, path, root)
    return Identity(f"console:{console}:{_relative(_plain(cwd), root.parent)}", "console", None, root)


def notebook_path(user_ns: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Tell where the notebook's file stands; `None` for a console, whose session has a name but no file."""
    named_by_jupyter = environ.get("JPY_SESSION_NAME", "")
    named_by_vs_code = user_ns.get("__vsc_ipynb_file__")
    if _FILE_NAME.fullmatch(_last_part(named_by_jupyter)):
        # VS Code invents a name for each session on a remote server: `train-jvsc-<uuid>.ipynb`.
        return _plain(cwd / _VS_CODE_SUFFIX.sub("", named_by_jupyter))
    if isinstance(named_by_vs_code, str) and _last_part(named_by_vs_code):
        return _plain(cwd / named_by_vs_code)
    return None


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2] if sys.platform == "win32" else name.rpartition("/")[2]


def _plain(path: Path) -> Path:
    """Make *path* absolute and free of `..`, without following links: the name that the user knows."""
    return Path(os.path.abspath(path))


def _relative(path: Path, parent: Path) -> str:
    """Name *path* as seen from *parent*, so that host and container agree; absolute when it stands elsewhere."""
    for one, other in ((path, parent), (Path(os.path.realpath(path)), Path(os.path.realpath(parent)))):
        if one.is_relative_to(other):
            return one.relative_to(other).as_posix()
    return path.as_posix()


def _default_root(folder: Path, environ: Mapping[str, str], writable: Callable[[Path], bool]) -> Path:
    beside = folder / STORE_NAME
    # A store that is there is read where it is, also from a read-only mount; what cannot be written says so then.
    if beside.exists() or writable(folder):
        return beside
    # A hash, because a folder's name may hold anything.
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return state_folder(environ) / "ipyrescue" / digest


def _can_write(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def state_folder(environ: Mapping[str, str]) -> Path:
    """The user's folder for state: XDG's on every Unix, the local application data on Windows."""
    chosen = environ.get("XDG_STATE_HOME" if sys.platform != "win32" else "LOCALAPPDATA", "")
    home = Path(environ.get("HOME") or Path.home())
    # XDG: a relative path is invalid and must be ignored.
    return Path(chosen) if os.path.isabs(chosen) else home / ".local" / "state"
