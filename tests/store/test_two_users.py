"""Real users: who holds the key reads, whoever owns the files; who writes is decided by owners, modes and groups."""

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ipyrescue.errors import StoreError, UntrustedError
from ipyrescue.store import Store, keyring, lives, ownership, requests, sharing, signing
from ipyrescue.store.lives import Life
from ipyrescue.store.ownership import Reader
from ipyrescue.store.prune import prune
from tests.store.conftest import load_from, save_to

pytestmark = pytest.mark.system

ROOT, ALICE, BOB, MALLORY = 0, 12001, 12002, 12003
TEAM = 12500
GROUPS = {ROOT: [0], ALICE: [TEAM], BOB: [TEAM], MALLORY: []}


@pytest.fixture
def place():
    """A folder that every user may enter, with one of each user's own inside."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name, uid in (("alice", ALICE), ("bob", BOB), ("mallory", MALLORY), ("root", ROOT)):
        (folder / name).mkdir(mode=0o755)
        os.chown(folder / name, uid, uid)
    yield folder
    shutil.rmtree(folder)


def as_user(uid: int, act: Callable, *arguments: object) -> object:
    """What *act* returns, as JSON, in a process that is this user's for good; its error is raised here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups(GROUPS[uid])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            said = {"value": act(*arguments)}
        except BaseException as error:  # noqa: BLE001 - raised again in the parent
            said = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = json.loads(file.read())
    os.waitpid(child, 0)
    if "error" in said:
        kinds = {kind.__name__: kind for kind in (StoreError, UntrustedError)}
        raise kinds.get(said["error"], AssertionError)(said["text"] if said["error"] in kinds else said["trace"])
    return said["value"]


def saved(root: Path, key: Path, content: str) -> str:
    store = Store.open(root, signing.load_key(key, create=True), create=True)
    return save_to(store, content.encode()).id


def contents(root: Path, key: Path) -> list[str]:
    """What this user can restore, newest first; what it cannot is an error."""
    store = Store.open(root, signing.load_key(key))
    assert store.unreadable() == []
    return [load_from(store, snapshot)[0].decode() for snapshot in store.snapshots()]


def a_copy_of(key: Path, to: Path, uid: int) -> Path:
    to.parent.mkdir(exist_ok=True)
    to.write_bytes(key.read_bytes())
    to.chmod(0o600)
    os.chown(to, uid, uid)
    return to


def a_life() -> Life:
    return Life("a" * 16, "a.ipynb", "notebook", 1, None, None, None, "here", "2026-11-21T10:00:00+00:00")


def state(root: Path) -> dict:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in [root, *root.rglob("*")]}


def test_root_reads_the_users_store_and_does_not_write_there(place):
    """A container that runs as root, with the notebooks of the host's user mounted."""
    root, key = place / "alice" / "store", place / "alice" / "keys" / "key"
    as_user(ALICE, saved, root, key, "hers")
    before = state(root)

    copy = a_copy_of(key, place / "root" / "key", ROOT)

    assert as_user(ROOT, contents, root, copy) == ["hers"]
    with pytest.raises(StoreError, match=f"belongs to uid {ALICE}, not to you"):
        as_user(ROOT, saved, root, copy, "root's")
    assert state(root) == before


def test_root_forgets_and_unpins_nothing_of_a_users_store(place):
    """Saving and pinning there are refused, and so is what takes away."""
    root, key = place / "alice" / "store", place / "alice" / "keys" / "key"
    hers = as_user(ALICE, saved, root, key, "hers")
    pinned = as_user(ALICE, saved, root, key, "pinned")
    as_user(ALICE, lambda: Store.open(root, signing.load_key(key)).pin(pinned))
    copy = a_copy_of(key, place / "root" / "key", ROOT)
    before = state(root)

    for verb, which in ((Store.forget, hers), (Store.unpin, pinned)):
        with pytest.raises(StoreError, match=f"belongs to uid {ALICE}, not to you"):
            as_user(ROOT, lambda verb=verb, which=which: verb(Store.open(root, signing.load_key(copy)), which))

    assert state(root) == before


def test_root_uses_the_users_own_key_in_a_container_or_under_sudo_only(place, monkeypatch):
    root, key = place / "alice" / "store", place / "alice" / "keys" / "key"
    as_user(ALICE, saved, root, key, "hers")

    for container, caller, used in ((True, "", True), (False, str(ALICE), True), (False, str(BOB), False)):
        monkeypatch.setattr(ownership.keeping, "in_container", lambda container=container: container)
        monkeypatch.setenv("SUDO_UID", caller)
        if used:
            assert as_user(ROOT, contents, root, key) == ["hers"]
        else:
            with pytest.raises(UntrustedError, match=f"belongs to uid {ALICE}"):
                as_user(ROOT, contents, root, key)
    with pytest.raises(StoreError, match="is not used"):
        as_user(ROOT, lambda: keyring.renew(key) and None)


