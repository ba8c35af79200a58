"""A store in git, and what comes out of a clone: other modes and times, no empty folders, every byte."""

import os
import stat
import subprocess

import pytest

from ipyrescue.errors import StoreError, UntrustedError
from ipyrescue.store import Store, layout
from ipyrescue.store.signing import Key

pytestmark = pytest.mark.slow

TRACKED = [".gitattributes", "format.json", "snapshots", "pins", "packs"]
LINES = b"a text with the line ends of Windows\r\nand of Unix\n" * 400
"""As a pack it has no zero byte where git looks for one, so git takes it for text."""


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Run git in a folder, with the configuration of nobody else."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("[user]\nname = n\nemail = n@example.org\n")

    def run(folder, *arguments, umask=0o022, check=True):
        command = ["git", "-C", folder, *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, umask=umask)

    return run


@pytest.fixture
def committed(store, save, git):
    """Two snapshots, one of them pinned, as docs/stores.md says to commit them: names first, then bytes."""
    pinned = save(store, LINES)
    save(store, b"second")
    store.pin(pinned.id)
    repository = store.root.parent
    git(repository, "init", "-q")
    for name in TRACKED:
        git(repository, "add", "-f", f".ipyrescue/{name}")
    git(repository, "commit", "-q", "-m", "snapshots")
    return store


def cloned(git, store, *options, umask=0o022):
    copy = store.root.parent / "clone"
    git(store.root.parent, *options, "clone", "-q", store.root.parent, copy, umask=umask)
    return copy / ".ipyrescue"


def test_a_store_is_not_tracked_unless_somebody_says_so(store, save, git):
    save(store, b"content")
    git(store.root.parent, "init", "-q")

    assert git(store.root.parent, "status", "--porcelain", "--untracked-files=all").stdout.count(".ipyrescue") == 0


@pytest.mark.parametrize("crlf", ["false", "true", "input"])
def test_a_clone_restores_every_byte_and_goes_on(committed, git, key, save, load, crlf):
    """Whatever git does to the line ends of text files elsewhere in the repository."""
    git(committed.root.parent, "config", "core.autocrlf", crlf)
    git(committed.root.parent, "add", "-f", "--renormalize", ".ipyrescue")
    git(committed.root.parent, "commit", "-q", "--allow-empty", "-m", "again")

    root = cloned(git, committed, "-c", f"core.autocrlf={crlf}")

    assert sorted(os.listdir(root)) == sorted(TRACKED)
    reader = Store.open(root, key)
    assert reader.snapshots() == committed.snapshots()
    assert reader.pins() == committed.pins()
    assert [load(reader, snapshot) for snapshot in reader.snapshots()] == [[b"second"], [LINES]]
    assert sorted(os.listdir(root)) == sorted(TRACKED)  # who reads makes nothing
    third = save(Store.open(root, key, create=True), LINES, b"third")
    assert third.new_bytes == len(b"third")
    assert third.sequence == 3


def test_a_clone_that_others_can_write_to_is_mended_by_the_line_that_is_said(committed, git, key, save, load):
    """A umask of 002, which many distributions set."""
    root = cloned(git, committed, umask=0o002)
    assert stat.S_IMODE(root.stat().st_mode) == 0o775

    with pytest.raises(StoreError, match="restoring works") as refused:
        Store.open(root, key, create=True)
    assert load(Store.open(root, key), committed.snapshots()[1]) == [LINES]

    subprocess.run(str(refused.value).split("`")[1], shell=True, check=True)
    save(Store.open(root, key, create=True), b"third")
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in layout.FOLDERS} == {0o700}


def test_a_clone_without_the_key_restores_nothing(committed, git):
    root = cloned(git, committed)

    items = Store.open(root, Key(b"another" + b"k" * 25)).unreadable()

    assert [type(item.error) for item in items] == [UntrustedError] * 2


def test_what_is_committed_holds_no_key(committed, git, key):
    everything = git(committed.root.parent, "ls-files").stdout.split()

    assert {name.split("/")[1] for name in everything} == set(TRACKED)
    assert all(key.secret not in (committed.root.parent / name).read_bytes() for name in everything)
