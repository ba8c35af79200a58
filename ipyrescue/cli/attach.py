"""`ipyrescue attach`: the way into the kernel of a run that lives: a console here, JupyterLab, VS Code."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli import runs
from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RunError
from ipyrescue.identity import state_folder
from ipyrescue.runs import registry

_INDENT = 10


def attach(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run, as ipyrescue ps names it.")],
    only_print: Annotated[bool, typer.Option("--print", help="Only say how; open no console.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a console on the kernel of a run, and say how JupyterLab and VS Code get there.

    While a cell runs the kernel answers no other; what is typed waits for its end. Leave the console with Ctrl-D and
    keep the kernel: it is the run's. Where jupyter_console is missing (pip install jupyter-console), and with --print
    or --json, it only says how.

    \b
    --json prints {"name", "connection_file", "console", "jupyterlab"}; the last two are command lines
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    file = _connection_file(registry.find(name, store))
    folder = _show_to_servers(file, name)
    if as_json:
        write_json({"name": name, "connection_file": str(file), "console": _console(file), "jupyterlab": _lab(folder)})
        return
    write("\n".join(_lines(file, folder)))
    if only_print:
        return
    if importlib.util.find_spec("jupyter_console") is None:
        say("No console is opened, since jupyter_console is not here: pip install jupyter-console")
        return
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "jupyter_console", "--existing", str(file)])  # noqa: S606


def _connection_file(folder: Path) -> Path:
    """The file by which clients find the kernel. Raises RunError where there is no kernel now."""
    record = runs.look(folder).record
    if record.kind == "script":
        raise RunError(
            f"{folder.name} runs a script, which has no kernel to open. Its output: ipyrescue logs -f {folder.name}"
        )
    if record.state != "running" or record.connection_file is None:
        raise RunError(f"The run {folder.name} is {record.state}, so there is no kernel to attach to. See ipyrescue ps")
    file = Path(record.connection_file)
    if not file.is_file():
        raise RunError(
            f"The connection file {file} cannot be seen from here. Attach on the machine of the run, in its container."
        )
    return file


def _show_to_servers(file: Path, name: str) -> Path:
    """Lay a link to the connection file into a folder of such links alone; return the folder.

    A server lists every connection file in the folder that it is shown, so it is not shown the one of all kernels. The
    link of a kernel that ended leads nowhere, and is not listed.
    """
    folder = state_folder(os.environ) / "ipyrescue" / "kernels"
    link = folder / f"{name}.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    except OSError:  # a home that cannot be written, or Windows
        return file.parent
    return folder


def _lines(file: Path, folder: Path) -> Iterator[str]:
    told = (
        ("file", str(file)),
        ("console", _console(file)),
        ("JupyterLab", _lab(folder)),
        ("", "then in a notebook: Kernel > Change Kernel..., under Connect to Existing Kernel"),
        ("VS Code", "has no command for a connection file: let it use the server that the line above starts"),
        ("", "(Select Kernel > Existing Jupyter Server...), and choose the kernel there"),
    )
    for title, text in told:
        yield printable(f"{title:<{_INDENT}}  {text}")


def _console(file: Path) -> str:
    return shlex.join(["jupyter", "console", "--existing", str(file)])


def _lab(folder: Path) -> str:
    """JupyterLab, told to list kernels of others, whose connection files lie in *folder* (jupyter_server)."""
    options = ["--ServerApp.allow_external_kernels=True", f"--ServerApp.external_connection_dir={folder}"]
    return shlex.join(["jupyter", "lab", *options])
