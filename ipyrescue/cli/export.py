"""`ipyrescue export`: variables of a snapshot as files that others read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import open_store, signer
from ipyrescue.cli.output import console, printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RestoreError, StoreError, UntrustedError
from ipyrescue.interchange import drafts, folder, npy, plain, safetensors
from ipyrescue.interchange.plain import Plain
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_size
from ipyrescue.store import Store, signing
from ipyrescue.store.catalog import Foreign

_PLAIN = {".safetensors": safetensors, ".npz": npy}
_UNPICKLED = {".pt": "pt", ".pth": "pt", ".parquet": "parquet"}
_WORTH_A_BAR_BYTES = 500 * 10**6


def export(
    snapshot: Annotated[str, typer.Argument(metavar="ID", help="An id or its beginning, a label or latest~N.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Variables or tensors; all that fit when not given.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="What to write; by its ending.")] = ...,  # type: ignore[assignment]
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write variables of a snapshot into a file that is read without ipyrescue. Nothing is overwritten.

    \b
    FILE.safetensors  tensors and arrays, by their dotted names
    FILE.npz          the same for NumPy, which lacks some types of torch
    FILE.pt           state dicts and simple values, for torch.load(weights_only=True)
    FILE.parquet      one table of pandas or polars
    DIR               all of it: tensors as .npy, the manifest, the streams, a reader

    What does not fit is left out and said; what was named and does not fit is refused.
    The names of one module lose its own: export ID model gives fc1.weight. A .pt has model_state, optimizer_state and
    the other names as they are. Only .pt and .parquet unpickle, in a process of their own, after every check.
    Of a snapshot that another key signed .safetensors and .npz are written, and said to be unchecked.
    """  # noqa: D301 - typer's mark for lines that stay as they are
    opened, target = open_store(store, need_key=out.suffix not in _PLAIN), out.absolute()
    found, foreign = _whoever_signed(opened, snapshot)
    drafts.refuse_taken(target)
    if foreign is not None:
        _refuse_to_unpickle(foreign, target)
        say(f"UNCHECKED: nobody whom you know vouches for snapshot {found.id[:8]} ({signer(foreign)}).")
    if target.suffix in _UNPICKLED:
        written = _export_unpickled(opened, found, names or [], target)
    elif target.suffix in _PLAIN:
        written = _export_plain(opened, found, names or [], target, is_foreign=foreign is not None)
    elif not target.suffix and not names:
        written = _export_folder(opened, found, target)
    else:
        raise typer.BadParameter(
            f"{target.name}: end it with .safetensors, .npz, .pt or .parquet; a folder without a dot takes all names."
        )
    if as_json:
        write_json({"store": str(opened.root), "snapshot": found.id, "output": str(target), **written})
    else:
        _write(target, written)


def _whoever_signed(store: Store, spec: str) -> tuple[Snapshot, Foreign | None]:
    """The snapshot that is meant; if another key signed it, whose it is."""
    try:
        return store.find(spec), None
    except UntrustedError:
        foreign = store.untrusted(spec)
        return foreign.snapshot, foreign


def _refuse_to_unpickle(foreign: Foreign, target: Path) -> None:
    if target.suffix not in _PLAIN:
        identifier = foreign.snapshot.id[:8]
        raise UntrustedError(
            f"Nothing was exported: snapshot {identifier} was signed with another key ({signer(foreign)}), so only "
            f".safetensors and .npz are written of it. If you trust its maker: ipyrescue trust {identifier}"
        )


def _export_plain(
    store: Store, snapshot: Snapshot, names: Sequence[str], target: Path, *, is_foreign: bool
) -> dict[str, Any]:
    form, chosen = _PLAIN[target.suffix], plain.chosen(snapshot, names)
    left_out = {} if names else {found.name: why for found in chosen if (why := form.misfit(found))}
    fitting = [found for found in chosen if found.name not in left_out]
    if not fitting:
        raise StoreError(_nothing_fits(snapshot, target, left_out))
    if is_foreign:
        plain.refuse_the_impossible(snapshot, fitting, free_bytes=_free_memory_bytes())
    tensors = _keyed(fitting, names)
    about = {"format": "pt", "ipyrescue_snapshot": snapshot.id}
    with (
        drafts.file(target) as draft,
        _progress(sum(found.size_bytes for _, found in tensors)) as advance,
        open(draft, "wb") as file,
    ):
        form.write(file, tensors, _reader(store, snapshot, advance), about)
    return {"keys": [key for key, _ in tensors], "left_out": left_out}


