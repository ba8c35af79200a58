"""One file of blobs: aligned, whole or absent, with or without direct writing."""

import errno
import os
import resource
import secrets
import subprocess
import sys

import pytest

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.store import Store, pack


def pack_files(store):
    return sorted((store.root / "packs").iterdir())


def test_blobs_are_aligned_and_gaps_are_zero(store, save):
    contents = [b"a" * 100, b"b" * 4096, b"c" * 5000]

    blobs = save(store, *contents).blobs

    assert [blob.offset for blob in blobs] == [0, 4096, 8192]
    (path,) = pack_files(store)
    assert path.read_bytes() == b"".join(content.ljust(-(-len(content) // 4096) * 4096, b"\0") for content in contents)


def test_bytes_of_an_earlier_buffer_do_not_leak_into_gaps(store, save, monkeypatch):
    """Buffers are reused; what stood in them must not end up in the padding."""
    monkeypatch.setattr(pack, "BOUNCE_BYTES", 8192)

    blobs = save(store, *(bytes([65 + i]) * 5000 for i in range(12))).blobs

    content = pack_files(store)[0].read_bytes()
    for i, blob in enumerate(blobs):
        assert content[blob.offset : blob.offset + 8192] == (bytes([65 + i]) * 5000).ljust(8192, b"\0")


@pytest.mark.parametrize("refused", ["at open", "at the first write", "after a short write", "never"])
def test_file_systems_without_direct_writing_serve_as_well(store, save, load, monkeypatch, refused):
    """Some, like tmpfs, refuse O_DIRECT when the file is opened, others when it is written."""
    contents = [secrets.token_bytes(300_000) for _ in range(5)]
    open_file, write = os.open, os.writev
    buffered = []

    def opening(path, flags, *more):
        if flags & pack._DIRECT and refused == "at open":
            raise OSError(errno.EINVAL, "no direct I/O")
        return open_file(path, flags, *more)

    def writing(fd, views):
        if refused in ("never", "at open") or not pack._is_direct(fd):
            buffered.append(fd)
            return write(fd, views)
        if refused == "after a short write" and len(views[0]) % 4096 == 0:
            pack._make_buffered(fd)
            written = write(fd, [views[0][:1000]])
            pack._make_direct(fd)
            return written
        raise OSError(errno.EINVAL, "no direct I/O")

    monkeypatch.setattr(pack, "BOUNCE_BYTES", 1 << 18)
    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "writev", writing)

    snapshot = save(store, *contents)

    assert load(store, snapshot) == contents
    assert buffered


def test_reading_works_where_direct_reading_does_not(store, save, load, monkeypatch):
    content = secrets.token_bytes(300_001)
    snapshot = save(store, content)
    preadv = os.preadv

    def reading(fd, views, offset):
        if pack._is_direct(fd):
            raise OSError(errno.EINVAL, "no direct I/O")
        return preadv(fd, [views[0][:70_000]], offset)

    monkeypatch.setattr(os, "preadv", reading)

    assert load(store, snapshot) == [content]


@pytest.mark.parametrize("call", ["writev", "fsync", "fchmod", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failed_put_leaves_nothing(store, save, load, monkeypatch, call, code):
    """Older snapshots are intact, no draft stays, and the next put succeeds."""
    old = save(store, b"old")
    before = pack_files(store)

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, store.writing():
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError):
            store.put([memoryview(b"new" * 1000)])

    assert pack_files(store) == before
    assert os.listdir(store.root / "tmp") == []
    assert load(store, old) == [b"old"]
    assert load(store, save(store, b"new" * 1000)) == [b"new" * 1000]


def test_a_full_disk_is_said_with_numbers(store, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", fail)

    with store.writing(), pytest.raises(StoreError, match=r"no space left \(up to 3\.0 MB needed, [\d.,]+ MB free\)"):
        store.put([memoryview(bytes(1_000_000))] * 3)


def test_a_file_size_limit_is_a_full_disk(store, key, save, load):
    """EFBIG, from a real limit, in the middle of a real write."""
    old = save(store, b"old")

    def fail_under_limit():
        opened = Store.open(store.root, key)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            with opened.writing(), pytest.raises(StoreError, match="no space left"):
                opened.put([memoryview(secrets.token_bytes(1 << 20)) for _ in range(20)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    fail_under_limit()

    assert os.listdir(store.root / "tmp") == []
    assert load(store, old) == [b"old"]


def test_a_view_of_another_size_is_refused(store, save):
    snapshot = save(store, b"content")

    with pytest.raises(ValueError, match="6 bytes for a blob of 7"):
        store.get(snapshot.blobs, [memoryview(bytearray(6))])
    with pytest.raises(ValueError):  # noqa: PT011 - zip's own words
        store.get(snapshot.blobs, [])


def test_a_blob_beyond_the_end_is_corrupt(store, save):
    from dataclasses import replace

    (blob,) = save(store, b"content").blobs

    with pytest.raises(CorruptError, match="ends before"):
        store.get([replace(blob, offset=1 << 40)], [memoryview(bytearray(7))])


def test_a_snapshot_can_be_made_while_the_interpreter_exits(store, tmp_path):
    """No thread starts any more then; the early snapshot at a graceful shutdown must not depend on one."""
    code = """
import atexit, sys
from pathlib import Path
from ipyrescue.store import Store
from ipyrescue.store.signing import Key

def last_words():
    store = Store.open(Path(sys.argv[1]), Key(b"k" * 32))
    with store.writing():
        print(store.put([memoryview(bytes([i]) * 3_000_000) for i in range(9)]).new_bytes, flush=True)

atexit.register(last_words)
"""
    done = subprocess.run([sys.executable, "-c", code, store.root], capture_output=True, text=True, check=True)

    assert done.stdout == "27000000\n"
    assert done.stderr == ""


SMALL_DISK = """
mount -t tmpfs -o size={size},mode=700 none {root} && exec {python} -c '
import os, secrets, sys
from pathlib import Path
from ipyrescue.errors import StoreError
from ipyrescue.store import Store
from ipyrescue.store.signing import Key
from tests.store.conftest import load_from, save_to

store = Store.open(Path("{root}/store"), Key(b"k" * 32), create=True)
content = secrets.token_bytes(200_000)
old = save_to(store, content)
try:
    save_to(store, *[secrets.token_bytes(1 << 20) for _ in range(9)])
except StoreError as error:
    print(error)
assert os.listdir(store.root / "tmp") == []
assert load_from(store, old) == [content]
assert store.snapshots() == [old]
print("intact")
'
"""


@pytest.mark.system
@pytest.mark.parametrize("size", ["300k", "1m", "4m"])
def test_a_real_full_disk_costs_only_the_new_snapshot(tmp_path, pytestconfig, size):
    script = SMALL_DISK.format(size=size, root=tmp_path, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=pytestconfig.rootpath,
        env={**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)},
    )

    assert done.stdout.endswith("intact\n"), done.stderr
    assert "no space left" in done.stdout
