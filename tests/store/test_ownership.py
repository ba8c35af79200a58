"""Whose key files are used, and who writes to a store: owners and modes, as a table."""

import os
import stat
from types import SimpleNamespace

import pytest

from ipyrescue.store import ownership
from ipyrescue.store.ownership import Reader

ALICE, BOB, MALLORY, TEAM, OTHERS = 1001, 1002, 1003, 500, 600
PRIVATE, SHARED = (0o700, ALICE, ALICE), (0o2750, ALICE, TEAM)


def status(mode, uid, gid, kind=stat.S_IFREG):
    return SimpleNamespace(st_mode=kind | mode, st_uid=uid, st_gid=gid)


@pytest.mark.parametrize(
    ("file", "folder", "reader", "reason"),
    [
        ((0o600, ALICE, ALICE), PRIVATE, Reader(ALICE), None),
        ((0o400, ALICE, ALICE), PRIVATE, Reader(ALICE), None),
        ((0o640, ALICE, ALICE), PRIVATE, Reader(ALICE), "by others"),
        ((0o604, ALICE, ALICE), PRIVATE, Reader(ALICE), "by others"),
        ((0o620, ALICE, ALICE), PRIVATE, Reader(ALICE), "by others"),
        ((0o600, MALLORY, ALICE), PRIVATE, Reader(ALICE), "belongs to uid 1003"),
        # A secret of root's, which root could read and change anyway.
        ((0o400, 0, 0), (0o755, 0, 0), Reader(ALICE), None),
        ((0o440, 0, ALICE), (0o755, 0, 0), Reader(ALICE), None),
        ((0o444, 0, 0), (0o755, 0, 0), Reader(ALICE), "by others"),
        ((0o460, 0, ALICE), (0o755, 0, 0), Reader(ALICE), "by others"),
        ((0o440, 0, 0), (0o755, 0, 0), Reader(0), "by others"),
        # Root uses the key of who called sudo, and in a container that of the host's user; else its own only.
        ((0o600, ALICE, ALICE), PRIVATE, Reader(0), "belongs to uid 1001"),
        ((0o600, ALICE, ALICE), PRIVATE, Reader(0, frozenset({ALICE})), None),
        ((0o600, ALICE, ALICE), PRIVATE, Reader(0, frozenset({BOB})), "belongs to uid 1001"),
        ((0o600, ALICE, ALICE), PRIVATE, Reader(0, everyone=True), None),
        ((0o604, ALICE, ALICE), PRIVATE, Reader(0, everyone=True), "by others"),
        # A group shares a key on purpose, or not at all.
        ((0o640, ALICE, TEAM), SHARED, Reader(ALICE), None),
        ((0o640, ALICE, TEAM), SHARED, Reader(BOB), None),
        ((0o440, ALICE, TEAM), SHARED, Reader(BOB), None),
        ((0o660, ALICE, TEAM), SHARED, Reader(BOB), "by others"),
        ((0o644, ALICE, TEAM), SHARED, Reader(BOB), "by others"),
        ((0o640, ALICE, OTHERS), SHARED, Reader(BOB), "by others"),
        ((0o640, MALLORY, TEAM), SHARED, Reader(BOB), "by others"),
        ((0o640, ALICE, TEAM), (0o2770, ALICE, TEAM), Reader(BOB), "by others"),
        ((0o640, ALICE, TEAM), (0o2755, ALICE, TEAM), Reader(BOB), "by others"),
        ((0o640, ALICE, TEAM), (0o750, ALICE, TEAM), Reader(ALICE), "by others"),
        ((0o640, ALICE, TEAM), (0o2750, MALLORY, TEAM), Reader(BOB), "by others"),
        ((0o640, ALICE, TEAM), (0o2750, 0, TEAM), Reader(BOB), None),
    ],
)
def test_a_key_is_used_where_only_who_may_know_it_does(file, folder, reader, reason):
    refusal = ownership.key_refusal(status(*file), status(*folder, stat.S_IFDIR), reader)

    assert (reason in refusal) if reason else refusal is None


@pytest.mark.parametrize(
    ("folder", "kind", "reason"),
    [
        ((0o700, ALICE, ALICE), stat.S_IFDIR, None),
        ((0o755, ALICE, ALICE), stat.S_IFDIR, None),
        ((0o700, 0, 0), stat.S_IFDIR, None),
        ((0o700, MALLORY, ALICE), stat.S_IFDIR, "belongs to uid 1003"),
        ((0o720, ALICE, ALICE), stat.S_IFDIR, "by others"),
        ((0o1777, ALICE, ALICE), stat.S_IFDIR, "by others"),
        ((0o777, ALICE, ALICE), stat.S_IFLNK, "not a folder"),
        ((0o2750, BOB, TEAM), stat.S_IFDIR, None),
    ],
)
def test_a_folder_of_keys_is_used_where_nobody_else_writes(folder, kind, reason):
    refusal = ownership.ring_refusal(status(*folder, kind), Reader(ALICE))

    assert (reason in refusal) if reason else refusal is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({}, set()), ({"SUDO_UID": "1001"}, {1001}), ({"SUDO_UID": "-1"}, set()), ({"SUDO_UID": "alice"}, set())],
)
def test_root_knows_who_called_sudo_and_others_are_themselves(environ, expected, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Reader.me(environ).vouched == expected

    monkeypatch.setattr(os, "geteuid", lambda: ALICE)
    assert Reader.me(environ) == Reader(ALICE)


def test_a_mark_shares_a_store_only_if_its_owner_made_it(tmp_path):
    tmp_path.chmod(0o770)
    assert ownership.shared_gid(tmp_path) is None

    mark = tmp_path / ownership.SHARED_MARK
    mark.write_text("")
    mark.chmod(0o440)
    assert ownership.shared_gid(tmp_path) == mark.stat().st_gid

    mark.chmod(0o460)
    assert ownership.shared_gid(tmp_path) is None

    mark.unlink()
    mark.symlink_to(tmp_path)
    assert ownership.shared_gid(tmp_path) is None


@pytest.mark.parametrize(
    ("mode", "gid", "reason"),
    [
        (0o2770, "own", None),
        (0o770, "own", None),
        (0o2772, "own", "by everybody"),
        (0o2770, "another", "belongs to group"),
    ],
)
def test_a_group_writes_and_the_world_does_not(tmp_path, mode, gid, reason):
    tmp_path.chmod(mode)
    own = tmp_path.stat().st_gid

    refusal = ownership.folder_refusal(tmp_path, own if gid == "own" else own + 1)

    assert (reason in refusal) if reason else refusal is None


def test_who_is_no_member_does_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    monkeypatch.setattr(os, "getegid", lambda: tmp_path.stat().st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)

    assert "no member" in ownership.folder_refusal(tmp_path, tmp_path.stat().st_gid)
