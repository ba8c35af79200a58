"""Names of runs to their folders: in a store that is looked into first, else by the registry of this user.

The registry is a folder of pointer files, `<name>.json` -> {"store": path}, so that a name means one run wherever it is
said. It is a convenience: where it cannot be written, runs are found in their stores alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from ipyrescue.errors import RunError, RunNotFoundError, StoreError
from ipyrescue.identity import STORE_NAME, state_folder
from ipyrescue.runs.record import RECORD_NAME
from ipyrescue.store import atomic, layout, lock

_LIMIT_BYTES = 8192
_LOCK_PATIENCE_SECONDS = 30.0
_SETTLED_SECONDS = 60.0
"""A pointer older than this whose run is not there is nobody's: one that is being begun has no record yet."""


def registry() -> Path:
    """The folder of pointers to this user's runs."""
    return state_folder(os.environ) / "ipyrescue" / "runs"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Have no other run of this user begin meanwhile, where the registry can be written. Raises StoreBusyError."""
    with contextlib.suppress(OSError):
        registry().mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(registry(), os.W_OK | os.X_OK):
        yield
        return
    with lock.alone(registry() / "lock", _LOCK_PATIENCE_SECONDS):
        yield


def find(name: str, store: Path | None = None) -> Path:
    """The folder of the run of this name: in *store* or the store here, else by the registry.

    Raises RunNotFoundError.
    """
    if layout.parse_run_name(name) is None:
        raise RunNotFoundError(f"{name!r} is no name of a run: {layout.RUN_NAMES}. List them: ipyrescue ps -a")
    here = layout.run_folder(_first(store), name)
    if os.path.lexists(here):
        return here
    root = _read(name)
    if root is not None and os.path.lexists(layout.run_folder(root, name)):
        return layout.run_folder(root, name)
    raise RunNotFoundError(f"There is no run {name}{_known()}. List all of them: ipyrescue ps -a")


def all_folders(store: Path | None = None) -> list[Path]:
    """The folders of all runs that are known: those of *store* or the store here, and those of the registry."""
    first = layout.runs(_first(store))
    here = [first / name for name in _names_in(first)]
    elsewhere = [layout.run_folder(root, name) for name in _names() if (root := _read(name)) is not None]
    found = {os.path.realpath(folder): folder for folder in (*elsewhere, *here) if (folder / RECORD_NAME).is_file()}
    return sorted(found.values())


def new_folder(root: Path, wanted: str, *, exact: bool) -> Path:
    """Make the folder of a new run and its entry: of the name *wanted*, or with a number behind it unless *exact*.

    Raises RunError where an exact name is taken, StoreError.
    """
    layout.create(root)
    for name in (wanted,) if exact else _numbered(wanted):
        folder = layout.run_folder(root, name)
        if not _claim(name, root):
            continue
        with atomic.explained("create", folder), contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
            return folder
        _point(name, root)  # of a store from elsewhere, which this registry did not know
    raise RunError(
        f"There is a run of the name {wanted} already. Choose another --name, or go on with that one: "
        f"ipyrescue resume {wanted}   To remove it: ipyrescue rm {wanted}"
    )


def name_for(source: Path) -> str:
    """What a run of this file is called by default."""
    text = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789._-" else "-" for c in source.stem.lower())
    return text.strip("._-")[:56].rstrip("._-") or "run"


def forget(folder: Path) -> None:
    """Take the run in *folder* out of the registry. Raises nothing."""
    root = _read(folder.name)
    if root is not None and os.path.realpath(layout.run_folder(root, folder.name)) == os.path.realpath(folder):
        with contextlib.suppress(OSError):
            _pointer(folder.name).unlink()


def _first(store: Path | None) -> Path:
    return (store or Path(STORE_NAME)).absolute()


def _numbered(wanted: str) -> Iterator[str]:
    yield wanted
    yield from (f"{wanted}-{number}" for number in count(2))


def _claim(name: str, root: Path) -> bool:
    """Whether *name* is ours now: it was free, or what it pointed to is gone."""
    try:
        atomic.publish(registry(), _pointer(name), _encoded(root), mode=0o600)
    except FileExistsError:
        if not _is_stale(name):
            return False
        _point(name, root)
    except OSError:
        pass  # a home that cannot be written: the store alone knows the name
    return True


def _point(name: str, root: Path) -> None:
    with contextlib.suppress(OSError):
        atomic.replace(_pointer(name), _encoded(root))


def _encoded(root: Path) -> bytes:
    return json.dumps({"store": str(root)}).encode("ascii")


def _is_stale(name: str) -> bool:
    root = _read(name)
    if root is not None and os.path.lexists(layout.run_folder(root, name)):
        return False
    try:
        return time.time() - os.lstat(_pointer(name)).st_mtime > _SETTLED_SECONDS
    except OSError:
        return True


def _names() -> list[str]:
    pointers = [name.removesuffix(".json") for name in _listed(registry()) if name.endswith(".json")]
    return [name for name in pointers if layout.parse_run_name(name)]


def _names_in(runs: Path) -> list[str]:
    return [name for name in _listed(runs) if layout.parse_run_name(name)]


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _pointer(name: str) -> Path:
    return registry() / f"{name}.json"


def _read(name: str) -> Path | None:
    """The store that the registry names for *name*; None where it names none that can be."""
    with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, LookupError, StoreError):
        said = json.loads(atomic.read_file(_pointer(name), _LIMIT_BYTES))["store"]
        if type(said) is str and os.path.isabs(said) and "\0" not in said:
            return Path(said)
    return None


def _known() -> str:
    names = [folder.name for folder in all_folders()]
    return f"; there are {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else ""
