"""Which file system a path stands on, and what is known of its kind."""

from pathlib import Path

import pytest

from ipyrescue.store import filesystems
from ipyrescue.store.filesystems import FileSystem

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/my\\040share rw,relatime shared:1 master:2 - nfs4 server:/export rw,vers=4.2,local_lock=none
31 27 0:41 / /data rw,relatime - ext4 /dev/vdb rw
32 27 0:42 / /data rw,relatime - tmpfs tmpfs rw,size=1024k
33 27 0:43 / /data/models rw,nosuid - fuse mountpoint-s3 rw,user_id=0
garbage
"""


@pytest.mark.parametrize(
    ("path", "type_", "point"),
    [
        ("/home/me/.ipyrescue", "ext4", "/"),
        ("/mnt/my share/deep/er", "nfs4", "/mnt/my share"),
        ("/mnt/my shares", "ext4", "/"),
        ("/data", "tmpfs", "/data"),  # the one that was mounted last hides the other
        ("/data/models/x", "fuse", "/data/models"),
    ],
)
def test_the_innermost_mount_counts(tmp_path, path, type_, point):
    (tmp_path / "mountinfo").write_text(MOUNTS)

    found = filesystems.of(Path(path), tmp_path / "mountinfo")

    assert (found.type, found.point) == (type_, point)
    assert filesystems.of(Path(path), tmp_path / "none") is None


def test_a_link_is_followed(tmp_path):
    (tmp_path / "mountinfo").write_text(f"{MOUNTS}34 27 0:44 / {tmp_path.resolve()}/there rw - vfat /dev/sdc rw\n")
    (tmp_path / "here").symlink_to(tmp_path / "there")

    assert filesystems.of(tmp_path / "here/store", tmp_path / "mountinfo").type == "vfat"


@pytest.mark.parametrize(
    ("found", "kind", "locks_are_local"),
    [
        (FileSystem("ext4", "/dev/vda"), "disk", False),
        (FileSystem("fuseblk", "/dev/sdb1"), "disk", False),
        (FileSystem("tmpfs", "tmpfs"), "memory", False),
        (FileSystem("overlay", "overlay"), "overlay", False),
        (FileSystem("nfs4", "server:/export", options=("local_lock=none",)), "network", False),
        (FileSystem("nfs", "server:/export", options=("nolock",)), "network", True),
        (FileSystem("nfs4", "server:/export", options=("local_lock=all",)), "network", True),
        (FileSystem("cifs", "//server/share"), "network", False),
        (FileSystem("smb3", "//server/share", options=("nobrl",)), "network", True),
        (FileSystem("fuse.sshfs", "me@there:"), "network", True),
        (FileSystem("9p", "C:\\"), "host", True),
        (FileSystem("virtiofs", "share"), "host", True),
        (FileSystem("fuse.gcsfuse", "my-bucket"), "bucket", True),
        (FileSystem("fuse.s3fs", "s3fs"), "bucket", True),
        (FileSystem("fuse", "mountpoint-s3"), "bucket", True),
        (FileSystem("fuse", "something"), "disk", False),
    ],
)
def test_what_is_known_of_it(found, kind, locks_are_local):
    assert (found.kind, found.locks_are_local) == (kind, locks_are_local)


@pytest.mark.parametrize(
    ("found", "path", "said"),
    [
        (FileSystem("ext4", "/dev/vda"), "/work", None),
        (FileSystem("tmpfs", "tmpfs", "/work"), "/work", "is in memory (tmpfs): its snapshots are gone when"),
        (FileSystem("tmpfs", "tmpfs", "/temporary"), "/temporary/me", None),
        (FileSystem("fuse.s3fs", "s3fs"), "/work", "is in a bucket (s3fs), which only looks like a folder"),
        (FileSystem("nfs4", "server:/export"), "/work", None),
        (FileSystem("nfs", "server:/export", options=("nolock",)), "/work", "one machine at a time write to it"),
        (FileSystem("virtiofs", "share"), "/work", None),
    ],
)
def test_a_place_on_sand_is_said_to_be_one(monkeypatch, found, path, said):
    monkeypatch.setattr(filesystems.tempfile, "gettempdir", lambda: "/temporary")
    monkeypatch.setattr(filesystems, "of", lambda _: found)

    sentence = filesystems.warning(Path(path))

    assert sentence is None if said is None else said in sentence
