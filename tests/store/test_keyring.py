"""What an old key of ours signed stays ours; a bad key costs what it signed, and whatever is planted is not used."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from ipyrescue.errors import StoreError, UntrustedError
from ipyrescue.store import Store, keyring, signing
from ipyrescue.store.signing import Key

OTHER = b"o" * 32


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    path = tmp_path / "keys of mine" / "key"
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(path))
    return path


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def plant(path, secret=OTHER, mode=0o600):
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(secret)
    path.chmod(mode)
    return path


# --- a new key ----------------------------------------------------------------------------------------------------


def test_a_new_key_signs_and_the_old_one_reads(key_file):
    old = signing.load_key(create=True)

    keyring.renew(key_file)

    new = signing.load_key()
    kept = keyring.ring(key_file) / old.fingerprint
    assert new.secret != old.secret
    assert new.older == (old,)
    assert (mode(key_file), mode(kept), mode(kept.parent)) == (0o600, 0o600, 0o700)


def test_every_older_key_stays(key_file):
    keys = [signing.load_key(create=True)]
    for _ in range(3):
        keyring.renew(key_file)
        keys.append(Key(signing.load_key().secret))

    assert {one.secret for one in signing.load_key().older} == {one.secret for one in keys[:-1]}


def test_without_a_key_a_new_one_is_the_first(key_file):
    keyring.renew(key_file)

    assert signing.load_key().older == ()


def test_what_an_old_key_signed_is_ours_like_what_the_new_one_signs(key_file, store_root, save, load):
    """Listed, found, restored, retained, pruned around: the catalog makes no difference."""
    before = Store.open(store_root, signing.load_key(create=True), create=True)
    first = save(before, b"under the old key")
    keyring.renew(key_file)
    store = Store.open(store_root, signing.load_key())

    second = save(store, b"under the new key")

    again = Store.open(store_root, signing.load_key())
    assert again.snapshots() == [second, first]
    assert again.unreadable() == []
    assert again.find("latest~1") == first
    assert load(again, first) == [b"under the old key"]
    assert save(again, b"under the old key", b"more").new_bytes == 4  # a blob of the old one is shared
    (name,) = (name for name in again.catalog.names() if second.id in name)
    assert again.catalog.body(name)[0].fingerprint == signing.load_key().fingerprint


def test_a_store_that_is_open_takes_a_new_key(key_file, store_root, save):
    """A kernel lives for weeks; `ipyrescue key new` and `key import` are typed meanwhile."""
    store = Store.open(store_root, signing.load_key(create=True), create=True)
    first = save(store, b"1")
    keyring.renew(key_file)

    store.use(signing.load_key())
    second = save(store, b"1")

    assert second.new_bytes == 0
    assert store.snapshots() == [second, first]
    (name,) = (name for name in store.catalog.names() if second.id in name)
    assert store.catalog.body(name)[0].fingerprint == signing.load_key().fingerprint


def test_a_deleted_old_key_makes_its_snapshots_foreign(key_file, store_root, save):
    old = signing.load_key(create=True)
    before = Store.open(store_root, old, create=True)
    theirs = {save(before, b"1").id for _ in range(8)}
    keyring.renew(key_file)
    second = save(Store.open(store_root, signing.load_key()), b"2")  # whatever is remembered of both is so by now
    (keyring.ring(key_file) / old.fingerprint).unlink()

    store = Store.open(store_root, signing.load_key())

    assert store.snapshots() == [second]
    assert {item.name[11:27] for item in store.unreadable()} == theirs
    assert all(isinstance(item.error, UntrustedError) for item in store.unreadable())


def test_damage_of_what_an_old_key_signed_is_damage(key_file, store_root, save, rewrite):
    """Not another's: the advice would be to trust it."""
    save(Store.open(store_root, signing.load_key(create=True), create=True), b"1")
    (path,) = (store_root / "snapshots").iterdir()
    rewrite(path, path.read_bytes().replace(b"here", b"gone"))
    keyring.renew(key_file)

    (item,) = Store.open(store_root, signing.load_key()).unreadable()

    assert not isinstance(item.error, UntrustedError)
    assert "does not fit its signature" in str(item.error)


def test_an_old_key_signs_for_one_store_and_one_name_as_well(key_file):
    old = signing.load_key(create=True)
    signed = signing.unframe(signing.frame(old, "store", "name", b"body"))
    keyring.renew(key_file)
    key = signing.load_key()

    assert signing.verify(key, "store", "name", signed)
    assert not signing.verify(key, "store", "other", signed)
    assert not signing.verify(key, "other", "name", signed)
    assert not signing.verify(key, "store", "name", signing.Signed(key.fingerprint, signed.mac, b"body"))


@pytest.mark.parametrize("call", ["link", "replace", "fsync", "write"])
def test_a_change_of_keys_that_fails_loses_none(key_file, monkeypatch, call):
    old = signing.load_key(create=True)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(keyring.atomic.os, call, full)
        with pytest.raises(StoreError, match="No key was changed"):
            keyring.renew(key_file)

    assert signing.load_key().secret == old.secret
    assert sorted(os.listdir(key_file.parent)) == ["key", "keys"]
    assert set(os.listdir(keyring.ring(key_file))) <= {"lock", old.fingerprint}
    keyring.renew(key_file)
    assert old in signing.load_key().older


def test_two_who_change_the_key_at_once_lose_none(key_file):
    signing.load_key(create=True)
    changes = [threading.Thread(target=keyring.renew, args=(key_file,)) for _ in range(4)]

    for change in changes:
        change.start()
    for change in changes:
        change.join()

    assert len(signing.load_key().older) == 4


# --- keys of other machines ---------------------------------------------------------------------------------------


