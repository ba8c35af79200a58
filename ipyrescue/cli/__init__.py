"""The command `ipyrescue`: a store seen from a terminal. Never loads torch, dill or cloudpickle, never unpickles."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the console script and `python -m ipyrescue` begin here."""
    try:
        from ipyrescue.cli.app import app

        app(prog_name="ipyrescue")
    except KeyboardInterrupt:  # while importing; once it runs, typer exits with the same code
        sys.exit(130)
