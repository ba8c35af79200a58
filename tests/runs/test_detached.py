"""Detached runs as processes: nothing that ends around them ends them, and none is said to run that does not."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipyrescue.errors import RunError
from ipyrescue.runs import record as records
from ipyrescue.runs import registry, spawn, stopping
from ipyrescue.runs.record import Options
from ipyrescue.store import lives
from tests.runs.conftest import on_a_terminal

pytestmark = pytest.mark.usefixtures("stand_in")

RUNS = "say(state='running')\nasked()\nsay(state='stopped', exit_code=75)\ncode = 75"


def begun(path: Path, **options) -> Path:
    return spawn.folder_of(spawn.begin(path, Options(**options)))


def wait_for(folder: Path, *states: str) -> records.Record:
    while (record := records.judged(records.read(folder))).state not in states:
        assert record.state not in records.ENDED, record
        time.sleep(0.01)
    return record


def test_a_run_is_detached_and_stopped(notebook):
    folder = begun(notebook(RUNS))
    assert records.read(folder).state == "starting"

    record = spawn.detach(folder)

    assert (record.state, record.runner.pid == os.getpid()) == ("running", False)
    assert os.getsid(record.runner.pid) == record.runner.pid
    assert (record.options.output, record.store) == (str(Path("train.run.ipynb").absolute()), str(folder.parent.parent))
    stopping.request(folder, now=False)
    assert wait_for(folder, "stopped").exit_code == 75


def test_what_a_runner_inherits(notebook):
    folder = begun(notebook(
        """
        import pathlib
        files = [pathlib.Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        links = [os.readlink(file) for file in files if file.exists()]
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        print("past the log", file=sys.stderr)
        say(state="finished", progress=repr((links, ignored, os.getcwd(), sys.path[0])))
        """
    ))  # fmt: skip
    with open("open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        record = spawn.detach(folder)

    links, ignored, cwd, first = eval(record.progress)
    assert (ignored, cwd, first) == (True, str(folder), str(folder))
    assert set(links) >= {"/dev/null", str(folder / "runner.err")}
    assert not [link for link in links if link.endswith("/open")]
    spawn._started[-1].wait()
    assert "past the log" in (folder / "runner.err").read_text()


def test_what_names_a_file_names_it_for_the_runner_too(notebook, monkeypatch):
    """A runner's working directory is the folder of its run: there `./key` would lead nowhere."""
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", "./key")
    monkeypatch.setenv("IPYRESCUE_STORE", "~/store")
    names = ("IPYRESCUE_KEY_FILE", "IPYRESCUE_STORE")
    folder = begun(notebook(f"say(state='finished', progress=repr([os.environ[name] for name in {names}]))"))

    record = spawn.detach(folder)

    assert eval(record.progress) == [str(Path("key").absolute()), str(Path.home() / "store")]


def test_a_run_survives_its_terminal_and_whoever_began_it(notebook):
    """A pseudo-terminal whose shell starts a run, and is then closed with a hang-up for all of its processes."""
    path = notebook(RUNS)
    begin = f"""
        import signal
        from pathlib import Path
        from ipyrescue.runs import spawn
        from ipyrescue.runs.record import Options
        record = spawn.detach(spawn.folder_of(spawn.begin(Path({str(path)!r}), Options())))
        print("begun", record.runner.pid, flush=True)
        signal.pause()
    """
    shell, terminal = on_a_terminal(sys.executable, "-c", "\n".join(line.strip() for line in begin.splitlines()))
    said = b""
    while b"begun" not in said or not said.endswith(b"\n"):
        said += os.read(terminal, 1000)

    os.close(terminal)
    assert shell.wait() == -signal.SIGHUP

    folder = registry.find("train")
    record = records.judged(records.read(folder))
    assert (record.state, record.runner.pid) == ("running", int(said.split()[1]))
    os.killpg(record.runner.pid, signal.SIGHUP)
    stopping.request(folder, now=False)
    wait_for(folder, "stopped")


@pytest.fixture
def kernel():
    """A process that does nothing, as a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_killed_runner_is_dead_at_once_and_can_be_resumed(notebook, kernel):
    folder = begun(notebook(RUNS))
    record = spawn.detach(folder)
    records.write(folder, records.dataclasses.replace(record, cell=3, cells=9, kernel=records.process_of(kernel.pid)))

    os.kill(record.runner.pid, signal.SIGKILL)
    while lives.process_state(record.runner) == "alive":
        time.sleep(0.01)

    dead = records.judged(records.read(folder))
    assert (dead.state, records.read(folder).state) == ("dead", "running")
    assert f"Its runner (pid {record.runner.pid}) is gone, while the run was running in cell 3 of 9." in dead.reason
    assert "ipyrescue resume train" in dead.reason
    stopping.request(folder, now=True)
    begun_again = spawn.prepare_resume(folder)
    assert kernel.wait() == -signal.SIGKILL
    assert (begun_again.state, begun_again.reason, stopping.requested(folder)) == ("starting", None, None)
    assert spawn.detach(folder).state == "running"
    with pytest.raises(RunError, match="is running, so there is nothing to resume"):
        spawn.prepare_resume(folder)


def test_a_runner_that_fails_says_so_in_the_record(notebook):
    folder = begun(notebook("say(state='running')\nraise ValueError('no such thing')"))
    with contextlib.suppress(RunError):
        spawn.detach(folder)
    assert spawn._started[-1].wait() == 1

    record = records.judged(records.read(folder))

    assert (record.state, record.exit_code) == ("failed", 1)
    assert "ValueError: no such thing" in record.reason
    assert "Traceback" in (folder / "runner.err").read_text()


def test_a_runner_that_ends_before_it_begins_is_told_with_its_last_words(notebook):
    folder = begun(notebook("print('no nbclient here', file=sys.stderr, flush=True); os._exit(3)"))

    with pytest.raises(RunError, match=r"ended before it ran anything\. Its last words: no nbclient here"):
        spawn.detach(folder)

    assert records.judged(records.read(folder)).state == "dead"


def test_a_second_runner_of_a_run_is_refused(notebook):
    folder = begun(notebook(RUNS))
    spawn.detach(folder)

    second = subprocess.run(
        [sys.executable, "-m", "ipyrescue.runs", folder], capture_output=True, text=True, check=False
    )

    assert (second.returncode, "Another runner has the run train already" in second.stderr) == (1, True)
    assert records.judged(records.read(folder)).state == "running"


def test_a_run_whose_beginner_died_is_dead(notebook):
    path = notebook(RUNS)
    begin = "from pathlib import Path; from ipyrescue.runs import spawn, record; "
    subprocess.run([sys.executable, "-c", begin + f"spawn.begin(Path({str(path)!r}), record.Options())"], check=True)

    assert [record.state for record in map(records.judged, records.read_all(path.parent / ".ipyrescue"))] == ["dead"]
