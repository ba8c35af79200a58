"""Runs of scripts as processes: what they print, how they end, what begins again, and who ends with whom."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ipyrescue.runs import record as records
from ipyrescue.runs import script, spawn, stopping
from ipyrescue.runs.log import read
from ipyrescue.runs.record import Options, Record
from ipyrescue.store import lives

RUNNER = """
import functools, json, pathlib, sys
from ipyrescue.runs import script, serving
pace = json.loads(sys.argv[2])
patience = script.Patience(grace_seconds=pace.pop("grace_seconds", 30.0))
script.Pace = functools.partial(script.Pace, **pace, patience=patience)
if "unprotected" in sys.argv:
    script.UNEDITED = ("-c", "import runpy, sys; sys.argv[:] = sys.argv[sys.argv.index('--') + 1 :]; "
                             "runpy.run_path(sys.argv[0], run_name='__main__')")
sys.exit(serving.serve(pathlib.Path(sys.argv[1]), foreground="foreground" in sys.argv))
"""
UNPROTECTED = "unprotected"
"""For a script that is run by Python alone, which takes a fourth of the time, where it is the runner's work to see."""
PACE = {"look_seconds": 0.1, "pauses_seconds": [0.05], "leftover_seconds": 0.3, "output_seconds": 5.0}


