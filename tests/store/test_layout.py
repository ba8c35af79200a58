"""Where things stand, with which modes, and which stores are not written to."""

import errno
import json
import os
import stat

import pytest

from ipyrescue.errors import CorruptError, StoreError, StoreFormatError
from ipyrescue.store import Store, layout


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_store_is_for_its_owner_only(store_root, key, save, umask):
    """Folders 0700, packs and manifests 0400, whatever the umask."""
    before = os.umask(umask)
    try:
        store = Store.open(store_root, key, create=True)
        save(store, b"content")
    finally:
        os.umask(before)

    assert {mode(path) for path in [store_root, *store_root.iterdir()] if path.is_dir()} == {0o700}
    assert {mode(path) for name in ("packs", "snapshots") for path in (store_root / name).iterdir()} == {0o400}
    assert mode(store_root / "lock") == 0o600


def test_a_store_keeps_out_of_git_and_backups_and_explains_itself(store):
    assert (store.root / ".gitignore").read_text() == "*\n"
    assert (store.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert "Without ipyrescue" in (store.root / "README.txt").read_text()
    assert json.loads((store.root / "format.json").read_text()) == {"format": 1, "store_id": store.id}
    assert os.listdir(store.root / "tmp") == []


def test_creating_again_changes_nothing(store, key):
    assert Store.open(store.root, key, create=True).id == store.id


def test_two_kernels_that_create_at_once_agree(store_root, monkeypatch):
    """Whoever links format.json first names the store; the other takes that name."""
    publish = layout.atomic.publish
    monkeypatch.setattr(layout.atomic, "publish", lambda *a, **k: (publish(*a, **k), publish(*a, **k)))

    store_id = layout.create(store_root)

    assert layout.create(store_root) == layout.read_store_id(store_root) == store_id
    assert os.listdir(store_root / "tmp") == []


@pytest.mark.parametrize("make", ["symlink", "group", "other", "file"])
def test_unsafe_stores_are_not_written_to(store, key, tmp_path, make):
    """Where somebody else can put files, nothing of ours should go."""
    root = store.root
    if make == "symlink":
        root = tmp_path / "link"
        root.symlink_to(store.root)
    elif make == "file":
        (root / "tmp").rmdir()
        (root / "tmp").write_text("")
    else:
        (root / "packs").chmod(0o720 if make == "group" else 0o702)

    with pytest.raises(StoreError, match="nothing is written"):
        layout.check_writable(root)


def test_a_store_of_another_user_is_not_written_to(store, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: store.root.stat().st_uid + 1)

    with pytest.raises(StoreError, match="belongs to uid"):
        layout.check_writable(store.root)


def test_a_folder_with_other_things_does_not_become_a_store(tmp_path, key):
    """IPYRESCUE_STORE=~ should not scatter packs over a home."""
    (tmp_path / "thesis.tex").write_text("")

    with pytest.raises(StoreError, match=r"thesis\.tex"):
        Store.open(tmp_path, key, create=True)

    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_newer_store_says_what_to_do(store, key, rewrite):
    rewrite(store.root / "format.json", b'{"format": 2, "shards": []}')

    with pytest.raises(StoreFormatError, match="pip install -U"):
        Store.open(store.root, key)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1, "store_id": "x"}', b"[" * 4000, b"\xff"])
def test_a_damaged_format_file_is_corrupt(store, key, rewrite, content):
    rewrite(store.root / "format.json", content)

    with pytest.raises(CorruptError):
        Store.open(store.root, key)


@pytest.mark.parametrize("name", ["../../etc/passwd", "0" * 15, "0" * 16 + "\n", "A" * 16, "", "0" * 17])
def test_only_ids_become_paths(tmp_path, name):
    with pytest.raises(CorruptError):
        layout.pack_path(tmp_path, name)
    with pytest.raises(CorruptError):
        layout.life_path(tmp_path, name)
    with pytest.raises(CorruptError):
        layout.pin_path(tmp_path, name)
    assert layout.parse_pin_name(name) is None
    assert layout.parse_snapshot_name(f"0000000001-{name}.json") is None
    assert layout.parse_pack_name(f"{name}.pack") is None


def test_folders_that_a_copy_lost_are_made_again(store, key):
    """Git and some copying tools drop empty folders."""
    for name in ("tmp", "runs", "kernels", "pins"):
        (store.root / name).rmdir()

    with Store.open(store.root, key, create=True).writing():
        pass


def test_an_empty_folder_of_the_user_is_closed_to_others(tmp_path, key):
    tmp_path.chmod(0o755)

    Store.open(tmp_path, key, create=True)

    assert mode(tmp_path) == 0o700


def test_where_a_store_cannot_do_what_it_must_none_is_made(tmp_path, monkeypatch):
    """Said in a sentence, with nothing left behind."""

    def no_rename(old, new):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "replace", no_rename)
    ours = tmp_path / "ours"
    ours.mkdir()
    for root in (tmp_path / "deep" / ".ipyrescue", ours):
        for _ in range(3):
            with pytest.raises(StoreError, match="cannot be a store: no file can take another one's place"):
                layout.create(root)
    assert sorted(os.listdir(tmp_path)) == ["deep", "ours"]
    assert os.listdir(tmp_path / "deep") == os.listdir(ours) == []
    monkeypatch.undo()
    layout.create(tmp_path / "elsewhere")


def test_a_full_disk_is_said_to_be_full_and_tried_again(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        layout.create(tmp_path / ".ipyrescue")
    monkeypatch.undo()

    assert len(layout.create(tmp_path / ".ipyrescue")) == 32
    assert os.listdir(tmp_path / ".ipyrescue/tmp") == []
