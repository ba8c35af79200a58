"""Files are whole or not there, and an error says what to do."""

import errno
import os

import pytest

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.store import atomic


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def failing(code, calls=1):
    """A system call that works until the *calls*-th time."""
    left = [calls]

    def call(*_args, **_kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise AssertionError("it was tried again")
        raise OSError(code, os.strerror(code))

    return call


def test_publish_writes_all_and_leaves_no_draft(folder, tmp_path, monkeypatch):
    """Short writes are legal."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: write(fd, view[:3]))

    atomic.publish(folder, tmp_path / "final", b"0123456789")

    assert (tmp_path / "final").read_bytes() == b"0123456789"
    assert os.listdir(folder) == []


def test_publish_never_overwrites(folder, tmp_path):
    (tmp_path / "final").write_bytes(b"old")

    with pytest.raises(FileExistsError):
        atomic.publish(folder, tmp_path / "final", b"new")

    assert (tmp_path / "final").read_bytes() == b"old"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_publish_renames_where_links_are_refused(folder, tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", failing(code, 2))

    atomic.publish(folder, tmp_path / "final", b"new")

    assert (tmp_path / "final").read_bytes() == b"new"
    with pytest.raises(FileExistsError):
        atomic.publish(folder, tmp_path / "final", b"newer")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "close", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_call_leaves_nothing_and_is_not_repeated(folder, tmp_path, monkeypatch, call, code):
    """After a failed fsync the kernel may call dirty pages clean: trying again would lie."""
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(OSError, match=os.strerror(code)):
            atomic.publish(folder, tmp_path / "final", b"new")

    assert os.listdir(folder) == []
    assert not (tmp_path / "final").exists()


def test_a_write_of_nothing_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda fd, view: 0)

    with pytest.raises(OSError, match="Input/output"):
        atomic.publish(folder, tmp_path / "final", b"new")


def test_a_folder_that_cannot_be_synced_is_no_error_but_a_failing_disk_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    atomic.sync_folder(tmp_path)

    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        atomic.sync_folder(tmp_path)


def test_replace_puts_new_for_old(tmp_path):
    atomic.replace(tmp_path / "record", b"one")
    atomic.replace(tmp_path / "record", b"two", durable=True)

    assert (tmp_path / "record").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["record"]


def test_a_failed_replace_leaves_the_old(tmp_path, monkeypatch):
    atomic.replace(tmp_path / "record", b"one")
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))

    with pytest.raises(OSError, match="space"):
        atomic.replace(tmp_path / "record", b"two")

    assert (tmp_path / "record").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["record"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "too large"])
def test_only_plain_files_are_read(tmp_path, kind):
    """A link could lead out of the store, a pipe would hang."""
    path = tmp_path / "file"
    if kind == "link":
        (tmp_path / "target").write_bytes(b"x")
        path.symlink_to(tmp_path / "target")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"12345")

    with pytest.raises(CorruptError, match=str(path)):
        atomic.read_file(path, 4)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, r"no space left \(up to 5\.0 MB needed, .* MB free\).*intact.*IPYRESCUE_STORE"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "Restoring still works.*IPYRESCUE_STORE"),
        (errno.EIO, "I/O error.*ipyrescue verify"),
        (errno.ESTALE, "Stale"),
        (errno.ENOENT, "moved or deleted"),
    ],
)
def test_errors_are_sentences(tmp_path, code, words):
    with pytest.raises(StoreError, match=words), atomic.explained("write", tmp_path / "x", needed_bytes=5_000_000):
        raise OSError(code, os.strerror(code))


def answered_with(code, call):
    """A call that is carried out, whose answer is lost, and which is refused when it is asked for again (NFS)."""

    def lost(*arguments):
        call(*arguments)
        raise OSError(code, os.strerror(code))

    return lost


@pytest.mark.parametrize(
    "answers",
    [
        {"link": errno.EEXIST},
        {"unlink": errno.ENOENT},
        {"link": errno.EEXIST, "unlink": errno.ENOENT},
        {"replace": errno.ENOENT},
    ],
)
def test_what_was_done_counts_though_the_answer_was_lost(folder, tmp_path, monkeypatch, answers):
    if "replace" in answers:
        monkeypatch.setattr(os, "link", failing(errno.ENOTSUP))
    for name, code in answers.items():
        monkeypatch.setattr(os, name, answered_with(code, getattr(os, name)))

    atomic.publish(folder, tmp_path / "final", b"new")

    assert (tmp_path / "final").read_bytes() == b"new"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["link", "replace"])
def test_what_was_not_done_does_not_count(folder, tmp_path, monkeypatch, name):
    """Somebody else's file stands there, or none."""
    if name == "replace":
        monkeypatch.setattr(os, "link", failing(errno.ENOTSUP))
    else:
        (tmp_path / "final").write_bytes(b"theirs")
    monkeypatch.setattr(os, name, failing({"link": errno.EEXIST, "replace": errno.ENOENT}[name]))

    with pytest.raises(OSError, match=r"exists|No such file"):
        atomic.publish(folder, tmp_path / "final", b"ours")
    assert not (tmp_path / "final").exists() or (tmp_path / "final").read_bytes() == b"theirs"
    assert os.listdir(folder) == []


def test_a_file_that_was_made_and_cannot_be_opened_goes_again(folder, monkeypatch):
    """Linux makes it, and only then finds that it cannot be written past the page cache."""
    real = os.open

    def refuse(path, flags, mode=0o777):
        os.close(real(path, flags, mode))
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(OSError, match="Invalid argument"):
        atomic.Draft(folder)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(("code", "synced"), [(None, []), (errno.ENOTSUP, ["fsync"]), (errno.EIO, None)])
def test_on_macos_the_drive_is_asked_where_it_can_be(folder, monkeypatch, code, synced):
    """An error of it is one; a file system that knows no such call has fsync."""
    calls = []
    monkeypatch.setattr(atomic.sys, "platform", "darwin")
    monkeypatch.setattr(atomic.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(atomic.fcntl, "fcntl", lambda *_: failing(code)() if code else None)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))

    if synced is None:
        with pytest.raises(OSError, match="Input/output error"):
            atomic.sync_file(0)
    else:
        atomic.sync_file(0)
        assert calls == synced