def test_another_machines_key_reads(key_file, store_root, save):
    theirs = save(Store.open(store_root, Key(OTHER), create=True), b"1")
    own = signing.load_key(create=True)

    path = keyring.add(key_file, OTHER)

    key = signing.load_key()
    assert (key.secret, key.older) == (own.secret, (Key(OTHER),))
    assert (path.name, mode(path)) == (Key(OTHER).fingerprint, 0o600)
    assert Store.open(store_root, key).snapshots() == [theirs]


def test_another_machines_key_signs_if_that_is_wanted(key_file):
    own = signing.load_key(create=True)

    keyring.put_first(key_file, OTHER)

    assert signing.load_key() == Key(OTHER, (own,))


def test_what_is_there_already_stays(key_file):
    own = signing.load_key(create=True)

    keyring.put_first(key_file, own.secret)
    keyring.add(key_file, OTHER)
    keyring.add(key_file, OTHER)
    keyring.add(key_file, own.secret)

    assert signing.load_key() == Key(own.secret, (Key(OTHER),))


# --- attacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["empty", "short", "long", "group", "world", "link", "dangling", "folder", "pipe", "renamed"]
)
def test_a_bad_old_key_costs_only_what_it_signed(key_file, kind):
    own = signing.load_key(create=True)
    good, bad = Key(b"g" * 32), keyring.ring(key_file) / Key(OTHER).fingerprint
    keyring.add(key_file, good.secret)
    sizes, modes = {"empty": 0, "short": 31, "long": 33}, {"group": 0o640, "world": 0o604}
    if kind == "folder":
        bad.mkdir()
    elif kind == "pipe":
        os.mkfifo(bad, 0o600)
    elif kind in ("link", "dangling"):
        bad.symlink_to(plant(key_file.parent / "elsewhere") if kind == "link" else "nowhere")
    else:
        secret = b"r" * 32 if kind == "renamed" else OTHER[:1] * sizes.get(kind, 32)
        plant(bad, secret, modes.get(kind, 0o600))

    assert signing.load_key() == Key(own.secret, (good,))
    assert [one.path.name for one in keyring.older(key_file) if one.refusal] == [bad.name]
    with pytest.raises((StoreError, UntrustedError)):
        keyring.add(key_file, OTHER)  # what is in the way is said, and stays


@pytest.mark.parametrize("kind", ["writable", "link", "file"])
def test_a_folder_of_keys_that_others_could_fill_is_not_used(key_file, kind, tmp_path):
    own = signing.load_key(create=True)
    folder = keyring.ring(key_file)
    if kind == "file":
        folder.write_text("")
    else:
        there = folder if kind == "writable" else tmp_path / "elsewhere"
        plant(there / Key(OTHER).fingerprint)
        there.chmod(0o777 if kind == "writable" else 0o700)
    if kind == "link":
        folder.symlink_to(tmp_path / "elsewhere")

    assert signing.load_key() == Key(own.secret)
    with pytest.raises(UntrustedError, match="no key was put there"):
        keyring.renew(key_file)
    assert signing.load_key() == Key(own.secret)


def test_other_names_in_the_folder_are_no_keys(key_file):
    signing.load_key(create=True)
    for name in ("lock", "0" * 7, "0" * 9, "g" * 8, "A" * 8, ".1a2b3c4d", "1a2b3c4d\n"):
        plant(keyring.ring(key_file) / name)

    assert keyring.older(key_file) == []


def test_a_device_is_no_key():
    with pytest.raises(UntrustedError, match="not a plain file"):
        signing.load_key(Path("/dev/zero"))


def test_a_second_name_of_a_key_is_no_harm(key_file):
    """Backups are made of hard links, and so is the key itself, for a moment; owner and mode are those of the file."""
    signing.load_key(create=True)
    os.link(key_file, key_file.parent / "backup")

    assert signing.load_key() == Key((key_file.parent / "backup").read_bytes())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["key", "old key", "folder"])
def test_keys_of_another_user_are_not_used(key_file, which, monkeypatch):
    own = signing.load_key(create=True)
    keyring.add(key_file, OTHER)
    given = {"key": key_file, "old key": keyring.ring(key_file) / Key(OTHER).fingerprint, "folder": key_file.parent}
    os.chown(given[which] if which != "folder" else keyring.ring(key_file), 12345, -1)
    monkeypatch.setattr(keyring.Reader, "me", classmethod(lambda _: keyring.Reader(0)))

    if which == "key":
        with pytest.raises(UntrustedError, match="belongs to uid 12345"):
            signing.load_key()
    else:
        assert signing.load_key() == Key(own.secret)


def test_a_key_of_another_user_is_not_changed(key_file, monkeypatch):
    """Root in a container may read the host user's key; a new one of root's would lock that user out."""
    own = signing.load_key(create=True)
    monkeypatch.setattr(os, "geteuid", lambda: key_file.stat().st_uid + 1)
    monkeypatch.setattr(keyring.Reader, "me", classmethod(lambda _: keyring.Reader(0, everyone=True)))

    for change in (lambda: keyring.renew(key_file), lambda: keyring.add(key_file, OTHER)):
        with pytest.raises(StoreError, match="belongs to uid"):
            change()
    assert signing.load_key() == own


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_full_disk_leaves_no_half_key(key_file, monkeypatch, call):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(keyring.atomic.os, call, full)
        with pytest.raises(StoreError, match="IPYRESCUE_KEY_FILE"):
            signing.load_key(create=True)

    assert os.listdir(key_file.parent) == []
    assert len(signing.load_key(create=True).secret) == 32


def test_a_key_in_a_folder_that_is_closed_is_no_key(key_file, monkeypatch):
    signing.load_key(create=True)

    def closed(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(keyring.atomic.os, "open", closed)

    with pytest.raises(UntrustedError, match="Permission denied"):
        signing.load_key()
