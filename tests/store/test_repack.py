"""Dead bytes of a pack become a hole: nothing living moves, whatever instant is the last one."""

import os
import signal
import stat
import sys
import threading

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import Store, holes, lock, usage
from ipyrescue.store.prune import plan, prune
from ipyrescue.store.signing import Key
from ipyrescue.store.upkeep import used_bytes
from tests.store.test_crash import CALLS, in_child, killing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="holes are punched by fallocate(2)")

LIVING = (b"a" * 5000, b"b" * 4096, b"c")
DEAD = (b"1" * 200_000, b"2" * 90_000, b"3" * 40_000)


@pytest.fixture
def mostly_dead(store, save):
    """A snapshot whose bytes stand in a pack among three times as many dead ones; its dead neighbour was forgotten."""
    mixed = [part for pair in zip(DEAD, LIVING, strict=True) for part in pair]
    neighbour = save(store, *mixed)
    kept = save(store, *LIVING)
    store.forget(neighbour.id)
    return kept


def pack_of(store, snapshot):
    return store.root / "packs" / f"{snapshot.blobs[0].pack}.pack"


def test_dead_bytes_go_and_living_ones_stay_where_they_are(store, key, mostly_dead, load):
    path = pack_of(store, mostly_dead)
    before = path.stat()
    manifests = {p: p.read_bytes() for p in (store.root / "snapshots").iterdir()}

    assert prune(store).bytes == 0
    planned = plan(store, 0.5)
    pruned = prune(store, max_dead=0.5)

    after = path.stat()
    assert (pruned.packs, pruned.repacked, pruned.left) == (0, 1, {})
    assert pruned.bytes == planned.bytes == before.st_blocks * 512 - after.st_blocks * 512 > 300_000
    assert after.st_size == before.st_size
    assert stat.S_IMODE(after.st_mode) == 0o400
    assert used_bytes(store.root) == 3 * 4096 + 4096
    assert {p: p.read_bytes() for p in (store.root / "snapshots").iterdir()} == manifests
    opened = Store.open(store.root, key)
    assert load(opened, opened.load(mostly_dead.id)) == list(LIVING)
    assert prune(store, max_dead=0.0).bytes == 0


def test_what_was_freed_is_not_used_again(store, mostly_dead, save, load):
    """A later snapshot writes the same bytes anew: what no manifest names is not there."""
    prune(store, max_dead=0.5)

    again = save(store, *DEAD)

    assert again.new_bytes == sum(map(len, DEAD))
    assert load(store, again) == list(DEAD)


def test_a_pack_that_is_mostly_alive_is_left_alone(store, mostly_dead):
    share = usage.packs(store.root, store.snapshots())[0].dead_share

    assert plan(store, share).sparse == ()
    assert len(plan(store, share - 0.01).sparse) == 1


def test_a_snapshot_that_was_verified_must_be_read_again(store, mostly_dead):
    """Its file changed, so what was known of it is void."""
    store.verify(mostly_dead)
    assert store.verified(mostly_dead)

    prune(store, max_dead=0.5)

    assert not store.verified(mostly_dead)
    assert store.verify(mostly_dead) == []


def test_a_backup_made_of_hard_links_keeps_its_bytes(store, mostly_dead, tmp_path):
    backup = tmp_path / "backup.pack"
    os.link(pack_of(store, mostly_dead), backup)
    before = backup.read_bytes()

    pruned = prune(store, max_dead=0.5)

    assert (pruned.bytes, pruned.repacked) == (0, 0)
    assert [(reason[:17], count) for reason, count in pruned.left.items()] == [("has a second name", 1)]
    assert backup.read_bytes() == before


def test_a_file_system_without_holes_is_said(store, mostly_dead, monkeypatch):
    monkeypatch.setattr(holes, "_punch", lambda *_: False)

    assert list(prune(store, max_dead=0.5).left) == ["is on a file system that cannot make holes"]


def test_bytes_that_another_keys_snapshot_names_are_alive(store, mostly_dead, save, load):
    other = Store.open(store.root, Key(b"o" * 32))
    ours = save(other, b"ours" * 5000)
    other.forget(ours.id)

    assert prune(other, max_dead=0.0).packs == 1
    assert load(store, mostly_dead) == list(LIVING)


def test_an_unreadable_manifest_stops_it(store, key, mostly_dead, save, rewrite):
    save(store, b"other")
    (path, _) = sorted((store.root / "snapshots").iterdir())
    rewrite(path, b"rubbish")
    before = used_bytes(store.root)

    with pytest.raises(StoreError, match="Nothing was pruned"):
        prune(Store.open(store.root, key), max_dead=0.0)

    assert used_bytes(store.root) == before


def test_a_pack_cut_short_is_not_taken_for_dead(store, key, save):
    """Its manifest still names it; what is left may help a person."""
    kept = save(store, b"x" * 9000)
    path = pack_of(store, kept)
    path.chmod(0o600)
    os.truncate(path, 0)

    prune(store, max_dead=0.0)

    assert path.exists()


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [*CALLS, "punch"])
def test_sigkill_at_every_step_of_repacking(store, key, save, load, call, half):
    """Every snapshot stays bit for bit, and the next prune frees what this one did not."""
    mixed = [part for pair in zip(DEAD, LIVING, strict=True) for part in pair]
    doomed, kept = save(store, *mixed), save(store, *LIVING)
    store.forget(doomed.id)
    nth, ended = 0, signal.SIGKILL
    while ended == signal.SIGKILL:
        nth += 1
        assert nth < 99

        def repack(nth=nth):
            if call == "punch":
                killing_at_punch(nth, half)
            else:
                killing(call, nth, half=half)
            prune(Store.open(store.root, key), max_dead=0.0)

        ended = in_child(repack)
        after = Store.open(store.root, key)
        assert after.unreadable() == []
        assert load(after, after.load(kept.id)) == list(LIVING)

    assert prune(after, max_dead=0.0) is not None
    assert used_bytes(store.root) == 4 * 4096
    assert stat.S_IMODE(pack_of(store, kept).stat().st_mode) == 0o400
    assert load(after, save(after, *DEAD)) == list(DEAD)


def killing_at_punch(nth, half):
    real, left = holes._punch, [nth]

    def hooked(fd, start, end):
        left[0] -= 1
        if left[0] == 0:
            if half:
                real(fd, start, (start + end) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(fd, start, end)

    holes._punch = hooked


def test_a_prune_that_waits_is_not_starved(store, key, save):
    """Two writers that overlap for ever would never leave the lock free; the gate makes the next one wait."""
    started, stop = os.pipe(), os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            try:
                os.set_blocking(stop[0], False)
                overlap_for_ever(store.root, started[1], stop[0])
            finally:
                os._exit(0)
        children.append(child)
    try:
        # Both were inside once, from then on one of them always is.
        assert len(os.read(started[0], 1) + os.read(started[0], 1)) == 2
        assert prune(Store.open(store.root, key), wait_seconds=60.0) is not None
    finally:
        os.write(stop[1], b"xx")
        for child in children:
            os.waitpid(child, 0)


def overlap_for_ever(root, started, stop):
    """Hold the shared lock, and begin the next snapshot's before the last one's is released."""
    held = lock.shared(root, 60.0)
    held.__enter__()
    os.write(started, b"x")
    while not told(stop):
        before, held = held, lock.shared(root, 60.0)
        ends_soon = threading.Timer(0.03, before.__exit__, (None, None, None))
        ends_soon.start()
        held.__enter__()
        ends_soon.join()
    held.__exit__(None, None, None)


def told(stop):
    try:
        return bool(os.read(stop, 1))
    except BlockingIOError:
        return False
