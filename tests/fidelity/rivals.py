"""The same cases through what people use today: dill.dump_module, IPython's %store, cloudpickle.

Each case has a process for its cells and the dump, and another one for the load and the judgement, both forked from one
that has imported the libraries. A rival gets what helps it: a case alone, so that no other can harm it, its imports run
again before the load, and every complaint, at the dump or at the load, counts as having named the loss.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from fidelity.case import EXACT, FAMILIES, LOST, NAMED, Case, Family, Verdict, bound_names, load

RIVALS = ("dill", "store", "cloudpickle")
TITLES = {"dill": "dill.dump_module", "store": "%store", "cloudpickle": "cloudpickle"}
NOT_ASKED = ("rules",)
"""Families about ipyrescue's own manners."""

CHILD_SECONDS = 30
CHILD_BYTES = 16 << 30
_LIBRARIES = (
    "attrs", "bs4", "cloudpickle", "dill", "IPython.extensions.storemagic", "IPython.external.pickleshare", "joblib",
    "matplotlib.pyplot", "networkx", "pandas", "PIL.Image", "polars", "pyarrow.compute", "pyarrow.dataset",
    "pydantic", "requests", "scipy.interpolate", "scipy.optimize", "scipy.sparse", "scipy.stats", "sklearn.cluster",
    "sklearn.compose", "sklearn.ensemble", "sklearn.feature_extraction.text", "sklearn.gaussian_process",
    "sklearn.model_selection", "sklearn.neural_network", "sklearn.pipeline", "sklearn.svm", "sympy", "tokenizers",
    "torch", "torch._dynamo", "torch.nn.utils.prune", "torch.optim.swa_utils",
)  # fmt: skip
_HERE = Path(__file__).parent.parent


def verdicts(rival: str) -> dict[str, list[Verdict]]:
    """Put every case of every family before one rival; about two minutes."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.json"
        path = os.pathsep.join(filter(None, [str(_HERE), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "HOME": folder, "IPYTHONDIR": folder}
        code = f"from fidelity.rivals import serve; serve({rival!r}, {str(facts)!r}, {folder!r})"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, cwd=folder, check=True)
        found = json.loads(facts.read_text(encoding="utf-8"))
    return {family: [Verdict(*verdict) for verdict in found[family]] for family in found}


def serve(rival: str, facts: str, folder: str) -> None:
    """Judge all families in this process's children; runs as the main program."""
    warnings.simplefilter("ignore")
    _import_libraries()
    found = {}
    for name in FAMILIES:
        if name not in NOT_ASKED:
            family, started = load(name), time.monotonic()
            found[name] = [_judge(rival, family, case, Path(folder)) for case in family.cases]
            told = f"{TITLES[rival]}: {family.title}: {len(family.cases)} cases, {time.monotonic() - started:.0f} s"
            print(told, file=sys.stderr, flush=True)
    Path(facts).write_text(json.dumps(found), encoding="utf-8")


