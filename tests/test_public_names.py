"""The names that users may rely on: exactly these, and none of them loads more than it must."""

import importlib.metadata
import subprocess
import sys

import pytest

import ipyrescue

PUBLIC_NAMES = [
    "CheckpointError",
    "CorruptError",
    "RescueError",
    "RestoreError",
    "Restored",
    "RunError",
    "Skipped",
    "Snapshot",
    "SnapshotNotFoundError",
    "StoreBusyError",
    "StoreError",
    "StoreFormatError",
    "UntrustedError",
    "__version__",
    "batches",
    "checkpoint",
    "frames",
    "guard",
    "loop",
    "restore",
    "resume",
    "snapshots",
]
UNPICKLING = {"cloudpickle", "dill", "ipyrescue.pickling", "ipyrescue.restoring", "torch"}


def test_public_names_are_exactly_these():
    """Adding one is a decision, and removing one breaks somebody."""
    assert ipyrescue.__all__ == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_resolves(name):
    assert getattr(ipyrescue, name) is not None
    assert name in dir(ipyrescue)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'chekpoint'"):
        ipyrescue.chekpoint  # noqa: B018


def test_version_is_that_of_the_installed_package():
    assert ipyrescue.__version__ == importlib.metadata.version("ipyrescue")


@pytest.mark.parametrize("name", ["load_ipython_extension", "unload_ipython_extension"])
def test_ipython_finds_the_extension(name):
    assert callable(getattr(ipyrescue, name))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import ipyrescue", UNPICKLING | {"IPython", "numpy", "typer", "jupyter_core", "ipyrescue.errors"}),
        ("from ipyrescue import RescueError, Snapshot", UNPICKLING | {"IPython", "numpy"}),
        ("import ipyrescue.store", UNPICKLING | {"IPython", "numpy"}),
        ("import ipyrescue.cli", UNPICKLING | {"IPython", "numpy", "ipyrescue.kernel"}),
    ],
)
def test_import_loads_no_more_than_it_needs(statement, forbidden):
    """What cannot unpickle in a server or a terminal is what was never loaded there."""
    loaded = modules_loaded_by(statement)

    assert not loaded & forbidden


def test_importing_ipyrescue_is_light():
    """It loads one module of its own: the rest follows with the first use of a name."""
    loaded = modules_loaded_by("import ipyrescue")

    assert {name for name in loaded if name.startswith("ipyrescue")} == {"ipyrescue"}
    assert len(loaded) < 40


def modules_loaded_by(statement: str) -> set[str]:
    """Run *statement* in a new interpreter and say what it added to sys.modules."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before), sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())
