"""Life records with real processes, real forks and real deaths."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from datetime import datetime, timedelta, timezone

import pytest

from ipyrescue.identity import Identity
from ipyrescue.incarnations import deaths
from ipyrescue.incarnations.protection import protection
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.store import layout, lives
from ipyrescue.training.loop import loop

ME, OTHER = "a" * 16, "b" * 16

KERNEL = """
    import atexit, os, sys, time
    from pathlib import Path
    from ipyrescue.identity import Identity
    from ipyrescue.kernel.life import LifeRecorder

    root = Path(sys.argv[1])
    recorder = LifeRecorder("b" * 16, heartbeat_seconds=0.05)
    recorder.begin(root, Identity("train.ipynb", "notebook", root.parent / "train.ipynb", root))
    recorder.cell_begins(9, "for epoch in range(100):\\n    train()")
    print("ready", flush=True)
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / ".ipyrescue"


@pytest.fixture
def recorder(root):
    made = LifeRecorder(ME, heartbeat_seconds=0.05)
    made.begin(root, _identity(root))
    yield made
    made.stop()


def _identity(root, notebook="train.ipynb", kind="notebook"):
    return Identity(notebook, kind, root.parent / notebook, root)


def _on_disk(root, incarnation=ME):
    return json.loads(layout.life_path(root, incarnation).read_text())


def _kernel(root, end):
    """Run a kernel's life in a process of its own; *end* is the code of its last moment."""
    code = textwrap.dedent(KERNEL) + textwrap.dedent(end)
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)


def _run(root, end):
    process = _kernel(root, end)
    process.communicate(timeout=60)
    return process.returncode


def test_a_record_says_who_lives_and_which_cell_runs(root, recorder):
    recorder.cell_begins(4, "x = 1\ny = 2")

    found = _on_disk(root)
    assert (found["notebook"], found["kind"], found["pid"]) == ("train.ipynb", "notebook", os.getpid())
    assert (found["cell"], found["cell_source"], found["cell_running"]) == (4, "x = 1", True)
    assert lives.state(lives.read_all(root)[0]) == "alive"

    recorder.cell_ends()
    assert (_on_disk(root)["cell"], _on_disk(root)["cell_running"]) == (4, False)


