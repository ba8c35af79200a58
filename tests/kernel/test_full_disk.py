"""A kernel whose disk is full, read-only or broken: said once, training goes on, and so does saving afterwards."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kernels import REPLY_SECONDS, Kernel

from ipyrescue.kernel import obstacle as module
from ipyrescue.kernel.foresight import Foresight
from ipyrescue.kernel.obstacle import Obstacle
from ipyrescue.manifest import Settings
from ipyrescue.store import Store, prune, signing
from ipyrescue.store.room import Room, room

MakeKernel = Callable[..., Kernel]
MB = 1 << 20

FULL = Room(5 * MB, 100)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that `time.monotonic` tells the obstacle."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        pytest.param(FULL, FULL._replace(free_bytes=9 * MB), True, id="somebody made room"),
        pytest.param(FULL, FULL._replace(free_bytes=5 * MB + 4096), False, id="hardly any"),
        pytest.param(FULL, FULL._replace(free_bytes=9 * MB, read_only=True), False, id="room on a read-only disk"),
        pytest.param(FULL._replace(free_bytes=99 * MB), Room(999 * MB, 100), False, id="it was never full: a quota"),
        pytest.param(Room(99 * MB, 0), Room(99 * MB, 7), True, id="inodes"),
        pytest.param(Room(99 * MB, None, True), Room(99 * MB, None), True, id="mounted for writing again"),
    ],
)
def test_what_is_worth_another_attempt(clock: list[float], then: Room, now: Room, expected: bool) -> None:
    found = [then]
    obstacle = Obstacle(lambda: found[0])
    obstacle.meet(10 * MB)
    clock[0] += 100
    assert not obstacle.is_less(10.0)

    found[0] = now
    clock[0] += 100
    assert obstacle.is_less(10.0) is expected
    assert not obstacle.is_less(10.0), "once for each attempt that fails"


def test_attempts_are_never_more_frequent_than_wanted(clock: list[float]) -> None:
    """A disk that is filled and emptied by the minute costs no more pauses than a disk that works."""
    found = [FULL]
    obstacle = Obstacle(lambda: found[0])
    tried = []
    for second in range(3600):
        clock[0] = 1000.0 + second
        found[0] = Room(second % 9 * MB)
        if second == 0 or obstacle.is_less(20.0):
            tried.append(second)
            obstacle.meet(10 * MB)

    assert min(later - earlier for earlier, later in itertools.pairwise(tried)) >= 20


def test_a_small_disk_that_fills_is_looked_at_again(clock: list[float]) -> None:
    free = [14 * MB]
    notebook = SimpleNamespace(free_bytes=lambda: free[0], outlook=lambda settings: "little" if free[0] < MB else None)
    foresight, last = Foresight(cast("Any", notebook)), cast("Any", SimpleNamespace(id="a", new_bytes=6 * MB))
    assert foresight.look(Settings(), last)
    assert foresight.outlook is None

    free[0] = MB // 2
    clock[0] += 100
    assert foresight.look(Settings(), last)
    assert foresight.outlook == "little"


def test_a_disk_that_cannot_be_asked_stands_in_no_way() -> None:
    def gone() -> Room:
        raise OSError("no such device")

    obstacle = Obstacle(gone)

    assert not obstacle.meet(1)
    assert not obstacle.is_less(0.0)


def test_room_is_that_of_the_folder_where_a_store_will_be(tmp_path: Path) -> None:
    assert room(tmp_path / "not" / "yet").free_bytes == pytest.approx(room(tmp_path).free_bytes, rel=0.1)
    assert room(tmp_path).lacks(1 << 62)
    assert not room(tmp_path).read_only


# --- real kernels -----------------------------------------------------------------------------------------------------

SETTINGS = {"IPYRESCUE_MAX_SHARE": "100%"}
TRAINING = """
%load_ext ipyrescue
import json, os, time
from pathlib import Path
import numpy as np
weights, step = np.zeros(400_000), 0
def note(**more):
    record = {"step": step, "panel": repr(_panel()), **more}
    Path("noted~").write_text(json.dumps(record)); os.rename("noted~", "noted")
def _panel():
    from ipyrescue.kernel.extension import recorder_of
    from ipyrescue.kernel.panel import PanelReport
    return PanelReport(recorder_of(get_ipython()).armed.panel_state())
%checkpoint_vars weights step every=1s -x note -x _panel
"""
LOOP = """
while not Path("stop").exists():
    weights += 1
    step += 1
    note()
    time.sleep(0.02)
