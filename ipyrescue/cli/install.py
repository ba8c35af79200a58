"""`ipyrescue install`: a startup file of ours in the IPython profile, so that every kernel loads ipyrescue."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption
from ipyrescue.errors import CorruptError, RescueError
from ipyrescue.store import atomic

FILE_NAME = "50-ipyrescue.py"
MARKER = "# Written by `ipyrescue install`; `ipyrescue install --uninstall` takes it back."
STARTUP = f"""{MARKER}
# Every kernel and every ipython of this profile loads ipyrescue, as %load_ext ipyrescue does: when a kernel dies, the
# next one says so. Nothing is saved until you ask for it: %checkpoint_vars every=5m


def _load_ipyrescue():
    import sys

    try:
        try:
            from ipyrescue import load_ipython_extension
        except ImportError:
            return  # This environment does not have it; all environments share the profile.
        load_ipython_extension(get_ipython())
    except Exception as error:
        print(f"ipyrescue was not loaded: {{error!r}}", file=sys.stderr)


_load_ipyrescue()
del _load_ipyrescue
"""
_PROFILE = re.compile(r"\w[\w.-]*")
_LARGEST_BYTES = 64 << 10


def install(
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="The IPython profile.")] = "default",
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take the file back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Load ipyrescue in every kernel and every ipython, without %load_ext.

    Writes one file, startup/50-ipyrescue.py in an IPython profile, and nothing else. Loading saves nothing by itself:
    it tells when the last kernel died, and makes the magics ready. Environments without ipyrescue are not disturbed.

    --json prints {"done", "path", "profile"}; done is installed, updated, unchanged, removed or absent.
    """
    path = _profile_folder(profile) / "startup" / FILE_NAME
    done = _remove(path) if uninstall else _put(path)
    if as_json:
        write_json({"done": done, "path": str(path), "profile": profile})
    else:
        _tell(done, path, profile)


def _profile_folder(profile: str) -> Path:
    """Where IPython keeps the profile (`ipython locate profile`). Raises RescueError where it has none."""
    if not _PROFILE.fullmatch(profile):
        raise RescueError(f"`{profile}` is no name of a profile. See: ipython profile list")
    home = Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser().absolute()
    folder = home / f"profile_{profile}"
    if profile != "default" and not folder.is_dir():  # IPython makes no profile but the default one by itself
        raise RescueError(f"There is no profile {profile} in {home}. Make it: ipython profile create {profile}")
    return folder


def _put(path: Path) -> str:
    before = _ours(path)
    if before == STARTUP:
        return "unchanged"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.replace(path, STARTUP.encode("ascii"), durable=True)
    return "installed" if before is None else "updated"


def _remove(path: Path) -> str:
    if _ours(path) is None:
        return "absent"
    path.unlink()
    return "removed"


def _ours(path: Path) -> str | None:
    """What stands in the file; None where there is none. Raises RescueError for a file that is not ours."""
    try:
        text = atomic.read_file(path, _LARGEST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except CorruptError as error:  # a link, a folder, something huge
        raise _not_ours(path) from error
    if text.partition("\n")[0].rstrip() != MARKER:
        raise _not_ours(path)
    return text


def _not_ours(path: Path) -> RescueError:
    return RescueError(f"{path} was not written by ipyrescue, so it is left as it is. Look at it, and move it away.")


def _tell(done: str, path: Path, profile: str) -> None:
    option = "" if profile == "default" else f" --profile {profile}"
    if done == "removed":
        write(printable(f"Removed {path}"))
        say("Kernels that run keep ipyrescue; new ones load it with %load_ext ipyrescue.")
    elif done == "absent":
        write(printable(f"Nothing to remove: there is no {path}"))
    else:
        told = {"installed": "Wrote", "updated": "Wrote anew", "unchanged": "Already there:"}[done]
        write(printable(f"{told} {path}"))
        say(f"Every new kernel and ipython loads ipyrescue now. Take it back: ipyrescue install --uninstall{option}")