@pytest.mark.parametrize("mode", ["u=rwX,go=rX", "u=rwX,g=rX,o=rX"])
def test_a_user_reads_the_store_of_root_if_the_files_can_be_read(place, mode):
    """What a container left as root, or a copy of a colleague's that anybody may read."""
    root, key = place / "root" / "store", place / "root" / "key"
    as_user(ROOT, saved, root, key, "the container's")
    copy = a_copy_of(key, place / "bob" / "keys" / "key", BOB)
    with pytest.raises(StoreError, match=r"Permission denied.*--shared-group"):
        as_user(BOB, contents, root, copy)

    assert os.system(f"chmod -R {mode} {root}") == 0
    before = state(root)

    assert as_user(BOB, contents, root, copy) == ["the container's"]
    with pytest.raises(StoreError, match="belongs to uid 0, not to you"):
        as_user(BOB, saved, root, copy, "bob's")
    assert state(root) == before


def test_a_secret_of_root_is_read_by_the_group_it_was_given_to(place):
    """Docker: `secrets:` with `gid` and `mode: 0440`."""
    secret = place / "secret"
    secret.write_bytes(b"s" * 32)
    os.chown(secret, 0, TEAM)
    secret.chmod(0o440)

    as_user(ALICE, saved, place / "alice" / "store", secret, "hers")

    assert as_user(ALICE, contents, place / "alice" / "store", secret) == ["hers"]
    with pytest.raises(UntrustedError, match="Permission denied"):
        as_user(MALLORY, contents, place / "alice" / "store", secret)
    with pytest.raises(StoreError):
        as_user(ALICE, lambda: keyring.renew(secret) and None)
    secret.chmod(0o444)
    with pytest.raises(UntrustedError, match="by others"):
        as_user(ALICE, contents, place / "alice" / "store", secret)


def test_another_users_key_is_refused(place):
    key = place / "alice" / "keys" / "key"
    as_user(ALICE, saved, place / "alice" / "store", key, "hers")
    os.chown(key, MALLORY, MALLORY)
    key.chmod(0o600)

    with pytest.raises(UntrustedError, match=r"Permission denied"):
        as_user(ALICE, contents, place / "alice" / "store", key)
    key.chmod(0o604)
    with pytest.raises(UntrustedError, match="by others"):
        as_user(ALICE, contents, place / "alice" / "store", key)


@pytest.fixture
def team(place):
    """Alice's store and key, shared with her group: the paths of both."""
    root, key = place / "alice" / "team" / "store", place / "alice" / "keys" / "key"
    (place / "alice" / "team").mkdir(mode=0o755)
    os.chown(place / "alice" / "team", ALICE, TEAM)

    def open_both():
        keyring.share(key, TEAM)
        sharing.share(root, TEAM)

    as_user(ALICE, open_both)
    return root, key


def test_members_of_a_group_write_and_read_each_others(team):
    root, key = team

    as_user(ALICE, saved, root, key, "alice's")
    theirs = as_user(BOB, saved, root, key, "bob's")
    as_user(ALICE, saved, root, key, "alice's")  # a blob that is there already

    assert as_user(BOB, contents, root, key) == ["alice's", "bob's", "alice's"]
    assert as_user(ALICE, contents, root, key) == ["alice's", "bob's", "alice's"]

    def tidy():
        store = Store.open(root, signing.load_key(key))
        store.pin(theirs)
        store.unpin(theirs)
        store.forget(theirs)
        return prune(store).packs

    assert as_user(ALICE, tidy) == 1
    assert as_user(BOB, contents, root, key) == ["alice's", "alice's"]


def test_a_member_repacks_only_what_is_that_members(team):
    """Holes need a pack to be writable for a moment, and only its owner changes its mode."""
    root, key = team

    def save_two():
        return save_to(Store.open(root, signing.load_key(key)), b"a" * 9000, b"b" * 9000).id

    mixed = as_user(BOB, save_two)
    as_user(ALICE, saved, root, key, "a" * 9000)
    as_user(BOB, lambda: Store.open(root, signing.load_key(key)).forget(mixed))

    def repack():
        done = prune(Store.open(root, signing.load_key(key)), max_dead=0.1)
        return done.repacked, list(done.left)

    assert as_user(ALICE, repack) == [0, ["was written by another member of the group, who can repack it"]]
    assert as_user(BOB, repack) == [1, []]
    (pack,) = (root / "packs").iterdir()
    assert stat.S_IMODE(pack.stat().st_mode) == 0o440
    assert as_user(ALICE, contents, root, key) == ["a" * 9000]


def test_members_ask_each_others_kernels(team):
    """`ipyrescue now` of a colleague's notebook, and the answer."""
    root, _ = team
    wanted = requests.Request.new(patience_seconds=60)

    as_user(BOB, lambda: requests.ask(root, "a" * 16, wanted).id)

    def answered():
        request = requests.pending(root, "a" * 16)
        requests.answer(root, "a" * 16, request, snapshot_id="b" * 16)
        return request.id

    assert as_user(ALICE, answered) == wanted.id
    assert as_user(BOB, lambda: requests.answered(root, "a" * 16).snapshot_id) == "b" * 16


