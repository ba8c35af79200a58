"""What git says of a folder, and what happens when it says nothing."""

import os
import shutil
import subprocess
import time

import pytest

from ipyrescue.kernel import repository
from ipyrescue.kernel.repository import Repository

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "src/layers.py").write_text("width = 1\n")
    (tmp_path / "notebooks/a.ipynb").write_text("{}")
    git("add", ".")
    git("commit", "-m", "first")
    git("remote", "add", "origin", "https://ada:hunter2@example.org/x.git")
    return tmp_path, git


@needs_git
def test_the_whole_checkout_counts_but_for_notebooks(checkout):
    """Code beside the folder is imported too; a notebook is always edited, by its own outputs."""
    root, git = checkout
    commit = git("rev-parse", "HEAD").strip()
    asked = Repository(root / "notebooks")

    assert asked.facts() == {"git commit": commit, "git changes": "none"}
    (root / "notebooks/a.ipynb").write_text('{"outputs": 1}')
    (root / "untracked.py").write_text("")
    assert asked.facts()["git changes"] == "none"
    (root / "src/layers.py").write_text("width = 2\n")
    assert asked.facts() == {"git commit": commit, "git changes": "uncommitted"}


@needs_git
def test_asking_takes_no_lock_and_writes_nothing(checkout):
    """The user's own git goes on meanwhile."""
    root, _ = checkout
    index = root / ".git/index"
    os.utime(root / "src/layers.py")
    before = index.stat().st_mtime_ns

    Repository(root).facts()

    assert index.stat().st_mtime_ns == before


@needs_git
def test_a_repository_without_a_commit_says_nothing(tmp_path):
    subprocess.run(["git", "init"], cwd=tmp_path, check=True, capture_output=True)

    assert Repository(tmp_path).facts() == {}


def test_without_a_repository_no_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("asked git"))

    assert Repository(tmp_path / "nowhere").facts() == {}


def test_without_git_nothing_is_known(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert Repository(tmp_path).facts() == {}


def test_a_git_that_hangs_is_left_and_not_asked_again(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin/git"
    slow.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(repository, "_PATIENCE_SECONDS", 0.5)
    asked = Repository(tmp_path)
    started = time.monotonic()

    assert asked.facts() == asked.facts() == {}

    assert time.monotonic() - started < 30
    assert (tmp_path / "log").read_text().count("asked") <= 1