def test_the_heartbeat_tells_what_loops_stand_at(root, recorder):
    deadline = time.monotonic() + 60
    for n in loop(range(5), name="train"):
        while n == 3 and _on_disk(root)["loops"] != ["train 3/5"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert n != 3 or lives.read_all(root)[0].loops == ("train 3/5",)
    recorder.cell_ends()
    assert lives.read_all(root)[0].loops == ()


def test_a_process_that_writes_is_on_record_until_it_does_not(root, recorder):
    """By its pid and its start, so that a later process of that number is not taken for it."""
    recorder.writes(os.getpid())
    (life,) = lives.read_all(root)
    assert (life.writer_pid, life.writer_start_ticks) == (os.getpid(), lives.process_facts(os.getpid()).start_ticks)
    assert lives.still_writes(life)

    recorder.writes(None)
    assert not lives.still_writes(lives.read_all(root)[0])


def test_the_first_end_counts(root, recorder):
    """A shutdown is followed by atexit, and by the end of the cell that it interrupted."""
    recorder.ends("restart")
    recorder.ends("exit")
    recorder.cell_ends()

    assert _on_disk(root)["ended"] == "restart"


@pytest.mark.parametrize(
    ("end", "ended"),
    [
        ("", "exit"),
        ("sys.exit(3)", "exit"),
        ("raise RuntimeError", "exit"),
        ("os.kill(os.getpid(), 9); time.sleep(9)", None),
        ("os.kill(os.getpid(), 15); time.sleep(9)", None),
        ("os._exit(0)", None),
    ],
)
def test_a_crash_is_told_from_a_clean_end(root, end, ended):
    _run(root, end)

    assert _on_disk(root, OTHER)["ended"] == ended
    death = deaths.previous_death(root, "train.ipynb", ME)
    assert (death is not None) == (ended is None)
    if death is not None:
        assert death.life.cell == 9
        assert abs(time.time() - death.last_seen) < 60


def test_a_forked_child_that_exits_does_not_end_its_parents_life(root):
    """DataLoader workers and multiprocessing children inherit the atexit handler."""
    code = """
        pid = os.fork()
        if pid == 0:
            recorder.cell_begins(99, "child")
            recorder.ends("exit")
            recorder.begin(root, Identity("child.ipynb", "notebook", None, root))
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.kill(os.getpid(), 9)
        time.sleep(9)
    """
    assert _run(root, code) == -signal.SIGKILL

    found = _on_disk(root, OTHER)
    assert (found["ended"], found["cell"], found["notebook"]) == (None, 9, "train.ipynb")


def test_a_kernel_that_still_runs_is_no_death(root):
    process = _kernel(root, "time.sleep(60)")
    try:
        assert process.stdout.readline() == "ready\n"
        alive = deaths.still_alive(root, "train.ipynb", ME)
        assert alive.pid == process.pid
        assert deaths.previous_death(root, "train.ipynb", ME) is None
    finally:
        process.kill()
        process.communicate()

    assert deaths.still_alive(root, "train.ipynb", ME) is None
    assert deaths.previous_death(root, "train.ipynb", ME).life.pid == process.pid


def test_a_death_is_told_until_it_is_restored_or_dismissed(root):
    _run(root, "os._exit(0)")
    death = deaths.previous_death(root, "train.ipynb", ME)

    deaths.mark_restored(root, death.life, "c" * 16)
    assert deaths.previous_death(root, "train.ipynb", ME) is None
    assert lives.last_seen(root, death.life) == pytest.approx(death.last_seen, abs=1e-3)

    lives.write(root, death.life)
    assert deaths.previous_death(root, "train.ipynb", ME) is not None
    deaths.dismiss(root, death.life)
    assert deaths.previous_death(root, "train.ipynb", ME) is None


def test_only_lives_of_this_notebook_and_not_ones_own_are_asked(root):
    _run(root, "os._exit(0)")

    assert deaths.previous_death(root, "other.ipynb", ME) is None
    assert deaths.previous_death(root, "train.ipynb", OTHER) is None
    assert deaths.previous_death(root.parent / "nowhere", "train.ipynb", ME) is None


def test_the_heartbeat_goes_on_while_a_cell_runs_and_stops_with_the_recorder(root, recorder):
    path = layout.life_path(root, ME)
    os.utime(path, (0, 0))

    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0

    recorder.stop()
    time.sleep(0.2)
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime == 0


class Kernel:
    """As much of ipykernel as a life record meets."""

    def do_shutdown(self, restart):
        """Answer a shutdown request."""
        return {"restart": restart}


@pytest.mark.parametrize(("restart", "ended"), [(True, "restart"), (False, "shutdown")])
def test_a_requested_end_is_told_by_its_kind(root, restart, ended):
    kernel = Kernel()
    recorder = LifeRecorder(ME, kernel=kernel)
    recorder.begin(root, _identity(root))

    assert kernel.do_shutdown(restart) == {"restart": restart}

    assert _on_disk(root)["ended"] == ended
    recorder.stop()
    assert "do_shutdown" not in vars(kernel)


def test_stop_leaves_a_hook_alone_that_somebody_else_put_over_ours(root):
    kernel = Kernel()
    recorder = LifeRecorder(ME, kernel=kernel)
    recorder.begin(root, _identity(root))
    ours = kernel.do_shutdown
    theirs = kernel.do_shutdown = lambda restart: ours(restart)

    recorder.stop()

    assert kernel.do_shutdown is theirs
    assert theirs(False) == {"restart": False}
    assert _on_disk(root)["ended"] is None


def test_begin_again_brings_the_record_to_the_other_store(root, recorder, tmp_path):
    """VS Code names the notebook late; the console's record must not look like a death for ever."""
    elsewhere = tmp_path / "deep" / ".ipyrescue"
    elsewhere.parent.mkdir()
    recorder.cell_begins(3, "x")

    recorder.begin(elsewhere, _identity(elsewhere, "late.ipynb"))

    assert (_on_disk(elsewhere)["notebook"], _on_disk(elsewhere)["cell"]) == ("late.ipynb", 3)
    assert _on_disk(root)["ended"] == "moved"
    recorder.cell_begins(5, "y")
    assert _on_disk(elsewhere)["cell"] == 5
    assert _on_disk(root)["cell"] == 3


def test_begin_again_in_the_same_store_only_renames(root, recorder):
    recorder.begin(root, _identity(root, "late.ipynb"))

    assert (_on_disk(root)["notebook"], _on_disk(root)["ended"]) == ("late.ipynb", None)


@pytest.mark.parametrize("method", ["cell_begins", "cell_ends", "ends"])
def test_a_disk_that_refuses_breaks_nothing_and_is_remembered(root, recorder, monkeypatch, method):
    """A life record must never break a cell."""

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lives, "write", refuse)
    arguments = {"cell_begins": (1, "x"), "cell_ends": (), "ends": ("exit",)}[method]

    getattr(recorder, method)(*arguments)

    assert "No space left" in recorder.warning
    assert "life record was not written" in recorder.warning