def _nothing_fits(snapshot: Snapshot, target: Path, left_out: Mapping[str, str]) -> str:
    whose = f"; {next(iter(left_out))}: {next(iter(left_out.values()))}" if left_out else ""
    return (
        f"Nothing was exported: nothing in snapshot {snapshot.id[:8]} fits into {target.name}, which takes tensors and "
        f"arrays that have a name{whose}. ipyrescue show {snapshot.id[:8]} lists what it holds."
    )


def _free_memory_bytes() -> int:
    """How much memory is free, as far as the system tells; else what any machine has."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 30


def _keyed(tensors: Sequence[Plain], names: Sequence[str]) -> list[tuple[str, Plain]]:
    """Each under its dotted name; behind the one name that was asked for, where that is not a tensor itself."""
    prefix = f"{names[0]}." if len(names) == 1 else ""
    strip = bool(prefix) and all(found.name.startswith(prefix) for found in tensors)
    return [(found.name.removeprefix(prefix) if strip else found.name, found) for found in tensors]


def _reader(store: Store, snapshot: Snapshot, advance: Callable[[int], None]) -> Callable[[Plain], bytearray]:
    def read(found: Plain) -> bytearray:
        data = plain.read(store, snapshot, found)
        advance(len(data))
        return data

    return read


def _export_folder(store: Store, snapshot: Snapshot, target: Path) -> dict[str, Any]:
    with drafts.folder(target) as draft, _progress(snapshot.size_bytes) as advance:
        left_out = folder.write(draft, store, snapshot, advance)
        listed = json.loads((draft / "tensors.json").read_text(encoding="ascii"))
    return {"keys": [entry["name"] for entry in listed], "left_out": left_out}


@contextlib.contextmanager
def _progress(size_bytes: int) -> Any:
    """Tell of bytes written, by a progress bar where a person waits for it."""
    from rich.progress import Progress

    hidden = size_bytes < _WORTH_A_BAR_BYTES or not sys.stderr.isatty()
    with Progress(console=console(sys.stderr), transient=True, disable=hidden) as progress:
        task = progress.add_task("Exporting", total=size_bytes)
        yield lambda done: progress.advance(task, done)


def _export_unpickled(store: Store, snapshot: Snapshot, names: Sequence[str], target: Path) -> dict[str, Any]:
    _check_names(snapshot, names, target)
    with drafts.file(target) as draft:
        order = {
            "store": str(store.root),
            "key_path": str(signing.key_path().absolute()),
            "snapshot": snapshot.id,
            "names": list(names),
            "format": _UNPICKLED[target.suffix],
            "draft": str(draft),
            "path": [str(folder) for folder in dict.fromkeys((store.root.parent, _folder_of(store, snapshot)))],
        }
        answer = _in_a_process(order, store.root.parent)
        if "error" in answer:
            raise RestoreError(answer["error"])
        return answer


def _check_names(snapshot: Snapshot, names: Sequence[str], target: Path) -> None:
    unknown = [name for name in names if name not in snapshot.names]
    if unknown:
        raise RestoreError(f"Nothing was exported: snapshot {snapshot.id[:8]} has no {', '.join(unknown)}.")
    if target.suffix == ".parquet" and len(names) != 1:
        raise RestoreError(
            f"Nothing was exported: {target.name} holds one table. Name it: ipyrescue export {snapshot.id[:8]} NAME -o "
            f"{target.name}"
        )


def _folder_of(store: Store, snapshot: Snapshot) -> Path:
    """Where the notebook stands, and modules beside it."""
    return (store.root.parent / snapshot.notebook).parent


def _in_a_process(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Have a fresh process follow *order*; it is gone when this returns. Raises RestoreError."""
    with tempfile.TemporaryFile() as answer_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ipyrescue.exporting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            pass_fds=(answer_file.fileno(),),
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(json.dumps({**order, "answer": answer_file.fileno()}).encode())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answer_file.seek(0)
        said = answer_file.read()
    if not said:
        raise RestoreError(f"Nothing was exported: the process that unpickled it {_ended(process.returncode, errors)}.")
    answer: dict[str, Any] = json.loads(said)
    return answer


def _ended(code: int, errors: bytes) -> str:
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return f"ended with exit status {code}" + (f" ({lines[-1][:200]})" if lines else "")


def _write(target: Path, written: dict[str, Any]) -> None:
    keys = written["keys"]
    size = sum(p.stat().st_size for p in ([target] if target.is_file() else target.rglob("*")) if p.is_file())
    write(printable(f"Wrote {target.name}: {len(keys)} key{'s' * (len(keys) != 1)}, {format_size(size)}"))
    for name, reason in written["left_out"].items():
        say(f"Left out: {name} ({reason})")