"""
BREAKING = """
import errno, os
_write, _writev = os.write, os.writev
def _refuses(real, fd, data):
    where = os.readlink(f"/proc/self/fd/{fd}")
    if Path("broken").exists() and "/tmp/" in where.partition(".ipyrescue")[2]:
        number = int(Path("broken").read_text())
        raise OSError(number, os.strerror(number))
    return real(fd, data)
os.write = lambda fd, data: _refuses(_write, fd, data)
os.writev = lambda fd, data: _refuses(_writev, fd, data)
"""


GROWING = """
%load_ext ipyrescue
import os, json
from ipyrescue.kernel.extension import recorder_of
from ipyrescue.kernel.panel import PanelReport
def panel():
    return repr(PanelReport(recorder_of(get_ipython()).armed.panel_state()))
data, step = os.urandom(6_000_000), 0
%checkpoint_vars data step every=1h -x panel
"""
NEXT = "data = os.urandom(6_000_000); step += 1\n%checkpoint_vars"


def noted(folder: Path) -> tuple[int, str]:
    import json

    record = json.loads((folder / "noted").read_text())
    return record["step"], record["panel"]


def wait_until(true: Callable[[], object], *about: object) -> None:
    deadline = time.monotonic() + REPLY_SECONDS
    while not true():
        assert time.monotonic() < deadline, about
        time.sleep(0.02)


def end_of_cell(kernel: Kernel, folder: Path) -> str:
    """Have the loop end; what its cell printed."""
    (folder / "stop").touch()
    said = ""
    while True:
        message = kernel.client.get_iopub_msg(timeout=REPLY_SECONDS)
        said += str(message["content"].get("text", ""))
        if message["content"].get("execution_state") == "idle" and message["parent_header"]["msg_type"] == (
            "execute_request"
        ):
            (folder / "stop").unlink()
            return said


def newest(root: Path) -> int:
    return max(int(path.name[:10]) for path in (root / "snapshots").glob("*.json"))


def leftovers(root: Path) -> list[str]:
    """Files that nobody will ever ask for."""
    hidden = {p.name for p in root.rglob(".*")} - {".gitignore", ".gitattributes"}
    return [*os.listdir(root / "tmp"), *hidden]


def check_failing_and_recovery(kernel: Kernel, folder: Path, root: Path, breaks: Callable[[], object],
                               mends: Callable[[], object], why: str) -> None:  # fmt: skip
    """Break the disk of a kernel in the middle of a loop, see what it says, mend the disk, see that it saves again."""
    kernel.begin(LOOP)
    wait_until((folder / "noted").exists)
    breaks()
    wait_until(lambda: "NOT protected: saving fails" in noted(folder)[1], noted)
    assert why in noted(folder)[1]
    step = noted(folder)[0]
    wait_until(lambda: noted(folder)[0] > step + 20, "training goes on")
    said = end_of_cell(kernel, folder)
    assert (said.count("NOT saved"), why in said) == (1, True), said
    for _ in range(3):
        assert "NOT saved" not in kernel.run("step += 1").text, "it is not said after each cell"
    wait_until(lambda: leftovers(root) == [], root)

    before = newest(root)
    mends()
    kernel.begin(LOOP)
    wait_until(lambda: newest(root) > before, before)
    wait_until(lambda: "saving fails" not in noted(folder)[1], "and the panel knows")
    said = end_of_cell(kernel, folder)
    assert (said.count("Saving works again"), said.count("NOT saved")) == (1, 0), said
    assert "Saving works again" not in kernel.run("step += 1").text
    wait_until(lambda: leftovers(root) == [], root)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the files that are written are known by /proc")
@pytest.mark.parametrize("writer", ["process", "thread"])
def test_a_disk_that_refuses_to_write(make_kernel: MakeKernel, tmp_path: Path, writer: str) -> None:
    """A quota shows in no look at the disk, and an I/O error is no lack of room: both are tried again by the clock."""
    kernel = make_kernel(**SETTINGS, IPYRESCUE_WRITER=writer)
    kernel.run(BREAKING.replace("import errno", "from pathlib import Path\nimport errno"))
    kernel.run(TRAINING)
    root, broken = tmp_path / ".ipyrescue", tmp_path / "broken"
    for number, why in ((122, "no space left"), (5, "the disk reports an I/O error")):
        check_failing_and_recovery(
            kernel, tmp_path, root, lambda number=number: broken.write_text(str(number)), broken.unlink, why
        )
    step = kernel.value("step")
    kernel.run("%checkpoint_vars")
    kernel.kill()

    after = make_kernel()
    after.run("%load_ext ipyrescue\n%restore_vars")
    assert after.value("(step, float(weights.min()))")[0] == step


@pytest.mark.system
def test_a_real_disk_that_is_filled_emptied_and_read_only(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """On a tmpfs of 48 MB; the file that fills it is somebody else's."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "none", disk], check=True)
    root, filler = disk / "store", disk / "filler"

    def fill() -> None:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, room(root).free_bytes // 4096 * 4096)

    try:
        kernel = make_kernel(IPYRESCUE_STORE=str(root), **SETTINGS)
        kernel.run(TRAINING)
        check_failing_and_recovery(kernel, tmp_path, root, fill, filler.unlink, "no space left")

        def read_only() -> None:
            # The kernel has files open for writing there, so the disk itself cannot become read-only.
            subprocess.run(["mount", "--bind", disk, disk], check=True)
            wait_until(lambda: not subprocess.run(["mount", "-o", "remount,bind,ro", disk]).returncode)

        def writable() -> None:
            subprocess.run(["mount", "-o", "remount,bind,rw", disk], check=True)

        check_failing_and_recovery(kernel, tmp_path, root, read_only, writable, "Read-only file system")
        kernel.kill()
        store = Store.open(root, signing.load_key())
        assert [store.verify(snapshot) for snapshot in store.snapshots()] == [[]] * len(store.snapshots())
        assert len(store.snapshots()) >= 2
    finally:
        while os.path.ismount(disk):
            subprocess.run(["umount", "--lazy", disk], check=True)


