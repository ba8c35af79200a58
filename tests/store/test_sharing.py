"""A store that a group shares: its members' modes, and still nobody else."""

import os
import stat

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import Store, layout, lives, ownership, sharing


def modes(root):
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in [root, *root.rglob("*")]}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_whatever_is_written_is_for_the_group(store, save, key, umask):
    """What was there before, what comes after, and what is replaced in place."""
    save(store, b"before")
    before = os.umask(umask)
    try:
        sharing.share(store.root, os.getegid())
        snapshot = save(Store.open(store.root, key), b"after")
        store.pin(snapshot.id)
        (store.root / "pins" / snapshot.id).unlink()
        (store.root / "pins").rmdir()
        store.pin(snapshot.id)  # makes its folder again
    finally:
        os.umask(before)

    found = modes(store.root)
    assert {found[name] for name in (".", *layout.FOLDERS)} == {0o2770}
    assert {mode for name, mode in found.items() if name.endswith((".pack", "format.json"))} == {0o440}
    assert {mode for name, mode in found.items() if name.startswith("snapshots/")} == {0o440}
    assert {found[name] for name in ("lock", "gate", f"pins/{snapshot.id}")} == {0o660}
    assert found["shared"] == 0o440
    layout.check_writable(store.root)


def test_life_records_are_for_the_group(store, save):
    sharing.share(store.root, os.getegid())
    path = layout.kernels(store.root) / f"{'a' * 16}.json"

    lives.atomic.replace(path, b"{}")

    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_store_is_made_where_there_is_none(tmp_path, key):
    sharing.share(tmp_path / "new", os.getegid())

    assert Store.open(tmp_path / "new", key).snapshots() == []
    assert ownership.shared_gid(tmp_path / "new") == os.getegid()


def test_without_the_mark_it_is_not_written_to(store):
    sharing.share(store.root, os.getegid())
    (store.root / "shared").unlink()

    with pytest.raises(StoreError, match="can be written by others"):
        layout.check_writable(store.root)


def test_the_world_still_may_not(store):
    sharing.share(store.root, os.getegid())
    (store.root / "packs").chmod(0o2777)

    with pytest.raises(StoreError, match=r"everybody.*--shared-group"):
        layout.check_writable(store.root)


def test_sharing_again_mends_it(store):
    sharing.share(store.root, os.getegid())
    (store.root / "shared").unlink()
    (store.root / "packs").chmod(0o700)

    sharing.share(store.root, os.getegid())

    layout.check_writable(store.root)


def test_links_that_were_planted_are_left_alone(store, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    (store.root / "packs" / "0000000000000000.pack").symlink_to(outside)

    sharing.share(store.root, os.getegid())

    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "another's", "no store"])
def test_only_the_owner_shares_a_store(store, tmp_path, kind, monkeypatch):
    root = store.root
    if kind == "link":
        root = tmp_path / "link"
        root.symlink_to(store.root)
    elif kind == "another's":
        monkeypatch.setattr(os, "geteuid", lambda: store.root.stat().st_uid + 1)
    else:
        root = tmp_path / "home"
        root.mkdir()
        (root / "thesis.tex").write_text("")

    with pytest.raises(StoreError, match=r"not shared|not empty"):
        sharing.share(root, os.getegid())
    assert ownership.shared_gid(store.root) is None
