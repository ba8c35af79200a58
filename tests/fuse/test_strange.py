"""File systems that lie or lack, and those of memory: the whole life of a store there, and what the doctor says."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuse.mounting import Mounted, missing, mounted
from torture import strange
from torture.strange import BEARABLE, FAILING, REFUSED, Strange

from ipyrescue.errors import StoreError
from ipyrescue.places.trying import try_out
from ipyrescue.store import Store, filesystems, layout, prune
from ipyrescue.store.signing import Key
from tests.store.conftest import load_from, save_to

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    assert missing() == ""
    with mounted(tmp_path_factory.mktemp("fuse")) as found:
        yield found


def named(cases: tuple[Strange, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name.replace(" ", "-") for case in cases])


@named(BEARABLE)
def test_a_store_lives_on_it(system: Mounted, case: Strange) -> None:
    assert strange.lives_on(system, case) == []


@named(FAILING)
def test_it_costs_one_snapshot(system: Mounted, case: Strange) -> None:
    assert strange.costs_one_snapshot(system, case) == []


@named(REFUSED)
def test_it_holds_no_store(system: Mounted, case: Strange) -> None:
    assert strange.holds_no_store(system, case) == []


@pytest.mark.parametrize("call", strange.CALLS)
def test_it_may_be_gone_all_of_a_sudden(tmp_path: Path, call: str) -> None:
    assert strange.goes_away(tmp_path / "away", call) == []


def test_without_looking_twice_some_break(system: Mounted) -> None:
    assert len(strange.without_looking_twice(system)) >= 4


@pytest.mark.parametrize(
    ("faults", "lacking"),
    [
        ((), {"holes"}),
        (("link-EPERM",), {"holes", "link"}),
        (("flock-ENOSYS",), {"holes", "locks between processes"}),
        (("locks-lie",), {"holes", "locks between processes"}),
        (("modes-lie",), {"holes", "modes"}),
        (("fsyncdir-EIO",), {"holes", "fsync of a folder"}),
        (("fsync-EIO",), {"holes", "write, fsync, read back"}),
    ],
)
def test_the_probe_sees_it(system: Mounted, faults: tuple[str, ...], lacking: set[str]) -> None:
    with system.faulty(*faults):
        assert set(try_out(system.root / ".ipyrescue").lacking) == lacking
    assert ".ipyrescue" not in "".join(os.listdir(system.root))


def test_the_probe_sees_its_clock_and_its_kind(system: Mounted) -> None:
    with system.faulty("clock-7200"):
        assert try_out(system.root / ".ipyrescue").clock_ahead_seconds == pytest.approx(-7200, abs=60)
    found = filesystems.of(system.root)
    assert found is not None
    assert (found.type, found.name, found.kind) == ("fuse.passthrough", "passthrough", "disk")


@contextlib.contextmanager
def mount(point: Path, kind: str, options: str = "rw") -> Iterator[Path]:
    point.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, "none", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_store_that_became_read_only_is_read_and_said_to_be(tmp_path: Path) -> None:
    with mount(tmp_path / "disk", "tmpfs") as disk:
        root, key = disk / ".ipyrescue", Key(b"k" * 32)
        saved = save_to(Store.open(root, key, create=True), b"1" * 5000)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

        store = Store.open(root, key)
        assert load_from(store, saved) == [b"1" * 5000]
        with pytest.raises(StoreError, match=r"Read-only file system. Restoring still works"):
            save_to(store, b"2" * 5000)
        failure = try_out(root).failure
        assert failure is not None
        assert "Read-only file system" in failure
        assert try_out(disk / "other" / ".ipyrescue").failure == "Read-only file system"


def test_a_disk_without_room_for_files_is_seen(tmp_path: Path) -> None:
    """Its inodes are counted; when there are none, no store can be made, and nothing of it stays."""
    with mount(tmp_path / "disk", "tmpfs", "nr_inodes=40") as disk:
        assert try_out(disk / ".ipyrescue").free_files in range(30, 40)
        for number in range(39):
            (disk / f"{number}").touch()
        assert try_out(disk / ".ipyrescue").failure == "No space left on device"
        with pytest.raises(StoreError, match=r"no space left .* all inodes are taken"):
            layout.create(disk / ".ipyrescue")


def test_where_nothing_can_be_written_past_the_page_cache_nothing_is_left(tmp_path: Path) -> None:
    """On ramfs Linux makes the file, and refuses O_DIRECT then."""
    with mount(tmp_path / "memory", "ramfs") as memory:
        store = Store.open(memory / ".ipyrescue", Key(b"k" * 32), create=True)
        saved = save_to(store, b"1" * 5000)

        assert load_from(store, saved) == [b"1" * 5000]
        assert os.listdir(layout.temporary(store.root)) == []
        system = filesystems.of(store.root)
        assert system is not None
        assert system.kind == "memory"


def test_a_store_of_an_images_layer_goes_on_in_a_container(tmp_path: Path) -> None:
    """On an overlay: what is below is copied up when it is written, and hidden when it is forgotten."""
    lower, key = tmp_path / "lower", Key(b"k" * 32)
    store = Store.open(lower / ".ipyrescue", key, create=True)
    old, kept = save_to(store, b"1" * 5000), save_to(store, b"2" * 5000)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    with mount(tmp_path / "merged", "overlay", options) as merged:
        above = Store.open(merged / ".ipyrescue", key, create=True)
        new = save_to(above, b"2" * 5000, b"3" * 5000)
        above.forget(old.id)

        assert prune.prune(above) is not None
        assert load_from(above, kept) == [b"2" * 5000]
        assert load_from(above, new) == [b"2" * 5000, b"3" * 5000]
        assert new.new_bytes == 5000
        assert try_out(above.root).lacking == {}
        found = filesystems.of(above.root)
        assert found is not None
        assert found.kind == "overlay"
    assert load_from(store, old) == [b"1" * 5000]
