"""`ipyrescue doctor`: where the work stands, what protects it, and what would lose it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue import gpus
from ipyrescue.cli.entries import DEFAULT_FOLDER
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import printable, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption, finish
from ipyrescue.environment import process
from ipyrescue.errors import RescueError
from ipyrescue.identity import of_script, resolve
from ipyrescue.places import inspected
from ipyrescue.places.containers import Facts
from ipyrescue.places.examining import Examination, examine
from ipyrescue.places.findings import Finding, Place
from ipyrescue.places.trying import try_out
from ipyrescue.settings import format_duration, format_size
from ipyrescue.store import keyring, signing
from ipyrescue.wording import count

_INDENT = 12
_WIDEST = 100
_SERVER = "ipyrescue.server"
_VERSIONS = ("ipyrescue", "torch", "numpy", "ipykernel", "jupyter_server", "jupyterlab")


@dataclass(frozen=True)
class Surroundings:
    """What is told beside the findings: the versions that are installed here, the key, torch's GPUs, the server."""

    versions: dict[str, str]
    key: str
    gpu: str
    server: str


def doctor(
    notebook: Annotated[
        str | None, typer.Argument(metavar="NOTEBOOK", help="A notebook or a script; without it, this folder.")
    ] = None,
    inspect: Annotated[
        str | None,
        typer.Option("--inspect", metavar="FILE", help="What `docker inspect NAME` printed; - reads it from stdin."),
    ] = None,
    probing: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Try out the store's file system, with small files.")
    ] = True,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what would lose your work: the container, the disk, the key, logging out.

    Tells the versions, where the store and the key stand, whether they outlive a container, whether torch can see a
    GPU, and what may go wrong, each with the line to type; in a container also the whole docker command line. Tries
    out the file system of the store, in its tmp/, or where it would be made: what is written there, locked, linked
    and renamed is looked at, and removed. Loads no torch; with --no-probe it writes nothing.

    From the inside of a container neither --rm nor the stop timeout can be seen. On its host type
      docker inspect NAME | ipyrescue doctor --inspect -
    where NOTEBOOK, if there is one, names a file in the container.

    Exit code 0: nothing is wrong; 1: there is a warning.

    \b
    --json prints {"versions", "place", "container", "key", "gpu", "server", "findings", "commands"};
      place       "store", "key", "free_bytes", ...; "file_system" {"type", ...} or null; "probed" or null:
                  {"answers": {WHAT: {"works", "detail"}}, "failure", "clock_ahead_seconds", "free_files", ...}
      findings    [{"kind", "level", "text", "type"}], level is warning or note
      commands    the lines for the host, or null
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    described = inspected.parse(_read(inspect)) if inspect is not None else None
    file, root = _subject(notebook, store, in_container=described is not None)
    tried = try_out(root) if probing and described is None else None
    found = examine(file, root, inspected=described, probed=tried)
    around = _surroundings()
    if as_json:
        write_json(_document(found, around))
    else:
        write("\n".join(_lines(found, around)))
    finish(Exit.FAILED if found.warnings else Exit.OK)


def _read(name: str) -> bytes:
    limit = inspected.LARGEST_BYTES + 1
    if name == "-":
        return sys.stdin.buffer.read(limit)
    with open(name, "rb") as file:
        return file.read(limit)


def _subject(notebook: str | None, store: Path | None, *, in_container: bool) -> tuple[Path | None, Path]:
    """The file that is meant, and its store. Raises RescueError where there is no such file here."""
    if notebook is None:
        return None, (store or Path(DEFAULT_FOLDER)).absolute()
    file = Path(notebook)
    if not in_container and not file.exists():
        raise RescueError(f"There is no {notebook} here. Name a notebook or a script, or type: ipyrescue doctor")
    if file.suffix == ".py":
        return file, of_script(notebook, os.environ, Path.cwd(), store).store_root
    environ = {**os.environ, "JPY_SESSION_NAME": os.path.abspath(file)}
    return file, resolve({}, environ, Path.cwd(), store).store_root


# --- what is told beside the findings -----------------------------------------------------------------------------


def _surroundings() -> Surroundings:
    return Surroundings({**process(), **_versions()}, _key_state(), _gpu(), _server())


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _key_state() -> str:
    try:
        found = keyring.look(signing.key_path())
    except FileNotFoundError:
        return "not made yet: the first snapshot makes it"
    return found.refusal or f"good, fingerprint {found.fingerprint}"


def _gpu() -> str:
    """What files say of GPUs. Which build of torch is installed its version may tell, and only where it says so."""
    facts, version = gpus.look(), _versions().get("torch", "")
    built = re.search(r"\+cu(\d+)(\d)$", version)
    cuda = f"{built[1]}.{built[2]}" if built else None
    facts = dataclasses.replace(facts, torch=version if built or version.endswith("+cpu") else "", cuda=cuda)
    return (
        "; ".join(gpus.reasons(facts)) or f"shown to this machine{f', driver {facts.driver}' if facts.driver else ''}"
    )


