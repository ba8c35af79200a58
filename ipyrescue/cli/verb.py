"""What every verb shares: its options, and how it ends when something goes wrong."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ipyrescue.cli.exits import Exit, exit_code
from ipyrescue.cli.output import say
from ipyrescue.errors import RescueError

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="IPYRESCUE_STORE",
        metavar="PATH",
        help="The store; by default ./.ipyrescue",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


class Verb(TyperCommand):
    """A command whose errors end in a sentence and an exit code, never in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run it; raise `typer.Exit` where it fails."""
        try:
            return super().invoke(ctx)
        except RescueError as error:
            _tell(error, as_json=bool(ctx.params.get("as_json")), code=exit_code(error))
            raise typer.Exit(exit_code(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # `ipyrescue ls | head` closed the pipe: typer knows what to do
                raise
            _tell(error, as_json=bool(ctx.params.get("as_json")), code=Exit.FAILED)
            raise typer.Exit(Exit.FAILED) from error


def finish(code: Exit) -> None:
    """End a command whose output is complete."""
    if code is not Exit.OK:
        raise typer.Exit(code)


def _tell(error: Exception, *, as_json: bool, code: Exit) -> None:
    if as_json:
        fields = {"type": type(error).__name__, "message": str(error), "exit_code": int(code)}
        print(json.dumps({"error": fields}, indent=2), file=sys.stderr)
    else:
        say(f"ipyrescue: {error}")