def test_a_store_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    recorder = LifeRecorder(ME)

    recorder.begin(tmp_path / "file" / ".ipyrescue", _identity(tmp_path))
    recorder.cell_begins(1, "x")
    recorder.ends("exit")
    recorder.stop()

    assert recorder.warning


def test_nothing_is_written_before_begin(root):
    recorder = LifeRecorder(ME, kernel=types.SimpleNamespace(do_shutdown=None))

    recorder.cell_begins(1, "x")
    recorder.ends("exit")
    recorder.stop()

    assert not root.exists()
    assert recorder.life is None


@pytest.mark.parametrize(
    "line",
    [
        "OPENAI_API_KEY = 'whatever it is'",
        "client = connect(token='0a1b2c3d4e5f6a7b')",
        "client = connect(api_key='abc')",
        "login(sk-0123456789abcdefghij)",
        "!git clone https://me:hunter2@example.org/x",
    ],
)
def test_a_line_that_looks_like_a_secret_is_not_noted(recorder, root, line):
    """The record is shown to whoever opens the notebook; a snapshot would leave the variable out as well."""
    recorder.cell_begins(1, f"{line}\nmore()")
    assert "secret" in _on_disk(root)["cell_source"]
    recorder.cell_ends(1, line, ValueError(line))

    text = layout.life_path(root, ME).read_text()
    assert "looks like a secret" in _on_disk(root)["error"]
    assert not any(word in text for word in ("whatever", "abc'", "sk-", "hunter2"))


def test_a_line_of_a_tokenizer_is_noted(recorder, root):
    recorder.cell_begins(1, "tokenizer = load('bert'); max_token = 512")

    assert _on_disk(root)["cell_source"].startswith("(withheld") is False


def test_who_ended_long_ago_and_saved_nothing_is_forgotten(root):
    """Where a profile loads us and nobody makes snapshots, each start of a kernel would add a record for ever."""
    week_ago = time.time() - 8 * 86_400
    with_snapshot, without, unanswered = "1" * 16, "2" * 16, "3" * 16
    for incarnation, fields in (
        (with_snapshot, {"ended": "exit", "saved_at": "2026-11-01T10:00:00Z"}),
        (without, {"ended": "exit"}),
        (unanswered, {}),
    ):
        recorder = LifeRecorder(incarnation)
        recorder.begin(root, _identity(root))
        recorder.stop()
        record = layout.life_path(root, incarnation)
        record.write_text(json.dumps(json.loads(record.read_text()) | fields))
        os.utime(record, (week_ago, week_ago))

    recorder = LifeRecorder(ME)
    recorder.begin(root, _identity(root))

    try:
        deadline = time.monotonic() + 60
        while layout.life_path(root, without).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert {life.incarnation for life in lives.read_all(root)} == {with_snapshot, unanswered, ME}
    finally:
        recorder.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_faulthandler_of_the_user_keeps_its_file(root, tmp_path):
    """What Python's table of handlers does not show is left alone as well."""
    end = """
        import faulthandler, signal
        mine = open(sys.argv[2], "w")
        recorder.stop()
        faulthandler.register(signal.SIGTERM, mine, chain=True)
        recorder = LifeRecorder("c" * 16)
        recorder.begin(root, Identity("train.ipynb", "notebook", root.parent / "train.ipynb", root))
        os.kill(os.getpid(), signal.SIGTERM)
    """
    code = textwrap.dedent(KERNEL) + textwrap.dedent(end)
    subprocess.run([sys.executable, "-c", code, str(root), str(tmp_path / "mine")], stdout=subprocess.DEVNULL)

    assert "most recent call first" in (tmp_path / "mine").read_text()


