"""Scripts that are run unedited: they see what `python train.py` shows them; killed, they go on or say why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.manifest import PROGRESS, Snapshot
from ipyrescue.store import Store, lives, signing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

PATIENCE_SECONDS = 60.0
UNEDITED = (sys.executable, "-m", "ipyrescue.kernel.unedited")

AS_EVER = dedent('''
    """What it is."""
    import multiprocessing, sys, threading
    from beside import number

    def double(n):
        return 2 * n

    def fail(n):
        return fail(n - 1) if n else 1 / 0

    if __name__ == "__main__":
        print(sys.argv, sys.path[0], __file__, __spec__, __cached__, __doc__, sorted(globals()), number)
        match sys.argv[1:]:
            case ["exits", code, *_]:
                threading.Thread(target=lambda: (threading.main_thread().join(), print("later"))).start()
                sys.exit(int(code) if code.isdigit() else code)
            case ["raises"]:
                try:
                    fail(2)
                except ZeroDivisionError as error:
                    raise ValueError("no data") from error
            case ["is interrupted"]:
                raise KeyboardInterrupt
            case ["spawns"]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(double, range(3)))
''')
BROKEN = "x = (\n"

BEGINNING = dedent("""
    import os, pathlib, time
    done = []

    def work(n):
        done.append(n)
        pathlib.Path("reached").write_text(f"{n}")
        time.sleep(float(os.environ["NAP"]))
""")
PLAIN = BEGINNING + "for n in range(400):\n    work(n)\nprint(done)\n"
LOOP = BEGINNING + "import ipyrescue\nfor n in ipyrescue.loop(range(400), name='train'):\n    work(n)\nprint(done)\n"
IN_MAIN = BEGINNING + dedent("""
    import ipyrescue
    def main():
        for n in ipyrescue.loop(range(400), name="train"):
            work(n)
        print(done)
    main()
""")
GUARD = BEGINNING + dedent("""
    import ipyrescue
    def train():
        for n in ipyrescue.loop(range(400), name="train"):
            work(n)
    with ipyrescue.guard(every="0.1s"):
        train()
    print(done)
