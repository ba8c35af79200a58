"""Imports point down. These two tables are the architecture; edit them on purpose."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ipyrescue"

NOUNS = {
    "errors", "settings", "manifest", "environment", "gpus", "wording", "identity", "comparing", "cells", "credentials",
    "redaction", "addresses", "stack", "cgroups", "trained",
}  # fmt: skip
PARTS = {"store", "pickling", "capture"}  # strangers to each other
VERBS = {
    "checkpointing", "restoring", "safe_restoring", "selection", "finding", "getting", "binding", "caveats", "checking",
}  # the verbs, and stages of theirs  # fmt: skip

# A unit (a folder or a top-level module) -> the units it may import.
MAY_IMPORT = {
    "errors": set(),
    "addresses": set(),
    "settings": {"errors"},
    "manifest": {"errors"},
    "environment": {"gpus"},
    "gpus": set(),
    "wording": {"settings"},
    "identity": set(),
    "comparing": {"manifest"},
    "cells": {"errors"},
    "stack": set(),
    "trained": {"wording"},
    "credentials": set(),
    "redaction": {"credentials"},
    "cgroups": set(),
    "store": NOUNS,
    "pickling": NOUNS,
    "capture": NOUNS,
    "selection": NOUNS,
    "finding": NOUNS | {"store"},
    "getting": NOUNS | {"store", "pickling", "finding"},
    "binding": {"errors"},
    "caveats": NOUNS | {"pickling", "finding", "getting", "binding"},
    "checkpointing": NOUNS | PARTS | {"selection", "binding"},
    "restoring": NOUNS | {"store", "pickling", "finding", "getting", "binding", "caveats"},
    "safe_restoring": NOUNS | {"store", "pickling", "finding", "getting", "binding", "restoring"},
    "checking": NOUNS | {"store", "pickling", "getting", "restoring"},
    "exporting": NOUNS | {"store", "restoring"},
    "interchange": NOUNS | {"store"},
    "incarnations": NOUNS | {"store", "finding"},
    "kernel": NOUNS | VERBS | {"store", "capture", "incarnations", "training"},
    "training": NOUNS | VERBS | {"store", "capture"},
    # What follows never unpickles, so it never gets near what could.
    "places": NOUNS | {"store"},
    "runs": NOUNS | {"store", "incarnations", "places"},
    "server": NOUNS | {"store", "incarnations", "runs"},
    "cli": NOUNS | {"store", "incarnations", "interchange", "places", "runs"},
    "__main__": {"cli"},
    "__init__": {"errors", "manifest", "restoring", "kernel", "training", "server"},  # lazily, one name at a time
}

# A module that is not ours -> the units that may import it. Asking `sys.modules` whether it is there is free to all.
OWNED_BY = {
    # Unpickling runs code.
    "pickle": {"pickling"},
    "_pickle": {"pickling"},
    "copyreg": {"pickling"},
    "marshal": {"pickling"},
    "shelve": set(),
    "cloudpickle": {"pickling", "capture", "training"},
    "dill": {"pickling", "capture", "training"},
    "numpy": {"pickling", "capture", "training"},
    "torch": {"pickling", "capture", "training", "exporting"},
    "zstandard": {"pickling"},
    "blake3": {"store"},
    "jupyter_core": {"settings", "store", "cli"},
    "psutil": {"environment", "store", "capture", "kernel", "runs"},
    "IPython": {"kernel"},
    "traitlets": {"kernel", "server"},
    "jupyter_client": {"runs"},
    "nbclient": {"runs"},
    "nbformat": {"runs"},
    "jupyter_events": {"server"},
    "jupyter_server": {"server"},
    "tornado": {"server"},
    "rich": {"cli"},
    "typer": {"cli"},
    "tqdm": {"cli", "training"},
    "lightning": {"training"},
    "transformers": {"training"},
}

FORBIDDEN_NAMES = {"base", "common", "core", "helpers", "manager", "misc", "utils"}
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    """A reader of one folder needs only the folders below it; a server cannot reach what unpickles."""
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")

    assert list(broken_rules(unit, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_say_what_is_inside(path):
    """A file called utils has no topic, so it gets every topic."""
    assert not FORBIDDEN_NAMES & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}


def test_every_unit_has_its_row():
    units = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}

    assert units <= MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("unit", "source", "rule"),
    [
        ("server", "from ipyrescue.pickling import decode", "server imports ipyrescue.pickling.decode"),
        ("server", "from ipyrescue import restoring", "server imports ipyrescue.restoring"),
        ("store", "def put():\n    import ipyrescue.capture.writer", "store imports ipyrescue.capture.writer"),
        (
            "pickling",
            "if TYPE_CHECKING:\n    from ipyrescue.store import Store",
            "pickling imports ipyrescue.store.Store",
        ),
        ("cli", "from ipyrescue import checkpoint", "cli imports ipyrescue.checkpoint"),
        ("runs", "import_module('ipyrescue.pickling')", "runs imports ipyrescue.pickling"),
        ("kernel", "import pickle", "kernel imports pickle"),
        ("kernel", "importlib.import_module('torch.nn')", "kernel imports torch.nn"),
        ("kernel", "from .magics import Magics", "kernel imports .magics.Magics"),
        ("store", "import requests", "store imports requests"),
    ],
)
def test_a_broken_rule_is_noticed(unit, source, rule):
    """Lazy, conditional and dynamic imports count as much as those on top of a file."""
    assert list(broken_rules(unit, source)) == [rule]


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("kernel", "from ipyrescue.checkpointing import checkpoint"),
        ("store", "torch = sys.modules.get('torch')"),
        ("cli", "from ipyrescue import __version__"),
        ("store", "import os, json\nfrom ipyrescue.store.layout import Layout"),
    ],
)
def test_what_is_allowed_passes(unit, source):
    assert list(broken_rules(unit, source)) == []


def broken_rules(unit: str, source: str) -> Iterator[str]:
    """Yield a line for every import in *source* that a file of *unit* may not make."""
    for name in imported_names(source):
        if not may_import(unit, name):
            yield f"{unit} imports {name}"


def may_import(unit: str, name: str) -> bool:
    root, _, rest = name.partition(".")
    if root == "ipyrescue":
        return rest.partition(".")[0] in MAY_IMPORT[unit] | {unit, "__version__"}
    if root in OWNED_BY:
        return unit in OWNED_BY[root]
    return root in sys.stdlib_module_names  # relative imports have no root, and new third parties no owner


def imported_names(source: str) -> Iterator[str]:
    """Yield the dotted name of everything that *source* imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name