def test_nothing_is_noted_through_a_link_in_the_place_of_our_folder(root, tmp_path):
    """Whoever can write beside the notebook would choose where the record goes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    layout.create(root)
    layout.kernels(root).rmdir()
    layout.kernels(root).symlink_to(elsewhere)
    recorder = LifeRecorder(ME, heartbeat_seconds=0.02)

    recorder.begin(root, _identity(root))
    recorder.cell_begins(1, "x = 1")
    recorder.cell_ends(1, "x = 1")
    recorder.ends("exit")
    recorder.stop()

    assert list(elsewhere.iterdir()) == []
    assert "symbolic link" in str(recorder.warning)


def test_a_link_that_is_planted_while_it_lives_changes_nothing_but_the_warning(root, recorder, tmp_path):
    """No cell is harmed, nothing is written behind the link, and what is to be told is one sentence."""
    elsewhere = tmp_path / "elsewhere"
    layout.kernels(root).rename(tmp_path / "aside")
    elsewhere.mkdir()
    layout.kernels(root).symlink_to(elsewhere)

    for number in (1, 2):
        recorder.cell_begins(number, "x = 1")
        recorder.cell_ends(number, "x = 1")
        assert "is a symbolic link, so nothing is written to it" in recorder.warning
    recorder.ends("exit")

    assert list(elsewhere.iterdir()) == []


def test_the_record_says_since_when_the_work_is_protected(root, recorder, monkeypatch):
    began = time.time()
    passed = 0.0

    def since():
        return _on_disk(root)["protected_since"]

    def wait(seconds):
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(time, "time", lambda: began + passed)
    recorder.cell_begins(1, "train()")
    recorder.saves(_moment())
    assert since() is None, "a snapshot by hand protects nothing that comes"
    recorder.arms(300.0)
    first = since()
    assert first is not None
    wait(1)
    recorder.saves(_moment())
    assert since() == first, "each snapshot goes on with it"
    recorder.fails("The disk is full.")
    assert since() is None
    wait(1)
    recorder.saves(_moment())
    second = since()
    assert second > first
    wait(9000)
    recorder.saves(_moment())
    assert since() > second, "the cell ran unprotected meanwhile"
    recorder.arms(None)
    assert since() is None


def test_armed_before_there_is_a_snapshot_nothing_is_protected_yet(root, recorder):
    recorder.arms(300.0)
    assert _on_disk(root)["protected_since"] is None

    recorder.saves(_moment())

    assert _on_disk(root)["protected_since"] is not None


def test_the_record_says_what_snapshots_cost_and_the_interval_that_follows(root, recorder):
    recorder.arms(300.0)
    assert _on_disk(root)["interval_seconds"] == 300.0

    recorder.saves(_moment(), pause_seconds=0.5, interval_seconds=300.0)
    recorder.slows(3.5, 400.0)
    recorder.saves(_moment())
    found = _on_disk(root)
    assert (found["pause_seconds"], found["slowdown_seconds"], found["interval_seconds"]) == (0.5, 3.5, 400.0)

    recorder.arms(60.0)
    assert _on_disk(root)["interval_seconds"] == 60.0


def test_what_stands_in_the_way_is_noted_once_and_ends_with_its_cell(root, recorder, monkeypatch):
    writes = []
    write = lives.write
    monkeypatch.setattr(lives, "write", lambda *said, **how: writes.append(1) or write(*said, **how))
    recorder.cell_begins(1, "train()")
    recorder.obstructs("a debugger holds the tracer")
    before = len(writes)
    for _ in range(100):
        recorder.obstructs("a debugger holds the tracer")
    assert len(writes) - before < 50, "each look at the clock would write to the disk"
    assert _on_disk(root)["inside"] == "a debugger holds the tracer"

    recorder.cell_ends()
    assert _on_disk(root)["inside"] is None
    recorder.cell_begins(2, "train()")
    recorder.obstructs("one long call")
    recorder.saves(_moment())
    assert _on_disk(root)["inside"] is None


def test_what_a_cell_waited_for_holds_all_that_it_did(root, recorder):
    """A command writes for seconds, in which the program does nothing; a cut inside a cell lets it go on."""
    created = _moment(-5)
    recorder.arms(300.0)
    recorder.cell_begins(1, "%checkpoint_vars")
    recorder.saves(created, waited=True)
    recorder.cell_ends()
    assert protection(recorder.life, time.time() + 9000).state == "protected"

    recorder.saves(created)
    assert protection(recorder.life, time.time() + 9000).state == "stale"


def _moment(seconds=0.0):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


# --- farewells -------------------------------------------------------------------------------------------------

FAREWELL = """
    def save(name):
        (root / "saved").write_text(name)

    farewell = recorder.farewell(save, grace_seconds=1)
    farewell.install()
    print("armed", flush=True)
