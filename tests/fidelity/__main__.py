"""Put all cases before ipyrescue and its rivals and write the page: `PYTHONPATH=tests python -m fidelity [--ours]`."""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fidelity import lives, rivals, table
from fidelity.case import FAMILIES, load


def main() -> int:
    """Print the page and write it; 1 where a case is neither as it should be nor explained."""
    families = [load(name) for name in FAMILIES]
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(2) as pool:
        _live_in(home)
        beside = {} if "--ours" in sys.argv else {r: pool.submit(rivals.verdicts, r) for r in rivals.RIVALS}
        ours = {f.name: pool.submit(lives.verdicts, f, _folder(home, f.name)) for f in families}
        found = {name: future.result() for name, future in ours.items()}
        page = table.page(families, found, {rival: future.result() for rival, future in beside.items()})
    print(page)
    if "--ours" not in sys.argv:
        table.PAGE.parent.mkdir(exist_ok=True)
        table.PAGE.write_text(page, encoding="utf-8")
    unexplained = [line for f in families for line in lives.unexpected(f, found[f.name])]
    print(*unexplained, sep="\n", file=sys.stderr)
    return 1 if unexplained else 0


def _live_in(home: str) -> None:
    """Keep the signing key, the configuration and the history of whoever runs this out of it."""
    os.environ.update(
        HOME=home,
        IPYTHONDIR=f"{home}/ipython",
        JUPYTER_CONFIG_DIR=f"{home}/config",
        JUPYTER_DATA_DIR=f"{home}/data",
        JUPYTER_RUNTIME_DIR=f"{home}/runtime",
    )


def _folder(home: str, name: str) -> Path:
    folder = Path(home) / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
