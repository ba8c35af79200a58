"""A browser, and a front end with a page in it for each test."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from frontends import FrontEnd, front_end
from pages import Lab
from playwright.sync_api import Browser, sync_playwright

BUILT = Path(__file__).parents[2] / "ipyrescue" / "labextension"
INSTALLED = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "ipyrescue"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable: Debian's, or the one that CHROMIUM names."""
    name = os.environ.get("CHROMIUM", "chromium")
    found = shutil.which(name)
    assert found, f"There is no {name} here. Type: apt-get install chromium   or CHROMIUM=/path/to/chrome"
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all tests; each opens windows of its own in it."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="session", autouse=True)
def the_labextension_that_is_tested() -> None:
    """JupyterLab loads the environment's copy: it must be the checkout's."""
    difference = filecmp.dircmp(BUILT / "static", INSTALLED / "static")
    stale = difference.left_only + difference.diff_files
    assert not stale, f"{INSTALLED} is not what ipyrescue/labextension holds. Type: make venv"


@pytest.fixture(params=["lab", "notebook"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FrontEnd]:
    """JupyterLab, then Notebook 7."""
    with front_end(request.param, tmp_path) as started:
        yield started


@pytest.fixture
def lab(served: FrontEnd, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A window of the browser on the front end; nothing is open in it yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 760})
    yield Lab(context, served, request.node.name)
    context.close()