"""


def _signalled(root, tmp_path, code):
    """A kernel that gets SIGTERM while it is at *code*: its exit status, its last words, and whether it saved."""
    process = _kernel(root, textwrap.dedent(FAREWELL) + textwrap.dedent(code))
    while process.stdout.readline() != "here\n":
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    return process.returncode, layout.trace_path(root, OTHER, "SIGTERM").read_text(), (root / "saved").exists()


def test_a_farewell_saves_and_the_stack_is_still_written(root, tmp_path):
    status, trace, saved = _signalled(root, tmp_path, "print('here', flush=True)\nwhile True: time.sleep(0.01)")

    assert (status, trace.count("most recent call first"), saved) == (-15, 1, True)
    assert deaths.previous_death(root, "train.ipynb", ME) is not None


def test_a_kernel_in_a_long_call_below_python_ends_after_the_grace(root, tmp_path):
    """The handler waits for the call to return; the stack is written at once all the same."""
    code = """
        import hashlib, sys
        def tell():
            while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "call":
                time.sleep(0.01)
            time.sleep(0.2)  # from the function's first instruction into the call
            print("here", flush=True)
        def call():
            hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
        import threading
        threading.Thread(target=tell, daemon=True).start()
        call()
    """

    status, trace, saved = _signalled(root, tmp_path, code)

    assert (status, trace.count("most recent call first"), saved) == (-15, 1, False)


def test_a_farewell_moves_with_the_record_and_is_gone_when_it_ends(root, tmp_path):
    code = """
        elsewhere = root.parent / "elsewhere"
        recorder.begin(elsewhere, Identity("late.ipynb", "notebook", elsewhere.parent / "late.ipynb", elsewhere))
        farewell.uninstall()
        farewell.install()
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), 15)
        assert os.waitpid(pid, 0)[1] == 15
        recorder.stop()
        farewell.uninstall()
        import signal
        assert signal.getsignal(15) is signal.SIG_DFL
        from ipyrescue.capture.signals import is_caught
        assert not is_caught(15) and not is_caught(1)
        print(sorted(path.name for path in (elsewhere / "kernels").iterdir()), flush=True)
    """
    process = _kernel(root, textwrap.dedent(FAREWELL) + textwrap.dedent(code))
    said, _ = process.communicate(timeout=60)

    assert (said.splitlines()[-1], process.returncode) == (f"['{OTHER}.json']", 0)


# --- a graceful end --------------------------------------------------------------------------------------------


@pytest.fixture
def end_gracefully(root):
    """Shut a kernel down that has *before_end*; return what the record says then."""
    made = []

    def end(before_end, restart=False):
        kernel = Kernel()
        made.append(LifeRecorder(ME, kernel=kernel, before_end=before_end))
        made[0].begin(root, _identity(root))
        assert kernel.do_shutdown(restart) == {"restart": restart}
        return _on_disk(root)["ended"]

    yield end
    made[0].stop()


@pytest.mark.parametrize(("restart", "how"), [(True, "restart"), (False, "shutdown")])
def test_something_may_be_done_before_a_graceful_end(root, end_gracefully, restart, how):
    seen = []

    assert end_gracefully(lambda said: seen.append((said, _on_disk(root)["ended"])), restart) == how
    assert seen == [(how, None)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_is_done_before_the_end_cannot_break_it(end_gracefully, error):
    def raises(how):
        raise error

    assert end_gracefully(raises) == "shutdown"


def test_what_is_done_before_the_end_cannot_hang_it(end_gracefully, monkeypatch):
    monkeypatch.setattr("ipyrescue.kernel.life.BEFORE_END_SECONDS", 0.01)
    over = threading.Event()

    assert end_gracefully(lambda how: over.wait(60)) == "shutdown"
    assert not over.is_set()
    over.set()