def _server() -> str:
    """Whether Jupyter Server loads our extension, by its configuration (the folders of `jupyter --paths`)."""
    from jupyter_core.paths import jupyter_config_path

    enabled = None
    for folder in reversed(jupyter_config_path()):
        for path in (*sorted(Path(folder).glob("jupyter_server_config.d/*.json")), Path(folder, _MAIN)):
            enabled = _switch(path) if _switch(path) is not None else enabled
    if enabled:
        return "enabled for Jupyter servers of this environment"
    return "not enabled: deaths are not told in the browser. Type: jupyter server extension enable ipyrescue.server"


_MAIN = "jupyter_server_config.json"


def _switch(path: Path) -> bool | None:
    """What one file of configuration says; None for nothing, also where it cannot be read."""
    with suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
        said = json.loads(path.read_text("utf-8"))["ServerApp"]["jpserver_extensions"][_SERVER]
        return bool(said)
    return None


# --- words --------------------------------------------------------------------------------------------------------


def _document(found: Examination, around: Surroundings) -> dict[str, Any]:
    facts = found.facts
    return {
        "versions": around.versions,
        "place": dataclasses.asdict(found.place),
        "container": _container(facts) if facts.kind else None,
        "key": around.key,
        "gpu": around.gpu,
        "server": around.server,
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "commands": found.commands,
    }


def _container(facts: Facts) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(facts).items() if name != "environ"}


def _lines(found: Examination, around: Surroundings) -> Iterator[str]:
    for title, text in _told(found, around):
        yield from _wrapped(f"{title:<{_INDENT}}{text}", indent=" " * _INDENT)
    for finding in found.findings:
        yield ""
        yield from _finding(finding)
    if found.commands is not None:
        yield "\nOn the host, in the folder that holds the notebooks:\n"
        yield from (f"  {printable(line)}" for line in found.commands.splitlines())
    yield ""
    yield _verdict(found)


def _told(found: Examination, around: Surroundings) -> Iterator[tuple[str, str]]:
    place, facts = found.place, found.facts
    yield "versions", ", ".join(f"{name} {version}" for name, version in _shown(around.versions))
    free = f", {format_size(place.free_bytes)} free" if place.free_bytes is not None else ""
    yield "store", f"{place.store}{free}"
    if place.file_system is not None or place.probed is not None:
        yield "", _of_file_system(place)
    if place.last is not None:
        took = f", in {format_duration(place.last.seconds)}" if place.last.seconds is not None else ""
        yield "", f"the last snapshot: {format_size(place.last.size_bytes)}{took}"
    yield "key", place.key
    if not facts.inspected:
        yield "", around.key
        yield "GPU", around.gpu
        yield "server", around.server
    yield "container", _described(facts)


def _of_file_system(place: Place) -> str:
    """What the store stands on, and what of it was tried and does not work."""
    system, probed = place.file_system, place.probed
    name = f"on {system.type}, {system.source} at {system.point}" if system else "on a file system without a name"
    if probed is None or probed.failure is not None:
        return f"{name}; not tried out"
    files = f", room for {count(probed.free_files, 'file')}" if probed.free_files is not None else ""
    lacking = f", lacks {', '.join(probed.lacking)}" if probed.lacking else ""
    worked = sum(answer.works is True for answer in probed.answers.values())
    return f"{name}{files}; {worked} of {len(probed.answers)} things that were tried work{lacking}"


def _shown(versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, version) for name, version in versions.items() if name not in ("implementation", "container"))


def _described(facts: Facts) -> str:
    if facts.kind is None:
        return "none that can be seen"
    main = f", main process: {' '.join(facts.main)}" if facts.main else ""
    unseen = "" if facts.inspected else "; --rm and the stop timeout only docker inspect knows, see --help"
    return f"{facts.kind}{f' {facts.name}' if facts.name else ''}{main}{unseen}"


def _finding(finding: Finding) -> Iterator[str]:
    yield from _wrapped(f"{finding.level:<{_INDENT}}{finding.text}", indent=" " * _INDENT)
    yield from _wrapped(f"{'  type':<{_INDENT}}{finding.type}", indent=" " * _INDENT)


def _verdict(found: Examination) -> str:
    warnings, notes = len(found.warnings), len(found.findings) - len(found.warnings)
    beside = f", {count(notes, 'note')}" if notes else ""
    return f"{count(warnings, 'warning')}{beside}." if warnings else f"Nothing is wrong here{beside}."


def _wrapped(text: str, *, indent: str) -> list[str]:
    """Lines as wide as the terminal, broken at spaces only: a path or a command stays whole."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.wrap(
        printable(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
