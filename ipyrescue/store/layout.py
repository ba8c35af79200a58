"""Where everything stands: a root directory to the paths and names in it. Knows no contents but `format.json`'s.

Names on disk come from ids in hex and sequence numbers only; no text of a user ever becomes a path.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import sys
from pathlib import Path

from ipyrescue.errors import CorruptError, StoreError, StoreFormatError
from ipyrescue.store import atomic, ownership, probe

STORE_FORMAT = 1
EMPTY_PACK = "0" * 16
"""The pack of blobs without bytes; it has no file."""

RUN_NAMES = "small letters, digits, dots, dashes and underscores, 64 at most, a letter or a digit first"
"""What a run may be called, as the end of a sentence."""

FOLDERS = ("packs", "snapshots", "kernels", "pins", "runs", "index", "tmp")

_ID = re.compile(r"[0-9a-f]{16}")
_SNAPSHOT = re.compile(r"([0-9]{10})-([0-9a-f]{16})\.json")
_PACK = re.compile(r"([0-9a-f]{16})\.pack")
_LIFE = re.compile(r"([0-9a-f]{16})\.json")
_TRACE = re.compile(r"([0-9a-f]{16})\.(?:fault|SIG[A-Z]+)")
_MAIL = re.compile(r"([0-9a-f]{16})\.(?:request|answer)")
_RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_STORE_ID = re.compile(r"[0-9a-f]{32}")
MAX_SEQUENCE = 10**10 - 1
"""What the ten digits of a manifest's name hold."""

_CACHEDIR_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This directory holds snapshots of Jupyter notebooks' variables, made by ipyrescue.
"""

_README = """Snapshots of Jupyter notebooks' variables, made by ipyrescue.

  snapshots/<number>-<id>.json   one snapshot each: a signature line, then JSON that says where its bytes stand
  packs/<id>.pack                the bytes, each blob at the offset, with the size and BLAKE3 hash, that the JSON names
  kernels/                       which kernels ran, and how they ended
  pins/<id>                      an empty file for each snapshot that is to stay
  index/                         what lists say of snapshots, remembered; may be deleted at any time
  runs/<name>/                   runs of `ipyrescue run`: their records and logs
  tmp/                           unfinished work; `ipyrescue prune` empties it

List them:          ipyrescue ls --store THIS_DIRECTORY
Without ipyrescue:  tensors and arrays are plain bytes; the JSON's "tensors" give dtype, shape, stride and place.
                    FORMAT.md in ipyrescue's source has a reader of 20 lines.
The streams are pickles: unpickle them only if you trust whoever could write here.
"""

_TEXTS = {
    ".gitignore": "*\n",
    ".gitattributes": "* binary\n",  # if it is tracked after all, core.autocrlf changes no byte
    "CACHEDIR.TAG": _CACHEDIR_TAG,
    "README.txt": _README,
}


def packs(root: Path) -> Path:
    """The folder of packs."""
    return root / "packs"


def snapshots(root: Path) -> Path:
    """The folder of manifests: what is visible here exists."""
    return root / "snapshots"


def kernels(root: Path) -> Path:
    """The folder of life records."""
    return root / "kernels"


def pins(root: Path) -> Path:
    """The folder of pins."""
    return root / "pins"


def index(root: Path) -> Path:
    """The folder of what is remembered of manifests: derived data."""
    return root / "index"


def index_path(root: Path, what: str) -> Path:
    """Where the file stands in which *what* is remembered."""
    return index(root) / what


def runs(root: Path) -> Path:
    """The folder of runs, one folder each."""
    return root / "runs"


def temporary(root: Path) -> Path:
    """The folder of drafts, on the same file system as all the rest."""
    return root / "tmp"


def lock_file(root: Path) -> Path:
    """The file whose flock writers share and prune has alone. It is never unlinked."""
    return root / "lock"


def pack_path(root: Path, pack: str) -> Path:
    """Where the pack with this id stands. Raises CorruptError for what is no id."""
    return packs(root) / f"{_checked(pack)}.pack"


def gate_file(root: Path) -> Path:
    """The file whose flock one passes on the way to the lock, and a waiting prune holds. It is never unlinked."""
    return root / "gate"


def scrub_file(root: Path) -> Path:
    """The record of what was read back when, and found to be damaged."""
    return root / "scrub.json"


def life_path(root: Path, incarnation: str) -> Path:
    """Where the life record of this incarnation stands. Raises CorruptError for what is no id."""
    return kernels(root) / f"{_checked(incarnation)}.json"


def trace_path(root: Path, incarnation: str, what: str) -> Path:
    """Where a kernel's C handlers write the stack at a fatal error (*what* is `fault`) or at a signal (its name).

    Raises CorruptError for what is no id.
    """
    return kernels(root) / f"{_checked(incarnation)}.{what}"


def request_path(root: Path, incarnation: str) -> Path:
    """Where a request to this kernel waits. Raises CorruptError for what is no id."""
    return kernels(root) / f"{_checked(incarnation)}.request"


def answer_path(root: Path, incarnation: str) -> Path:
    """Where this kernel's last answer to a request stands. Raises CorruptError for what is no id."""
    return kernels(root) / f"{_checked(incarnation)}.answer"