def test_members_see_each_others_lives(team):
    root, _ = team

    as_user(ALICE, lives.write, root, a_life())

    def note_its_end():
        (life,) = lives.read_all(root)
        lives.annotate(root, life, dismissed=True)
        return life.host

    assert as_user(BOB, note_its_end) == "here"
    assert as_user(ALICE, lambda: [life.dismissed for life in lives.read_all(root)]) == [True]


def test_a_new_key_of_a_group_is_read_by_its_members(team):
    root, key = team
    as_user(ALICE, saved, root, key, "before")

    as_user(ALICE, lambda: keyring.renew(key) and None)

    as_user(BOB, saved, root, key, "after")
    assert as_user(ALICE, contents, root, key) == as_user(BOB, contents, root, key) == ["after", "before"]
    with pytest.raises(StoreError, match="Type it as that user"):
        as_user(BOB, lambda: keyring.renew(key) and None)


def test_who_is_no_member_can_do_nothing(team):
    root, key = team
    as_user(ALICE, saved, root, key, "hers")

    with pytest.raises(UntrustedError, match="Permission denied"):
        as_user(MALLORY, contents, root, key)

    def with_a_key_of_his_own():
        Store.open(root, signing.Key(b"m" * 32))

    with pytest.raises(StoreError, match="Permission denied"):
        as_user(MALLORY, with_a_key_of_his_own)


def test_a_member_cannot_share_it_further(team):
    root, _ = team

    with pytest.raises(StoreError, match="belongs to uid"):
        as_user(BOB, sharing.share, root, BOB)


def test_a_mark_that_was_planted_opens_nothing(place):
    """Mallory can write into a store by an accident of modes, and wants its owner to go on."""
    root, key = place / "alice" / "store", place / "alice" / "keys" / "key"
    as_user(ALICE, saved, root, key, "hers")
    os.chown(root, ALICE, TEAM)
    root.chmod(0o2777)

    as_user(MALLORY, lambda: (root / ownership.SHARED_MARK).write_text("") and None)
    os.chown(root / ownership.SHARED_MARK, -1, TEAM)

    with pytest.raises(StoreError, match="can be written by others"):
        as_user(ALICE, saved, root, key, "more")
    assert as_user(ALICE, contents, root, key) == ["hers"]


def test_a_key_that_mallory_planted_is_not_used(place):
    """A key folder that everybody could write to, and a snapshot that she signed."""
    folder = place / "alice" / "keys"
    folder.mkdir()
    os.chown(folder, ALICE, ALICE)
    folder.chmod(0o777)

    def plant():
        (folder / "key").write_bytes(b"m" * 32)
        (folder / "key").chmod(0o644)

    as_user(MALLORY, plant)

    with pytest.raises(UntrustedError, match="by others"):
        as_user(ALICE, lambda: signing.load_key(folder / "key", create=True) and None)
    os.chmod(folder / "key", 0o400)
    os.chown(folder / "key", MALLORY, ALICE)
    os.chmod(folder / "key", 0o440)
    with pytest.raises(UntrustedError, match="by others"):
        as_user(ALICE, lambda: signing.load_key(folder / "key") and None)


def test_a_full_disk_leaves_no_half_key(tmp_path):
    """A real one: not a byte is left."""
    script = f"""
mount -t tmpfs -o size=4k,nr_inodes=20 none {tmp_path}
head -c 4096 /dev/zero > {tmp_path}/full
"""
    subprocess.run(["sh", "-c", script], check=True)
    try:
        with pytest.raises(StoreError, match="No space left"):
            signing.load_key(tmp_path / "key", create=True)
        assert os.listdir(tmp_path) == ["full"]
        (tmp_path / "full").unlink()
        assert len(signing.load_key(tmp_path / "key", create=True).secret) == 32
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_sigkill_at_any_step_of_a_change_of_keys_loses_no_key(tmp_path):
    """Whichever key signs afterwards, what the old one signed can be read, and the next change succeeds."""
    path, steps = tmp_path / "key", 0
    while True:
        old = signing.load_key(path, create=True)
        steps += 1
        if not killed_at(steps, lambda: keyring.renew(path)):
            break
        now = signing.load_key(path)
        assert old.secret in {one.secret for one in (now, *now.older)}
        assert {one.secret for one in old.older} <= {one.secret for one in now.older}
    assert steps > 10
    assert signing.load_key(path).older[0].secret != signing.load_key(path).secret


def killed_at(step: int, act: Callable) -> bool:
    """Whether a process was killed before its *step*th call of these, which change something."""
    child = os.fork()
    if child == 0:
        left = step

        def counting(call: Callable) -> Callable:
            def called(*arguments: object, **more: object) -> object:
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **more)

            return called

        for name in ("open", "write", "fsync", "link", "unlink", "replace", "mkdir", "fchmod", "close"):
            setattr(os, name, counting(getattr(os, name)))
        act()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_the_reader_is_this_process():
    assert as_user(ALICE, lambda: Reader.me({"SUDO_UID": str(BOB)}) == Reader(ALICE))