class Run:
    """One run of a script, and the processes of its runners."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runners: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str, **pace: float) -> Run:
        command = [sys.executable, "-c", RUNNER, str(self.folder), json.dumps({**PACE, **pace}), *more]
        self.runners.append(subprocess.Popen(command, start_new_session=True, cwd="/"))
        return self

    def wait(self) -> int:
        return self.runners[-1].wait()

    @property
    def record(self) -> Record:
        return records.read(self.folder)

    def until(self, text: str) -> Run:
        """Wait until the script has printed it."""
        while not any(text.encode() in entry.data for entry in read(self.folder) if entry.stream != "runner"):
            assert self.runners[-1].poll() is None, self.printed("runner")
            time.sleep(0.02)
        return self

    def printed(self, stream: str = "stdout") -> str:
        return b"".join(entry.output for entry in read(self.folder) if entry.stream == stream).decode()


@pytest.fixture(autouse=True)
def place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from the test's folder, with a registry of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(text: str, **options: object) -> Run:
        path = tmp_path / f"train{len(runs)}.py"
        path.write_text(textwrap.dedent(text))
        record = spawn.begin(path, Options(**options))
        runs.append(Run(spawn.folder_of(record)))
        return runs[-1]

    yield begin
    for one in runs:
        for runner in one.runners:
            runner.kill()
            runner.wait()
        spawn.end_process(one.record.kernel)


def is_gone(pid: int) -> bool:
    return lives.process_facts(pid).start_ticks is None


def wait_until_gone(pid: int) -> None:
    while not is_gone(pid):
        time.sleep(0.02)


def test_all_that_a_script_and_its_children_print_is_in_the_log(run, tmp_path):
    (tmp_path / "env").write_text("LEARNING_RATE=3e-4\n")
    (tmp_path / "beside.py").write_text("x = 'imported'")
    one = run(
        """
        import beside, ctypes, os, subprocess, sys
        print(sys.argv[1:], os.environ["LEARNING_RATE"], os.getcwd(), __name__, beside.x, sys.stdin.read())
        print("no end yet", end=" ")
        os.write(1, b"raw \\xff\\x00\\n")
        os.write(2, b"raw error\\n")
        subprocess.run(["sh", "-c", "echo child; echo child error >&2"])
        subprocess.run([sys.executable, "-c", "print('one'); import sys; print('two', file=sys.stderr)"], stderr=1)
        ctypes.CDLL(None).dprintf(1, b"C\\n")
        for step in range(3):
            print(f"\\r{step}/3", end="")
        print()
        subprocess.Popen(["sh", "-c", "sleep 0.5; echo late"])
        """,
        arguments=("--lr", "a b"),
        env_file=str(tmp_path / "env"),
    ).start()

    assert one.wait() == 0
    data = b"".join(entry.output for entry in read(one.folder) if entry.stream == "stdout")
    said, _, rest = data.partition(b"\n")
    assert said.decode() == f"['--lr', 'a b'] 3e-4 {tmp_path} __main__ imported "
    assert rest == b"no end yet raw \xff\x00\nchild\none\ntwo\nC\n\r0/3\r1/3\r2/3\nlate\n"
    assert [line for line in one.printed("stderr").splitlines() if "ipyrescue" not in line] == [
        "raw error",
        "child error",
    ]
    record = one.record
    assert (record.state, record.exit_code, record.attempt, record.progress) == ("finished", 0, 1, "late")
    assert (record.deaths, record.kernel, record.reason) == ((), None, "The script ended with exit code 0.")


def test_a_script_that_fails_is_no_death(run):
    """One ends with a code of its own, one by an exception; neither is tried again."""
    by_code, by_error = run("import sys\nsys.exit(3)").start(UNPROTECTED), run("print('x')\n1 / 0").start()

    assert (by_code.wait(), by_error.wait()) == (1, 1)
    assert (by_code.record.state, by_code.record.attempt, by_code.record.exit_code) == ("failed", 1, 1)
    assert by_code.record.reason == "The script ended with exit code 3."
    assert by_error.record.reason == "The script ended with exit code 1: ZeroDivisionError: division by zero"


def test_a_script_goes_on_after_its_death_and_after_a_stop(run):
    """It is killed once its first snapshot is there, then stopped; no iteration is missing or counted twice."""
    one = run(
        """
        import ipyrescue, pathlib, time
        seen = []
        for step in ipyrescue.loop(range(60), name="train"):
            seen.append(step)
            print(step, flush=True)
            time.sleep(0 if pathlib.Path("hurry").exists() else 0.05)
            while step == 59 and not pathlib.Path("hurry").exists():
                time.sleep(0.05)
        print(seen == list(range(60)))
        """,
        every_seconds=0.2,
    ).start()
    root = one.folder.parent.parent
    while not any(life.saved_at for life in lives.read_all(root)):
        assert one.runners[0].poll() is None, one.printed("stderr")
        time.sleep(0.02)
    os.kill(one.record.kernel.pid, signal.SIGKILL)
    one.until("train0.py goes on from snapshot")
    stopping.request(one.folder, now=False)
    assert one.wait() == 75
    assert one.record.reason == "By ipyrescue stop; the script was ended by SIGTERM."
    Path("hurry").touch()
    spawn.prepare_resume(one.folder)

    assert one.start().wait() == 0
    *steps, is_whole = one.printed().split()
    numbers = [int(step) for step in steps]
    begun_again = [later for earlier, later in itertools.pairwise(numbers) if later != earlier + 1]
    assert is_whole == "True"
    assert 0 not in begun_again
    assert "ipyrescue stop: snapshot " in one.printed("runner")
    assert one.printed("stderr").count("train0.py goes on from snapshot") == 2
    assert (one.record.attempt, len(one.record.incarnations), len(one.record.deaths)) == (3, 3, 1)
    assert one.record.saved_at is not None


def test_only_what_the_run_itself_has_saved_is_gone_on_from(run):
    record = dataclasses.replace(run("").record, incarnations=("a" * 16, "b" * 16))

    again = script._command(record, resumes=True)
    anew = script._command(record, resumes=False)

    assert again[again.index("--resume") : again.index("--")] == ["--resume", "--of", "a" * 16, "--of", "b" * 16]
    assert not {"--resume", "--of"} & set(anew)


def test_a_run_in_the_foreground_prints_what_its_script_prints(tmp_path):
    (tmp_path / "train.py").write_text(
        "import sys\nprint(sys.argv[1:])\nprint('no end', end='', file=sys.stderr)\nexit(3)"
    )
    command = [sys.executable, "-m", "ipyrescue", "run", "train.py", "--", "--lr", "3e-4"]

    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert (done.returncode, done.stdout) == (1, "['--lr', '3e-4']\n")
    assert re.search(r"^no end.*train.* failed after .*The script ended with exit code 3: no end$", done.stderr, re.M)


def test_a_killed_script_begins_again_until_no_retry_is_left(run):
    """What the dead attempt left running is ended first: it would hold memory and ports."""
    one = run(
        """
        import os, signal, subprocess
        left = subprocess.Popen(["sleep", "600"])
        print("begun", left.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        retries=1,
    ).start()

    assert one.wait() == 6
    record = one.record
    assert (record.state, record.attempt, record.exit_code) == ("died", 2, 6)
    assert [(death.exit_code, death.text) for death in record.deaths] == [(-9, record.deaths[0].text)] * 2
    assert record.deaths[0].text.startswith("was killed (")
    assert record.reason.endswith("No retry was left.")
    left = [int(line.split()[1]) for line in one.printed().splitlines()]
    assert len(left) == 2
    assert all(map(is_gone, left))
    told = one.printed("runner")
    assert told.count("It says on stderr what it goes on from; what says nothing begins from zero.") == 1
    assert told.count("What the script left running was ended: sleep") == 2
    assert "It begins again in 50 ms; after that, 0 more retries." in told
    assert "train0.py begins from zero: nothing in it says where to go on." in one.printed("stderr")


def test_a_restart_that_works(run, tmp_path):
    one = run(
        """
        import os, pathlib
        first = not pathlib.Path("been here").exists()
        pathlib.Path("been here").touch()
        print("first" if first else "second", flush=True)
        if first:
            os.abort()
        """,
        on_failure="restart",
    ).start(UNPROTECTED)

    assert one.wait() == 0
    assert (one.record.state, one.record.attempt, len(one.record.deaths)) == ("finished", 2, 1)
    assert one.record.deaths[0].text.startswith("crashed (abort")
    assert one.printed() == "first\nsecond\n"
    assert "It begins from zero (--on-failure restart)" in one.printed("runner")


WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
print("waits", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("way", ["SIGTERM", "SIGUSR1", "stop.json", "SIGINT"])
def test_a_stopped_run_lets_its_script_save(run, way):
    one = run(WAITS).start(UNPROTECTED, *(["foreground"] if way == "SIGINT" else [])).until("waits")

    if way == "stop.json":
        stopping.request(one.folder, now=False)
    else:
        one.runners[0].send_signal(getattr(signal, way))

    assert one.wait() == (130 if way == "SIGINT" else 75)
    assert one.printed() == "waits\nsaved\n"
    assert (one.record.state, one.record.attempt, one.record.deaths) == ("stopped", 1, ())
    asker = "ipyrescue stop" if way == "stop.json" else way
    assert one.record.reason == f"By {asker}; the script ended with exit code 0."
    assert not (one.folder / "stop.json").exists()


def test_a_script_that_does_not_end_is_killed_with_its_group(run):
    """At once with `--now`, else when its time is over; and the run can be stopped while it waits to begin again."""
    text = """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600"])
        print("waits", flush=True)
        while True:
            time.sleep(0.1)
        """
    now, late = run(text).start(UNPROTECTED), run(text).start(UNPROTECTED, grace_seconds=0.3)
    waiting = run("import os\nprint('waits', flush=True)\nos.kill(os.getpid(), 9)")
    waiting.start(UNPROTECTED, pauses_seconds=[600])
    stopping.request(now.until("waits").folder, now=True)
    stopping.request(late.until("waits").folder, now=False)
    while waiting.record.state != "waiting":
        time.sleep(0.02)
    assert "It begins again in 10 min" in waiting.record.reason
    stopping.request(waiting.folder, now=False)

    assert [one.wait() for one in (now, late, waiting)] == [75, 75, 75]
    assert "are killed: now." in now.printed("runner")
    assert "are killed: it did not end within 0.3 s." in late.printed("runner")
    assert now.printed() == "waits\n"
    assert late.printed() == "waits\nno\n"
    assert waiting.record.reason == "By ipyrescue stop, between two attempts."


def test_who_still_holds_the_output_is_named(run):
    one = run(
        """
        import subprocess
        left = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(left.pid)
        """
    ).start(UNPROTECTED, output_seconds=0.3)

    assert one.wait() == 0
    pid = int(one.printed())
    os.kill(pid, signal.SIGKILL)
    assert f"Its output is still held by sleep (pid {pid}); what they print from here on is lost." in one.printed(
        "runner"
    )


def test_an_orphan_is_the_runners_and_no_zombie_in_the_end(run):
    one = run(
        """
        import subprocess, time
        subprocess.run(["sh", "-c", "setsid sh -c 'echo orphan $$; exec sleep 600' &"])
        time.sleep(600)
        """
    ).start(UNPROTECTED).until("orphan")  # fmt: skip

    pid = int(one.printed().split()[1])
    try:
        while psutil.Process(pid).ppid() != one.runners[0].pid:
            assert psutil.Process(pid).ppid() != 1
            time.sleep(0.02)
    finally:
        os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.02)
    stopping.request(one.folder, now=True)
    assert one.wait() == 75


def test_a_script_ends_with_its_runner_and_saves_before(run, tmp_path):
    """The runner is killed; the next one begins where nobody works any more."""
    one = run(
        """
        import os, pathlib, signal, sys, time
        def end(*_):
            pathlib.Path("saved").write_text("x")
            sys.exit(1)
        signal.signal(signal.SIGTERM, end)
        print("waits", os.getpid(), flush=True)
        time.sleep(600 if not pathlib.Path("saved").exists() else 0)
        """
    ).start().until("waits")  # fmt: skip
    script = one.record.kernel
    one.runners[0].kill()
    one.runners[0].wait()

    wait_until_gone(script.pid)
    assert (tmp_path / "saved").exists()
    assert records.judged(one.record, one.folder).state == "dead"
    spawn.prepare_resume(one.folder)
    assert one.start().wait() == 0
    assert (one.record.state, one.record.attempt, len(one.printed().splitlines())) == ("finished", 2, 2)


def test_what_cannot_be_started_is_said(run, tmp_path, monkeypatch):
    (tmp_path / "env").touch()
    (tmp_path / "gone").mkdir()
    nameless = run("print('never')", env_file=str(tmp_path / "env"))
    (tmp_path / "env").unlink()
    monkeypatch.chdir(tmp_path / "gone")
    homeless = run("print('never')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").rmdir()

    assert (nameless.start().wait(), homeless.start().wait()) == (1, 1)
    assert (nameless.record.state, homeless.record.state) == ("failed", "failed")
    assert "env cannot be read" in nameless.record.reason
    assert "The script could not be started in" in homeless.record.reason
    assert "The script could not be started in" in homeless.printed("runner")


@pytest.mark.slow
def test_a_hundred_megabytes_of_output_are_complete(run):
    one = run(
        """
        import sys
        line = "x" * 79
        for _ in range(12_800):
            sys.stdout.write("\\n".join([line] * 100) + "\\n")
        sys.stdout.write("the end")
        """
    ).start(UNPROTECTED)

    assert one.wait() == 0
    entries = [entry for entry in read(one.folder) if entry.stream == "stdout"]
    assert b"".join(entry.output for entry in entries) == (b"x" * 79 + b"\n") * 1_280_000 + b"the end"
