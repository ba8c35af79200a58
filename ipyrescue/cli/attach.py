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
    if as_json:
        write_json({"name": name, "connection_file": str(file), "console": _console(file), "jupyterlab": _lab(file)})
        return
    write("\n".join(_lines(file)))
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


def _lines(file: Path) -> Iterator[str]:
    told = {
        "file": str(file),
        "console": _console(file),
        "JupyterLab": _lab(file),
        "": 'then: Kernel > Change Kernel..., and take the one under "Use Kernel from Other Session"',
        "VS Code": "has no command for a connection file: connect it to the server of the line above",
    }
    for title, text in told.items():
        yield printable(f"{title:<{_INDENT}}  {text}")


def _console(file: Path) -> str:
    return shlex.join(["jupyter", "console", "--existing", str(file)])


def _lab(file: Path) -> str:
    """JupyterLab, told to list the kernels of others whose connection files lie in that folder (jupyter_server)."""
    options = ["--ServerApp.allow_external_kernels=True", f"--ServerApp.external_connection_dir={file.parent}"]
    return shlex.join(["jupyter", "lab", *options])
