"""What `pip install` puts where Jupyter looks: the server extension's configuration and the built labextension."""

import importlib
import json
from pathlib import Path

import hatchling.builders.wheel
import pytest

ROOT = Path(__file__).parent.parent
LABEXTENSION = ROOT / "ipyrescue" / "labextension"
CONFIGURATION = "etc/jupyter/jupyter_server_config.d/ipyrescue.json"
LABEXTENSIONS = "share/jupyter/labextensions/ipyrescue"
MOST_BYTES = 60_000  # the one generated thing in the repository stays small


@pytest.fixture(scope="module")
def wheel() -> hatchling.builders.wheel.WheelBuilder:
    return hatchling.builders.wheel.WheelBuilder(str(ROOT))


@pytest.fixture(scope="module")
def shared(wheel) -> dict[str, Path]:
    """Where a file of the wheel lands in the environment -> the file in the checkout."""
    found = wheel.recurse_explicit_files(wheel.config.shared_data)
    return {file.distribution_path: Path(file.path) for file in found}


def test_every_file_of_the_labextension_is_shipped_once(wheel, shared):
    """Jupyter reads it from share/; a second copy among the package's Python would be dead weight."""
    built = {path for path in LABEXTENSION.rglob("*") if path.is_file()}
    among_python = [file.path for file in wheel.recurse_included_files() if "labextension" in file.path]

    assert {path for place, path in shared.items() if place.startswith(LABEXTENSIONS)} >= built
    assert among_python == []


def test_what_the_wheel_shares_exists(wheel, shared):
    """Hatchling passes over a source that is not there without a word."""
    assert [source for source in wheel.config.shared_data if not Path(source).exists()] == []
    assert {CONFIGURATION, f"{LABEXTENSIONS}/package.json", f"{LABEXTENSIONS}/install.json"} <= shared.keys()


def test_the_configuration_enables_a_module_that_jupyter_can_load(shared):
    enabled = json.loads(shared[CONFIGURATION].read_text())["ServerApp"]["jpserver_extensions"]

    points = {name: importlib.import_module(name)._jupyter_server_extension_points() for name in enabled}

    assert enabled == {"ipyrescue.server": True}
    assert [point["app"].name for point in points["ipyrescue.server"]] == ["ipyrescue"]


def test_the_package_names_its_extension_points_too():
    """`jupyter server extension disable ipyrescue` is what people type."""
    package, server = (importlib.import_module(name) for name in ("ipyrescue", "ipyrescue.server"))

    assert package._jupyter_server_extension_points() == server._jupyter_server_extension_points()


def test_the_labextension_has_the_files_that_it_names():
    """Names carry a hash of what is inside, so a half-committed build is noticed."""
    built = json.loads((LABEXTENSION / "package.json").read_text())["jupyterlab"]["_build"]

    assert (LABEXTENSION / built["load"]).is_file()
    assert (LABEXTENSION / "static" / "style.js").is_file()


def test_the_labextension_has_the_version_of_the_package(wheel):
    assert json.loads((LABEXTENSION / "package.json").read_text())["version"] == wheel.metadata.version


def test_the_labextension_is_small_and_names_no_machine():
    files = [path for path in LABEXTENSION.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert [path.name for path in files if str(ROOT).encode() in path.read_bytes()] == []
