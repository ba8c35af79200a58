"""Runs inside the kernels of a family: takes the snapshot, restores it, and judges every case by itself.

Turns cases into plain facts in a JSON file. It leaves no name behind in the namespace of the user.
"""

from __future__ import annotations

import ast
import contextlib
import json
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fidelity.digests import digest

CHECK_SECONDS = 20


class TooSlow(BaseException):
    """A check did not end."""


def save(facts: str) -> None:
    """Take one snapshot of everything, as `%checkpoint_vars` does, and note what it says it left out."""
    import ipyrescue

    _note(facts, ipyrescue.checkpoint())


def restore(facts: str) -> None:
    """Restore everything, as `%restore_vars` does, and note what it says did not come back."""
    import ipyrescue

    _note(facts, ipyrescue.restore())


def _note(facts: str, report: Any) -> None:
    skipped = [(s.name, s.reason) for s in report.skipped]
    Path(facts).write_text(json.dumps({"skipped": skipped, "warnings": list(report.warnings)}), encoding="utf-8")


def judge(namespace: dict[str, Any], cases: str, facts: str) -> None:
    """Write for every case what failed to hold and the digests of what is to stay the same."""
    found = {}
    for name, holds, same in json.loads(Path(cases).read_text(encoding="utf-8")):
        found[name] = {"failed": "", "same": []}
        try:
            for check in holds:
                _insist(check, namespace)
            found[name]["same"] = [digest(_value(expression, namespace)) for expression in same]
        except BaseException as error:  # noqa: BLE001 - a case may raise anything; it is the verdict
            found[name]["failed"] = _words(error)
    Path(facts).write_text(json.dumps(found), encoding="utf-8")


def _insist(check: str, namespace: dict[str, Any]) -> None:
    if not _value(check, namespace):
        raise AssertionError(f"does not hold: {check}")


def _value(cell: str, namespace: dict[str, Any]) -> Any:
    """Run a cell in the namespace; the value of its last line, or true where that is a statement."""
    tree = ast.parse(cell.strip("\n"))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with _in_time(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(tree, "<check>", "exec"), namespace)
        if last is None:
            return True
        return eval(compile(ast.Expression(last.value), "<check>", "eval"), namespace)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow(f"did not end in {CHECK_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(CHECK_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _words(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - code of a case
        lines = []
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