def pin_path(root: Path, snapshot_id: str) -> Path:
    """Where the pin of this snapshot stands. Raises CorruptError for what is no id."""
    return pins(root) / _checked(snapshot_id)


def run_folder(root: Path, name: str) -> Path:
    """Where the run of this name has its files. Raises CorruptError for what is no name of a run."""
    if parse_run_name(name) is None:
        raise CorruptError(f"{name!r} is no name of a run: {RUN_NAMES}.")
    return runs(root) / name


def traces(root: Path) -> list[tuple[Path, str]]:
    """Every trace of a kernel, with the incarnation whose it is."""
    return _of_kernels(root, _TRACE)


def mail(root: Path) -> list[tuple[Path, str]]:
    """Every request to a kernel and every answer of one, with the incarnation whose it is."""
    return _of_kernels(root, _MAIL)


def _of_kernels(root: Path, pattern: re.Pattern[str]) -> list[tuple[Path, str]]:
    try:
        names = os.listdir(kernels(root))
    except OSError:
        return []
    return [(kernels(root) / name, match[1]) for name in names if (match := pattern.fullmatch(name))]


def snapshot_name(sequence: int, identifier: str) -> str:
    """The file name of a manifest. Raises StoreError when the numbers are used up."""
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise StoreError(f"Sequence number {sequence} does not fit into a file name. Begin a new store.")
    return f"{sequence:010d}-{_checked(identifier)}.json"


def parse_snapshot_name(name: str) -> tuple[int, str] | None:
    """The sequence number and the id in a manifest's name; None for any other name."""
    match = _SNAPSHOT.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def parse_pack_name(name: str) -> str | None:
    """The id in a pack's name; None for any other name."""
    match = _PACK.fullmatch(name)
    return match[1] if match else None


def parse_life_name(name: str) -> str | None:
    """The incarnation in a life record's name; None for any other name."""
    match = _LIFE.fullmatch(name)
    return match[1] if match else None


def parse_pin_name(name: str) -> str | None:
    """The snapshot's id that is a pin's name; None for any other name."""
    return name if _ID.fullmatch(name) else None


def parse_run_name(name: str) -> str | None:
    """The name of a run that is its folder's name; None for any other name."""
    return name if _RUN.fullmatch(name) else None


def create(root: Path) -> str:
    """Make what is missing of a store, durably, and return its id. Raises StoreError.

    Two processes that race agree on one id. An existing store is left as it is. The file system of a new one is tried
    out first, and refused where it lacks what a store cannot do without (`ipyrescue.store.probe`).
    """
    with atomic.explained("create the store", root):
        new, alone = not (root / "format.json").exists(), not os.path.lexists(root)
        if new:
            _claim(root)
        if os.path.lexists(root):
            _refuse_unsafe(root, root)  # before anything is made in it
        _make_folders(root)  # also those that a copy of an old store lost because they were empty
        check_writable(root)
        if new:
            _try_out(root, alone=alone)
            _make_files(root)
            _write_format(root)
    return read_store_id(root)


def is_store(root: Path) -> bool:
    """Whether a store is at *root*, whatever it is worth. Raises StoreError where nobody may look."""
    with atomic.explained("read", root):
        return (root / "format.json").exists()


def read_store_id(root: Path) -> str:
    """The id in `format.json`. Writes nothing. Raises StoreError, CorruptError, StoreFormatError."""
    path = root / "format.json"
    try:
        fields = json.loads(atomic.read_file(path, 4096))
    except FileNotFoundError:
        raise StoreError(f"There is no ipyrescue store at {root}. %checkpoint_vars makes one.") from None
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is damaged: {error}. `ipyrescue verify` tells what can be read.") from error
    return _store_id(fields, path)


def check_writable(root: Path) -> None:
    """Refuse to write where somebody else could. Raises StoreError. Reading is never refused."""
    if sys.platform == "win32":
        return
    folders = [root / name for name in FOLDERS]
    for path in (root, *filter(os.path.lexists, folders)):
        _refuse_unsafe(root, path)


