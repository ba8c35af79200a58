"""`python -m ipyrescue.runs FOLDER`: the process of a detached run."""

from __future__ import annotations

import sys
from pathlib import Path

from ipyrescue.errors import RescueError
from ipyrescue.runs.serving import serve


def main() -> int:
    """Execute the run in the folder that the command line names; return its exit code."""
    try:
        return serve(Path(sys.argv[1]), foreground=False)
    except RescueError as error:
        sys.stderr.write(f"ipyrescue: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
