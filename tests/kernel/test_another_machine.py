"""A session that goes on elsewhere, in real kernels: what is otherwise there is told with what mends it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A notebook's folder under git, with a stand-in for matplotlib, which the tests do not require."""
    (tmp_path / "matplotlib.py").write_text("class RcParams(dict): pass\nrcParams = RcParams(backend='ipympl')\n")
    (tmp_path / "layers.py").write_text("width = 1\n")
    (tmp_path / "train.ipynb").write_text("{}")
    git(tmp_path, "init")
    git(tmp_path, "add", "layers.py", "train.ipynb")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def as_json(kernel: Kernel, line: str) -> Any:
    (data,) = kernel.run(line).data
    return json.loads(data["text/plain"])


def test_magics_and_the_repository_are_told_when_they_differ(make_kernel: MakeKernel, folder: Path) -> None:
    """The report names the line to type; a restore types none of them. What is as it was is silent."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%load_ext autoreload\n%autoreload 2\nimport matplotlib\nx = 1")
    (folder / "train.ipynb").write_text('{"outputs": "saved"}')
    kernel.run("%checkpoint_vars label=clean")
    (folder / "layers.py").write_text("width = 2\n")
    kernel.run("%checkpoint_vars label=edited")
    assert as_json(kernel, "%restore_vars from=clean --json")["differences"] == []
    shown = as_json(kernel, "%snapshots show clean --json")["snapshot"]["environment"]
    kernel.kill()
    git(folder, "stash")
    after = make_kernel()
    after.run("%load_ext ipyrescue")

    planned = after.run("%restore_vars from=edited --dry-run").text
    told = as_json(after, "%restore_vars from=edited --json")

    assert (shown["autoreload"], shown["matplotlib backend"], shown["git changes"]) == ("2", "widget", "none")
    assert [(d["key"], d["then"], d["now"], d["advice"]) for d in told["differences"]] == [
        ("git changes", "uncommitted", "none", "what was edited then is not here: git stash list"),
        ("autoreload", "2", "off", "%load_ext autoreload, then %autoreload 2"),
    ]
    assert "Different from the session of the snapshot.\nwhat         then         now   to do\n" in planned
    assert "\nautoreload   2            off   %load_ext autoreload, then %autoreload 2\n" in planned
    git(folder, "commit", "--allow-empty", "-m", "second")
    after.run("matplotlib.rcParams['backend'] = 'module://matplotlib_inline.backend_inline'")
    told = as_json(after, "%restore_vars from=edited --json")
    advice = {d["key"]: d["advice"] for d in told["differences"]}
    assert advice["matplotlib backend"] == "%matplotlib widget"
    assert advice["git commit"].startswith("!git diff --stat ")
    assert not any("git" in word for word in advice["autoreload"])
    listed = subprocess.run(
        [sys.executable, "-m", "ipyrescue", "show", "edited"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert "Made with:\n  python " in listed
    assert "  git changes         uncommitted\n" in listed


def test_a_scheduled_snapshot_knows_its_commit_too(make_kernel: MakeKernel, folder: Path) -> None:
    """The writer asks git, beside the cell."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 1")
    kernel.run("%checkpoint_vars every=0.01s")
    kernel.run("x = 2")
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)

    newest = as_json(kernel, "%snapshots show latest --json")["snapshot"]

    assert newest["trigger"] != "command"
    assert len(newest["environment"]["git commit"]) == 40


def test_warning_filters_are_the_users(make_kernel: MakeKernel) -> None:
    """Neither loading us, nor a snapshot, nor a restore leaves one behind, or takes one away."""
    kernel = make_kernel()
    kernel.run("import warnings, json\nwarnings.filterwarnings('ignore', message='mine')\nx = [1]")
    before = kernel.value("[str(f) for f in warnings.filters]")

    kernel.run("%load_ext ipyrescue")
    kernel.run("%checkpoint_vars")
    kernel.run("%restore_vars")

    assert kernel.value("[str(f) for f in warnings.filters]") == before