def check_folder_writable(folder: Path) -> None:
    """The same for one folder of a store, whatever the others are: for what stands in it alone. Raises StoreError."""
    if sys.platform == "win32":
        return
    with atomic.explained("write to", folder):
        _refuse_unsafe(folder.parent, folder.parent)
        _refuse_unsafe(folder.parent, folder)


def _refuse_unsafe(root: Path, path: Path) -> None:
    gid = ownership.shared_gid(root)
    reason = ownership.folder_refusal(path, gid)
    if reason:
        raise StoreError(
            f"{path} {reason}, so nothing is written to it (restoring works). "
            f"Mend it with `{_mending(root, gid)}` as its owner, or set IPYRESCUE_STORE to another folder."
        )


def _mending(root: Path, gid: int | None) -> str:
    """What the owner of a store types so that it can be written to: by its owner alone, or by a group too."""
    where = shlex.quote(str(root))
    if gid is None and os.lstat(root).st_uid == os.geteuid():
        return f"chmod -R go= {where}"
    return f"ipyrescue key new --shared-group {gid if gid is not None else 'GROUP'} --store {where}"


def _checked(identifier: str) -> str:
    if not _ID.fullmatch(identifier):
        raise CorruptError(f"{identifier!r} is not an id of 16 hex digits.")
    return identifier


def _store_id(fields: object, path: Path) -> str:
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is int and version > STORE_FORMAT:
        raise StoreFormatError(
            f"{path.parent} has store format {version}; this ipyrescue reads up to {STORE_FORMAT}. "
            "Upgrade it: pip install -U ipyrescue"
        )
    store_id = fields.get("store_id") if isinstance(fields, dict) else None
    if version != STORE_FORMAT or type(version) is not int or type(store_id) is not str:
        raise CorruptError(f"{path} is damaged: its fields are not format and store_id.")
    if not _STORE_ID.fullmatch(store_id):
        raise CorruptError(f"{path} is damaged: its store_id is malformed.")
    return store_id


def _try_out(root: Path, *, alone: bool) -> None:
    """Refuse a file system that cannot hold a store; our empty folders go again, the root if we made it *alone*."""
    try:
        probe.require_fit(temporary(root), str(root))
    except FileNotFoundError:
        if not (root / "format.json").exists():  # else a twin was quicker, and a prune of its swept our files
            raise
    except StoreError:
        for path in (*(root / name for name in FOLDERS), *([root] if alone else [])):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _claim(root: Path) -> None:
    """Close an empty folder that the user made for us."""
    _refuse_strange(root)
    if sys.platform != "win32" and root.is_dir() and not root.is_symlink() and root.lstat().st_uid == os.geteuid():
        root.chmod(0o700)


def _make_folders(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o700 if ownership.shared_gid(root) is None else ownership.SHARED_FOLDER
    made = [path for path in (root, *(root / name for name in FOLDERS)) if _make_folder(path, mode)]
    for path in made:
        atomic.sync_folder(path.parent)


def _make_folder(path: Path, mode: int) -> bool:
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return False
    path.chmod(mode)  # a strange umask takes the owner's bits away
    return True


def _refuse_strange(root: Path) -> None:
    """A folder with other things in it is somebody's home or project, not a store in the making."""
    ours = {*FOLDERS, "format.json", "lock", "gate", "scrub.json", ownership.SHARED_MARK, *_TEXTS}
    strange = sorted({entry.name for entry in root.iterdir()} - ours) if root.is_dir() else []
    if strange:
        raise StoreError(
            f"{root} is not an ipyrescue store and not empty (it holds {strange[0]!r}). "
            "Set IPYRESCUE_STORE to an empty or a new folder."
        )


def _make_files(root: Path) -> None:
    for name, text in {**_TEXTS, "lock": ""}.items():
        _publish_once(root, root / name, text, mode=0o600)


def _write_format(root: Path) -> None:
    fields = {"format": STORE_FORMAT, "store_id": secrets.token_hex(16)}
    _publish_once(root, root / "format.json", json.dumps(fields, sort_keys=True) + "\n", mode=0o400)


def _publish_once(root: Path, final: Path, text: str, *, mode: int) -> None:
    """Publish unless a twin was quicker; a prune by that twin may even have swept our draft."""
    try:
        if not final.exists():
            atomic.publish(temporary(root), final, text.encode("ascii"), mode=mode)
    except (FileExistsError, FileNotFoundError):
        if not final.exists():
            raise