def _import_libraries() -> None:
    """Import once what the children would import again and again, and have a shell that they all begin with."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    InteractiveShell.instance(config=config, user_module=sys.modules["__main__"])


def _judge(rival: str, family: Family, case: Case, folder: Path) -> tuple[str, str, str]:
    place, facts = folder / "dump", folder / "facts"
    for left in (place, facts):
        subprocess.run(["rm", "-rf", str(left)], check=True)
    then = _in_a_child(lambda: _dump(rival, family, case, place), facts)
    if then is None or then.get("told"):
        return case.name, NAMED, (then or {}).get("told", "the process that dumps it dies")
    now = _in_a_child(lambda: _load(rival, family, case, place), facts)
    if now is None or now.get("told"):
        return case.name, NAMED, (now or {}).get("told", "the process that loads it dies")
    failed = now["failed"] or ("changed" if then["same"] != now["same"] else "")
    outcome = LOST if failed or case.named else EXACT
    return case.name, outcome, failed


def _in_a_child(work: Callable[[], dict[str, Any]], facts: Path) -> dict[str, Any] | None:
    """Run *work* in a forked process; what it returns, or None where it died or did not end."""
    facts.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
            facts.write_text(json.dumps(work()), encoding="utf-8")
        os._exit(0)
    deadline = time.monotonic() + CHILD_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)
    return json.loads(facts.read_text(encoding="utf-8")) if facts.exists() else None


def _dump(rival: str, family: Family, case: Case, place: Path) -> dict[str, Any]:
    names, run = _session(rival, place)
    run(family.prelude)
    for source in [*_needed(case, family), case.setup]:
        run(source)
    with _heard() as said:
        told = _attempt(lambda: _DUMP[rival](_saved(family, case, names), names, place))
    told = told or next((line for line in said.getvalue().splitlines() if "arning" in line or "rror" in line), "")
    return {"told": told, "same": _judged(names, case)["same"] if not told else []}


def _load(rival: str, family: Family, case: Case, place: Path) -> dict[str, Any]:
    names, run = _session(rival, place)
    run(family.prelude)
    with _heard() as said:
        told = _attempt(lambda: _LOAD[rival](names, place))
    told = told or next((line for line in said.getvalue().splitlines() if "arning" in line or "rror" in line), "")
    return {"told": told, **_judged(names, case)}


def _judged(names: dict[str, Any], case: Case) -> dict[str, Any]:
    from fidelity import probing

    with tempfile.TemporaryDirectory() as folder:
        cases, facts = Path(folder) / "c", Path(folder) / "f"
        cases.write_text(json.dumps([(case.name, case.holds, case.same)]), encoding="utf-8")
        probing.judge(names, str(cases), str(facts))
        found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))[case.name]
        return found


def _session(rival: str, place: Path) -> tuple[dict[str, Any], Callable[[str], Any]]:
    """A clean `__main__`, and how cells are run in it."""
    main = sys.modules["__main__"]
    for name in [name for name in vars(main) if not name.startswith("__")]:
        delattr(main, name)
    shell = InteractiveShell.instance()
    shell.user_module = main
    shell.user_ns.update(get_ipython=lambda: shell)
    if rival == "store":
        from IPython.extensions.storemagic import StoreMagics
        from IPython.external.pickleshare import PickleShareDB

        shell.db = PickleShareDB(str(place))
        shell.register_magics(StoreMagics(shell))

    def run(source: str) -> None:
        shell.run_cell(source, silent=True, store_history=False).raise_error()

    return vars(main), run


@contextlib.contextmanager
def _heard() -> Any:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def _attempt(work: Callable[[], Any]) -> str:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - a rival may raise anything; it is what it tells
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def _saved(family: Family, case: Case, names: dict[str, Any]) -> list[str]:
    """The names that a user would save: modules only where a case of the session's own facts imports them."""
    imported = bound_names(case.setup) if family.name == "session" else set()
    bound = set().union(*(bound_names(cell) for cell in (family.prelude, *_needed(case, family), case.setup)))
    return sorted(
        name for name in bound & names.keys() if name in imported or not issubclass(type(names[name]), types.ModuleType)
    )


def _dill_dump(_saved: list[str], names: dict[str, Any], place: Path) -> None:
    import dill

    kept = {name: names.pop(name) for name in ("In", "Out", "get_ipython", "exit", "quit", "open") if name in names}
    for name in [name for name in names if name.startswith("_") and not name.startswith("__")]:
        kept[name] = names.pop(name)
    dill.dump_module(str(place))
    names.update(kept)


def _dill_load(_names: dict[str, Any], place: Path) -> None:
    import dill

    dill.load_module(str(place))


def _cloudpickle_dump(saved: list[str], names: dict[str, Any], place: Path) -> None:
    import cloudpickle

    place.write_bytes(cloudpickle.dumps({name: names[name] for name in saved}))


def _cloudpickle_load(names: dict[str, Any], place: Path) -> None:
    import pickle

    names.update(pickle.loads(place.read_bytes()))


def _store_dump(saved: list[str], _names: dict[str, Any], _place: Path) -> None:
    from IPython.core.getipython import get_ipython

    for name in saved:
        get_ipython().run_line_magic("store", name)


def _store_load(_names: dict[str, Any], _place: Path) -> None:
    from IPython.core.getipython import get_ipython

    get_ipython().run_line_magic("store", "-r")


_DUMP = {"dill": _dill_dump, "store": _store_dump, "cloudpickle": _cloudpickle_dump}
_LOAD = {"dill": _dill_load, "store": _store_load, "cloudpickle": _cloudpickle_load}


def _needed(case: Case, family: Family) -> list[str]:
    """The cells of earlier cases whose names this case uses."""
    used = {node.id for text in (case.setup, *case.holds, *case.same) for node in _names(text)}
    own = bound_names(case.setup)
    cells = []
    for other in family.cases:
        if other is case:
            break
        if (used - own) & bound_names(other.setup):
            cells += [cell for cell in (*_needed(other, family), other.setup) if cell not in cells]
    return cells


def _names(source: str) -> list[ast.Name]:
    return [node for node in ast.walk(ast.parse(source.strip())) if isinstance(node, ast.Name)]
