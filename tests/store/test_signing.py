"""Keys that others could know are refused; what is signed cannot be changed, renamed or carried elsewhere."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipyrescue import settings
from ipyrescue.errors import CorruptError, RescueError, StoreError, UntrustedError
from ipyrescue.store import keyring, signing
from ipyrescue.store.signing import Key


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    path = tmp_path / "keys" / "key"
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(path))
    return path


def test_the_key_is_made_once(key_file):
    first = signing.load_key(create=True)

    assert signing.load_key() == signing.load_key(create=True) == first
    assert len(first.secret) == 32
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert os.listdir(key_file.parent) == ["key"]


def test_two_kernels_that_make_a_key_at_once_agree(key_file, monkeypatch):
    publish = keyring.atomic.publish

    def lose_the_race(folder, final, data, **more):
        publish(folder, final, b"t" * 32, **more)
        publish(folder, final, data, **more)

    monkeypatch.setattr(keyring.atomic, "publish", lose_the_race)

    assert signing.load_key(create=True) == Key(b"t" * 32)


def test_many_that_make_a_key_at_once_agree(tmp_path):
    for turn in range(10):
        start, path = threading.Barrier(8), tmp_path / str(turn) / "key"

        def make(start=start, path=path):
            start.wait()
            return signing.load_key(path, create=True)

        with ThreadPoolExecutor(8) as pool:
            keys = {pool.submit(make) for _ in range(8)}
        assert len({key.result() for key in keys}) == 1
        assert os.listdir(path.parent) == ["key"]


def test_the_key_stands_beside_jupyters_own(monkeypatch):
    monkeypatch.delenv("IPYRESCUE_KEY_FILE", raising=False)

    assert signing.key_path().parts[-2:] == ("ipyrescue", "key")
    assert str(signing.key_path()).startswith(os.environ["JUPYTER_DATA_DIR"])


@pytest.mark.parametrize(
    ("said", "meant"), [("~/q/key", "{home}/q/key"), ("rel/key", "{started}/rel/key"), ("/k/key", "/k/key")]
)
def test_kernel_and_command_read_the_same_path_of_a_key(monkeypatch, tmp_path, said, meant):
    """Wherever the program goes: a relative one is of the folder that the process was started in."""
    started = os.getcwd()
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", said)
    monkeypatch.chdir(tmp_path)

    assert signing.key_path() == Path(meant.format(home=os.environ["HOME"], started=started))
    assert settings.resolve(os.environ).key_file == signing.key_path()


def test_a_home_that_nobody_has_is_named(monkeypatch):
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", "~nobody-of-that-name/key")

    with pytest.raises(RescueError, match="The setting IPYRESCUE_KEY_FILE cannot be used"):
        signing.key_path()


def test_without_a_key_it_says_what_to_do(key_file):
    with pytest.raises(UntrustedError, match="IPYRESCUE_KEY_FILE"):
        signing.load_key()

    assert not key_file.parent.exists()


@pytest.mark.parametrize("kind", ["short", "long", "empty", "readable", "link", "dangling link", "folder", "pipe"])
def test_bad_keys_are_refused(key_file, kind):
    key_file.parent.mkdir()
    target = key_file.parent / "target"
    sizes = {"short": 31, "long": 33, "empty": 0}
    if kind == "folder":
        key_file.mkdir()
    elif kind == "pipe":
        os.mkfifo(key_file, 0o600)
    elif "link" in kind:
        key_file.symlink_to(target)
        if kind == "link":
            target.write_bytes(b"k" * 32)
    else:
        key_file.write_bytes(b"k" * sizes.get(kind, 32))
        key_file.chmod(0o640 if kind == "readable" else 0o600)

    for create in (False, True):
        with pytest.raises(UntrustedError, match="is not used"):
            signing.load_key(create=create)
    assert kind != "dangling link" or not target.exists()


def test_a_key_that_cannot_be_made_is_said_so(key_file):
    key_file.parent.write_text("a file where the folder should be")

    with pytest.raises(StoreError):
        signing.load_key(create=True)


def test_a_key_does_not_show_itself():
    assert "kkkk" not in repr(Key(b"k" * 32))


@pytest.mark.parametrize(
    ("key", "store_id", "name", "body"),
    [
        (b"x", "store", "name", b"body"),
        (b"k", "stor", "ename", b"body"),
        (b"k", "store", "nameb", b"ody"),
        (b"k", "store", "other", b"body"),
        (b"k", "store", "name", b"body "),
    ],
)
def test_a_signature_fits_one_message_only(key, store_id, name, body):
    signed = signing.unframe(signing.frame(Key(b"k" * 32), "store", "name", b"body"))
    assert signing.verify(Key(b"k" * 32), "store", "name", signed)

    other = signing.Signed(signed.fingerprint, signed.mac, body)

    assert not signing.verify(Key(key * 32), store_id, name, other)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\n{}",
        b"ipyrescue-manifest-v1 none\n{}",
        b"ipyrescue-manifest-v2 " + b"0" * 8 + b" " + b"0" * 64 + b"\n",
        b"ipyrescue-manifest-v1 " + b"0" * 8 + b" " + b"0" * 64,
        b"ipyrescue-manifest-v1 " + b"0" * 8 + b" " + b"G" * 64 + b"\n",
        b"ipyrescue-manifest-v1 " + b"0" * 8 + b" " + b"0" * 64 + b"\r\n",
    ],
)
def test_what_has_no_mac_line_is_corrupt(raw):
    with pytest.raises(CorruptError):
        signing.unframe(raw)