""")
RESUME = GUARD.replace("with ipyrescue.guard", "print(ipyrescue.resume() is not None)\nwith ipyrescue.guard")


class Scripts:
    """Starts scripts in *folder*; each its own session, and gone at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "store"
        self.environ = {**os.environ, "IPYRESCUE_STORE": str(self.root), "IPYRESCUE_MAX_SHARE": "100%"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, nap: float = 0.0) -> subprocess.Popen[str]:
        self._started.append(
            subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environ, "NAP": str(nap)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return self._started[-1]

    def snapshots(self) -> list[Snapshot]:
        return Store.open(self.root, signing.load_key()).snapshots() if (self.root / "format.json").exists() else []

    def wait_until(self, happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert process is None or process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    made = Scripts(tmp_path)
    try:
        yield made
    finally:
        made.kill_all()


def ends_as_ever(scripts: Scripts, *cases: str) -> list[tuple[str | None, str | None]]:
    """Run scripts in both ways, which must look the same; return how the life records of ours say that they ended."""
    (scripts.folder / "train.py").write_text(AS_EVER, encoding="utf-8")
    (scripts.folder / "beside.py").write_text("number = 5\n", encoding="utf-8")
    (scripts.folder / "broken.py").write_text(BROKEN, encoding="utf-8")
    for case in cases:
        plain = scripts.start(sys.executable, *case.split(","))
        ours = scripts.start(*UNEDITED, "--every", "3600", "--", *case.split(","))
        expected, found = plain.communicate()[0], ours.communicate()[0]
        assert (found, ours.returncode) == (expected, plain.returncode)
    return [(life.ended, life.cause.text if life.cause else None) for life in lives.read_all(scripts.root)]


def test_a_script_sees_what_python_shows_it(scripts: Scripts) -> None:
    """Arguments, names, frames of tracebacks, exit codes, spawned children, and a file with a mistake."""
    ends = ends_as_ever(scripts, "train.py,exits,0,--every,3,--", "train.py,raises", "train.py,spawns", "broken.py")
    assert ends == [("exit", None), (None, "ValueError: no data"), ("exit", None)]
    (raised,) = scripts.snapshots()
    assert (raised.cut, raised.reason) == ("interrupted", "ValueError: no data")
    assert "unedited.py" not in (raised.traceback or "")


@pytest.mark.slow
def test_other_ends_are_those_of_python_too(scripts: Scripts) -> None:
    ends = ends_as_ever(scripts, "train.py,exits,bad", "train.py,exits,3", "train.py,is interrupted", "missing.py")
    assert ends == [(None, "SystemExit: bad"), (None, "SystemExit: 3"), (None, "KeyboardInterrupt")]


def restarted(scripts: Scripts, source: str) -> tuple[list[str], str]:
    """Run a script, kill it in its middle, and run it again: what the second one said, and what it printed last."""
    (scripts.folder / "train.py").write_text(source, encoding="utf-8")
    first = scripts.start(*UNEDITED, "--every", "0.1", "--", "train.py", nap=0.1)
    reached = scripts.folder / "reached"
    manifests = scripts.root / "snapshots"
    scripts.wait_until(lambda: reached.exists() and manifests.exists() and len(os.listdir(manifests)) > 2, first)
    first.kill()
    first.communicate()
    wait_for_writers(scripts.root, "train.py", "")
    second = scripts.start(*UNEDITED, "--every", "0.1", "--resume", "--", "train.py")
    *said, printed = second.communicate()[0].splitlines()
    assert second.returncode == 0
    assert [life.ended for life in lives.read_all(scripts.root)] == [None, "exit"]
    return said, printed


@pytest.mark.parametrize(
    ("source", "told"),
    [
        pytest.param(PLAIN, "train.py begins from zero: nothing in it says where to go on.", id="plain"),
        pytest.param(
            IN_MAIN,
            "train.py begins from zero: its first ipyrescue.loop is inside of main()",
            id="in main",
            marks=pytest.mark.slow,
        ),
        pytest.param(LOOP, "train.py goes on from snapshot", id="loop"),
        pytest.param(GUARD, "train.py goes on from snapshot", id="guard", marks=pytest.mark.slow),
        pytest.param(RESUME, "train.py goes on from snapshot", id="resume", marks=pytest.mark.slow),
    ],
)
def test_a_killed_script_goes_on_or_says_why_not(scripts: Scripts, source: str, told: str) -> None:
    said, printed = restarted(scripts, source)
    assert said[0].startswith(f"ipyrescue: {told}")
    taken_up = [line for line in said[1:] if line.startswith("ipyrescue: loop 'train' goes on after ")]
    assert len(taken_up) == told.startswith("train.py goes on")
    assert [line for line in said[1:] if line not in taken_up] == (["True"] if source is RESUME else [])
    assert "goes on" not in told or " of 400." in said[0]
    assert printed == str(list(range(400)))
    first = scripts.snapshots()[-1]
    assert first.cut != "interrupted"
    assert (PROGRESS in first.pseudo_names) == (source is not PLAIN)


MOTHER = """
import os, subprocess, sys, time
words = [*sys.argv[1:], "--with-parent", str(os.getpid()), "--", "train.py"]
print(subprocess.Popen(words).pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_script_saves_and_ends_with_its_parent(scripts: Scripts) -> None:
    (scripts.folder / "train.py").write_text(LOOP, encoding="utf-8")
    mother = scripts.start(sys.executable, "-c", MOTHER, *UNEDITED, "--every", "3600", nap=0.1)
    scripts.wait_until((scripts.folder / "reached").exists, mother)
    (life,) = lives.read_all(scripts.root)
    mother.kill()
    scripts.wait_until(lambda: lives.state(life) == "died")
    scripts.wait_until(scripts.snapshots)  # a child of the script writes on
    (saved,) = scripts.snapshots()
    assert (saved.trigger, saved.reason, saved.cut) == ("signal", "SIGTERM", "interrupted")

    orphan = scripts.start(*UNEDITED, "--every", "3600", "--with-parent", "1", "--", "train.py")
    assert orphan.wait() == -signal.SIGTERM


LOADING = dedent("""
    import sys, torch

    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.tensor(float(index))

    if __name__ == "__main__":
        for method in ("fork", "spawn"):
            loader = torch.utils.data.DataLoader(Numbers(), 2, num_workers=1, multiprocessing_context=method)
            print(method, [batch.tolist() for batch in loader])
""")


@pytest.mark.slow
def test_workers_of_a_loader_find_the_script(scripts: Scripts) -> None:
    pytest.importorskip("torch")
    (scripts.folder / "train.py").write_text(LOADING, encoding="utf-8")
    plain = scripts.start(sys.executable, "train.py")
    ours = scripts.start(*UNEDITED, "--every", "0.1", "--", "train.py")
    assert ours.communicate()[0] == plain.communicate()[0]
    assert (ours.returncode, plain.returncode) == (0, 0)
    assert len(scripts.snapshots()) > 0
