"""Put all cases before ipyrescue and its rivals and write the pages: `PYTHONPATH=tests python -m fidelity [--ours]`.

What has been done is told on stderr; with `--ours` no rival is asked, and only the table of README.md is written.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fidelity import lives, rivals, table
from fidelity.case import FAMILIES, SESSIONS, Family, Verdict, load

_WORKERS = 2


def main() -> int:
    """Print the page and write it; 1 where a case is neither as it should be nor explained."""
    families = {name: load(name) for name in FAMILIES}
    asked = () if "--ours" in sys.argv else rivals.RIVALS
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(_WORKERS) as pool:
        _live_in(home)
        ours = [pool.submit(_verdicts, [families[name] for name in session], Path(home)) for session in SESSIONS]
        theirs = {rival: pool.submit(rivals.verdicts, rival) for rival in asked}
        try:
            found = {name: verdicts for session in ours for name, verdicts in session.result().items()}
            beside = {rival: future.result() for rival, future in theirs.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    page = table.page(list(families.values()), found, beside)
    print(page)
    if asked:
        table.PAGE.parent.mkdir(exist_ok=True)
        table.PAGE.write_text(page, encoding="utf-8")
    readme = table.README.read_text(encoding="utf-8")
    table.README.write_text(table.with_table(readme, list(families.values()), found), encoding="utf-8")
    unexplained = [line for name, family in families.items() for line in lives.unexpected(family, found[name])]
    for line in unexplained:
        print(line, file=sys.stderr)
    return 1 if unexplained else 0


def _verdicts(families: Sequence[Family], home: Path) -> dict[str, list[Verdict]]:
    started = time.monotonic()
    found = lives.verdicts(families, Path(tempfile.mkdtemp(dir=home)))
    count = sum(map(len, found.values()))
    titles = ", ".join(family.title for family in families)
    print(f"ipyrescue: {titles}: {count} cases, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return found


def _live_in(home: str) -> None:
    """Keep the signing key, the configuration and the history of whoever runs this out of it."""
    os.environ.update(
        HOME=home,
        IPYTHONDIR=f"{home}/ipython",
        JUPYTER_CONFIG_DIR=f"{home}/config",
        JUPYTER_DATA_DIR=f"{home}/data",
        JUPYTER_RUNTIME_DIR=f"{home}/runtime",
    )


if __name__ == "__main__":
    sys.exit(main())