def check_thinning_in_advance(kernel: Kernel, root: Path, foreseen: str) -> None:
    """The panel says what will go before it does; the next snapshot is made, and two whole ones stay throughout."""
    store = Store.open(root, signing.load_key())
    wait_until(lambda: foreseen in kernel.value("panel()"), foreseen)
    assert foreseen in kernel.run("%checkpoint_vars --status").text
    before = [s.id for s in store.snapshots()]
    said = kernel.run(NEXT).text
    after = [s.id for s in store.snapshots()]
    assert after[0] not in before, said
    assert before[-1] not in after, "the oldest went"
    assert before[:2] == after[1:3]


@pytest.mark.slow
def test_max_size_is_made_room_for_in_advance(make_kernel: MakeKernel, tmp_path: Path) -> None:
    kernel = make_kernel(IPYRESCUE_MAX_SIZE="20MB")
    kernel.run(GROWING)
    for _ in range(2):
        kernel.run(NEXT)
    check_thinning_in_advance(kernel, tmp_path / ".ipyrescue", "that snapshots may take: 1 older one will go first.")
    kernel.kill()


@pytest.mark.system
def test_low_disk_is_told_in_advance_and_made_room_on(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """A tmpfs of 40 MB and snapshots of 6: somebody else fills it, older ones go; fills it more, and saving stops."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=0700", "none", disk], check=True)
    root = disk / "store"

    def leave(free_bytes: int) -> None:
        with open(disk / "filler", "ab") as file:
            file.write(bytes(room(root).free_bytes - free_bytes))

    try:
        kernel = make_kernel(IPYRESCUE_STORE=str(root), IPYRESCUE_MAX_SIZE="1GB")
        kernel.run(GROWING)
        for _ in range(3):
            kernel.run(NEXT)
        leave(3_000_000)
        check_thinning_in_advance(kernel, root, "are free: 1 older one will go first.")

        leave(1_000_000)
        kernel.run("%checkpoint_vars --status")
        store = Store.open(root, signing.load_key())
        for snapshot in store.snapshots()[2:]:
            store.forget(snapshot.id)
        prune.prune(store)
        leave(1_000_000)
        wait_until(lambda: "so saving stops" in kernel.value("panel()"), "said before it fails")
        before = store.snapshots()
        refused = kernel.try_run(NEXT).text
        assert "No snapshot was made" in refused or "no space left" in refused, refused
        assert store.snapshots() == before
        assert [store.verify(s) for s in before] == [[], []]
        wait_until(lambda: leftovers(root) == [], root)
        kernel.kill()
    finally:
        while os.path.ismount(disk):
            subprocess.run(["umount", "--lazy", disk], check=True)
