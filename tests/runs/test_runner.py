"""Notebooks that run to their end: kernels that die in them, cells that fail, runs that are stopped. All real."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_runs import Run, shown, wait_until

from ipyrescue.cli import runs as runs_shown
from ipyrescue.errors import StoreError
from ipyrescue.runs import outputs, runner, spawn
from ipyrescue.runs import record as records
from ipyrescue.runs.holdings import Holdings
from ipyrescue.store import Store, lives
from ipyrescue.store.signing import load_key

COUNT = "def ran(n):\n    with open('ran', 'a') as file: file.write(f'{n} ')\n"
DIE_ONCE = "import os, pathlib\nif not pathlib.Path('died{0}').exists():\n    pathlib.Path('died{0}').touch()\n"
KILL = "os.kill(os.getpid(), 9)"
LOOP = """
ran(4)
import time, glob, pathlib
before = len(glob.glob('.ipyrescue/snapshots/*'))
for i in ipyrescue.loop(range(60), name='train'):
    seen.append(i)
    print(f'epoch {i}', flush=True)
    time.sleep(0.05)
    if i > 5 and not pathlib.Path('died4').exists() and len(glob.glob('.ipyrescue/snapshots/*')) > before:
        time.sleep(0.5)
        pathlib.Path('died4').touch()
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def begin(*sources: str, **options: Any) -> Run:
        monkeypatch.chdir(tmp_path)
        made.append(Run(tmp_path, sources, **options))
        return made[-1]

    yield begin
    for one in made:
        one.clean_up()


def test_a_run_goes_on_at_the_cell_in_which_the_kernel_died(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain loop begins anew, a loop of ipyrescue's goes on; and the disk is full for a while."""
    one = run(
        f"{COUNT}ran(1)\nimport ipyrescue\nseen, total = [], 0\nprint('one')",
        "ran(2)\ntotal += 1\nshown = __import__('IPython').display.display('old', display_id=True)\ntotal",
        "ran(3)\nimport time\nfor i in range(4):\n    total += 1\n    print('step', i, flush=True)\n"
        + DIE_ONCE.format(3)
        + "    print('last words'); sys = __import__('sys'); sys.stdout.flush(); time.sleep(0.5)\n    " + KILL,
        LOOP,
        "ran(5)\nshown.update('new')\nprint(total, seen == list(range(60)))",
        every_seconds=0.3,
    )  # fmt: skip
    real, refusals = outputs.drafted, iter(range(3))

    def drafted(path: Path, data: bytes) -> contextlib.AbstractContextManager[tuple[Path, outputs.Written | None]]:
        if next(refusals, None) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(outputs, "drafted", drafted)

    assert one.here() == 0

    record = one.record
    assert (record.state, record.attempt, record.cell, record.cells) == ("finished", 3, 5, 5)
    assert (tmp_path / "ran").read_text().split() == ["1", "2", "3", "3", "4", "4", "5"]
    assert one.text(5) == "5 True\n"
    assert [death.cell for death in record.deaths] == [3, 4]
    assert all(death.exit_code == -signal.SIGKILL and "SIGKILL" in death.text for death in record.deaths)
    assert one.pauses == [1.0, 2.0]
    assert one.text(1) == "one\n"
    assert one.text(2) == "'new'\n1\n"
    steps = "".join(f"step {i}\n" for i in range(4))
    mark = "--- ipyrescue: the kernel died here at .*: it was killed .*SIGKILL.*; the cell runs again, {} ---\n"
    assert re.fullmatch(steps + "last words\n" + mark.format("from its beginning") + steps, one.text(3))
    before, after = re.split(mark.format("going on: loop 'train' goes on after .* of 60"), one.text(4))
    assert before.startswith("epoch 0\nepoch 1\n")
    assert after.endswith("epoch 59\n")
    assert not after.startswith("epoch 0\n")
    assert "No space left" in one.log
    assert "are in" in one.log
    for cell in one.output.cells:
        assert cell.metadata.ipyrescue.state == "done"
        assert "shell.execute_reply" in cell.metadata.execution
    assert [done.cell for done in record.done] == [1, 2, 3, 4, 5]
    assert not Store.open(tmp_path / ".ipyrescue", load_key()).pins()


def test_a_cell_that_raises_fails_the_run_and_once_mended_is_run_from_the_cell_before(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    sources = [
        f"{COUNT}ran(1)\nlr = 0.1",
        "ran(2)\nvalues = [lr]\nimport os, IPython.display as d\nshown = d.display('old', display_id=True)",
        "1 / 0",
        "ran(4)\nvalues.append(len(values))\nvalues",
        "raise KeyError('never')",
    ]
    tags = {0: "parameters", 2: "raises-exception", 4: "skip-execution"}
    one = run(*sources, parameters=(("lr", "3e-4"),))
    one.write([*sources[:3], "ran(4)\nvalues.append(1)\nshown.update('new')\nmissing", sources[4]], tags)

    assert one.here() == runner.FAILED

    assert one.record.state == "failed"
    assert "Cell 5 raised NameError: name 'missing' is not defined. Edit" in str(one.record.reason)
    assert "NameError" in one.text(5)
    assert "ZeroDivisionError" in one.text(4)
    one.write(sources, tags)
    assert one.resume() == 0
    assert one.text(5) == "[0.0003, 1]\n"
    assert (tmp_path / "ran").read_text().split() == ["1", "2", "4", "4"]
    assert one.output.cells[1].source == "# Parameters\nlr = 0.0003"
    assert "ZeroDivisionError" in one.text(4)
    assert one.text(3) == "'new'\n"


@pytest.mark.slow
def test_an_edited_cell_and_all_that_follow_run_again(run: Callable[..., Run], tmp_path: Path) -> None:
    """At first from the end of the cell before it; later that snapshot may be gone, and then this is told."""
    sources = [f"{COUNT}ran(1)\nvalues = [1]", "ran(2)\nvalues.append(2)", "ran(3)\nvalues.append(3)\nvalues"]
    one = run(*sources)
    assert one.here() == 0
    assert one.text(3) == "[1, 2, 3]\n"

    one.write([sources[0], sources[1].replace("append(2)", "append(22)"), sources[2]])
    assert one.resume() == 0

    assert (tmp_path / "ran").read_text().split() == ["1", "2", "3", "2", "3"]
    assert one.text(3) == "[1, 22, 3]\n"
    assert "Cell 2 was edited, moved or added since it ran: it and all that follow run again." in one.log
    one.write([*sources[:2], "ran(3)\nvalues[1:]"])
    assert one.resume() == 0
    assert one.text(3) == "[2]\n"
    assert (tmp_path / "ran").read_text().split()[5:] in (["2", "3"], ["1", "2", "3"])


def test_a_cell_that_always_crashes_ends_the_run_when_no_retry_is_left(run: Callable[..., Run], tmp_path: Path) -> None:
    one = run(f"{COUNT}ran(1)", f"import os\nran(2)\n{KILL}", retries=1)

    assert one.here() == runner.DIED

    assert (one.record.state, one.record.exit_code, len(one.record.deaths)) == ("died", 6, 2)
    assert "was killed (SIGKILL, as by kill -9) (2 deaths; --retries 1)" in str(one.record.reason)
    assert (tmp_path / "ran").read_text() == "1 2 2 "
    assert one.pauses == [1.0]
    assert one.output.cells[1].metadata.ipyrescue.state == "died"


@pytest.mark.slow
def test_a_run_that_is_stopped_in_a_loop_goes_on_there(run: Callable[..., Run], tmp_path: Path) -> None:
    one = run(
        f"{COUNT}ran(1)\nimport ipyrescue, time, pathlib\nseen = []",
        "ran(2)\nfor i in ipyrescue.loop(range(10**6)):\n    seen.append(i)\n    time.sleep(0.01)\n"
        "    print(i, flush=True)\n    if pathlib.Path('enough').exists(): break",
        "print(seen == list(range(len(seen))))",
    )
    process = one.apart()
    wait_until(lambda: one.record.cell == 2 and (one.record.progress or "0").isdigit() and one.record.progress)
    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(60) == runner.STOPPED
    record = one.record
    assert record.state == "stopped"
    assert "after snapshot" in str(record.reason)
    (tmp_path / "enough").touch()
    assert one.resume() == 0
    assert one.text(3) == "True\n"
    assert (tmp_path / "ran").read_text() == "1 2 2 "
    assert re.search(
        "the run was stopped here at .*; the cell runs again, going on: loop .* goes on after", one.text(2)
    )


@pytest.mark.slow
def test_a_cell_that_takes_too_long_is_interrupted(run: Callable[..., Run]) -> None:
    one = run(
        "x = 1", "import time\nprint('waits', flush=True)\nwhile True: time.sleep(0.05)", timeout_cell_seconds=1.0
    )

    assert one.here() == runner.FAILED

    assert "Cell 2 ran longer than --timeout-cell 1s" in str(one.record.reason)
    assert "KeyboardInterrupt" in one.text(2)


@pytest.mark.slow
def test_what_follows_a_death_can_be_chosen(run: Callable[..., Run], tmp_path: Path) -> None:
    dying = f"ran(2)\n{DIE_ONCE.format(2)}    {KILL}\nprint('two')"
    one = run(f"{COUNT}ran(1)\nprint('one')", dying, on_failure="stop")
    assert one.here() == runner.DIED
    assert (one.pauses, len(one.record.deaths)) == ([], 1)

    (tmp_path / "died2").unlink()
    (tmp_path / "ran").unlink()
    two = run(f"{COUNT}ran(1)\nprint('one')", dying, on_failure="restart")
    assert two.here() == 0

    assert (tmp_path / "ran").read_text() == "1 2 1 2 "
    assert two.text(1) == "one\n--- ipyrescue: the cell runs again: the run went back to cell 1 ---\none\n"
    assert two.text(2).endswith("the cell runs again, after cell 1 and what follows ---\ntwo\n")
    assert [done.cell for done in two.record.done] == [1, 2]


@pytest.mark.slow
def test_a_run_that_is_stopped_at_once_has_not_died(run: Callable[..., Run]) -> None:
    one = run("x = 1", "print('waits', flush=True)\nwhile True: pass")
    process = one.apart()
    wait_until(lambda: one.record.progress == "waits")

    one.stop(now=True)

    assert process.wait(60) == runner.STOPPED
    assert (one.record.state, one.record.deaths) == ("stopped", ())
    assert "the run was stopped here" in str(one.record.cut_off)
    assert one.output.cells[1].metadata.ipyrescue.state == "stopped"
    assert one.text(2) == "waits\n"


@pytest.mark.slow
def test_a_thread_that_prints_on_and_on_keeps_no_run_from_its_end(run: Callable[..., Run]) -> None:
    prints = "def beat():\n    while True:\n        print('beat', flush=True)\n        time.sleep(0.001)\n"
    one = run(
        f"import threading, time\n{prints}threading.Thread(target=beat, daemon=True).start()",
        "print('done')",
    )

    assert one.apart().wait(60) == 0

    assert one.record.state == "finished"
    assert "done" in one.text(2)
    assert "beat" in one.text(1) + one.text(2)


@pytest.mark.slow
def test_a_last_cell_that_ends_while_the_run_is_to_stop_finishes_it(run: Callable[..., Run], tmp_path: Path) -> None:
    """Of two cells the first: what is left is gone on with by resume."""
    waits = "import pathlib, time\nprint('waits {0}', flush=True)\nwhile not pathlib.Path('go{0}').exists(): pass"
    one = run(waits.format(1), waits.format(2))

    for cell, (code, state) in enumerate([(runner.STOPPED, "stopped"), (0, "finished")], 1):
        process = one.apart() if cell == 1 else one.resume_apart()
        wait_until(lambda cell=cell: one.record.progress == f"waits {cell}")
        one.stop()
        wait_until(lambda: one.record.state == "stopping")
        (tmp_path / f"go{cell}").touch()
        assert process.wait(60) == code
        assert (one.record.state, len(one.record.done)) == (state, cell)


@pytest.mark.slow
def test_at_a_sigterm_there_is_less_time_for_a_snapshot(run: Callable[..., Run]) -> None:
    """It ends before `docker stop` kills, also where somebody has asked to stop before."""
    one = run("import time\nprint('waits', flush=True)\ntime.sleep(3600)")
    process = one.apart()
    wait_until(lambda: one.record.progress == "waits")
    one.stop()
    wait_until(lambda: one.record.state == "stopping")

    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(60) == runner.STOPPED
    waited = re.search(r"came to no place for one within ([\d.]+) ?s", str(one.record.reason))
    assert waited is not None, one.record.reason
    assert float(waited[1]) < 15


@pytest.mark.slow
def test_a_resume_goes_on_in_the_notebook_where_the_outputs_stand_by_now(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    """A file that was there, an editor that saves while the run goes on and after its end, and a file that is gone."""
    foreign = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("mine")])
    nbformat.write(foreign, tmp_path / "train.run.ipynb")
    beats = "while not pathlib.Path('go').exists():\n    print('beat', flush=True)\n    time.sleep(0.1)"
    one = run("import pathlib, time\nprint('one')", "print('two')", beats)
    files = [tmp_path / f"train.run{end}.ipynb" for end in ("", "-2", "-3", "-4")]

    process = one.apart()
    wait_until(lambda: one.record.cell == 3 and "beat" in texts(files[1])[2])
    process.kill()
    process.wait()
    process = one.resume_apart()
    wait_until(lambda: texts(files[1])[2].count("ipyrescue: the run was cut off here") == 1)
    saved_by_an_editor(files[1])
    wait_until(lambda: files[2].exists())
    assert one.record.output == str(files[2])
    one.stop(now=True)
    assert process.wait(60) == runner.STOPPED
    saved_by_an_editor(files[2])
    (tmp_path / "go").touch()
    assert one.resume() == 0

    assert [path.name for path in sorted(tmp_path.glob("*.run*"))] == sorted(path.name for path in files)
    assert nbformat.read(files[0], as_version=4).cells[0].source == "mine"
    assert all(nbformat.read(path, as_version=4).metadata["editor"] == "was here" for path in files[1:3])
    for path in files[1:]:
        assert texts(path)[:2] == ["one\n", "two\n"]
    assert runs_shown.document(runs_shown.look(one.folder))["output"] == str(files[3])
    assert one.record.reason == f"The outputs are in {files[3]}, not in {files[0]}."
    files[3].unlink()
    assert one.resume() == 0
    assert all("what this cell showed is in no notebook any more" in text for text in texts(files[3]))
    assert "No notebook has the outputs of these cells any more: 1, 2, 3." in one.log


def texts(path: Path) -> list[str]:
    """What the cells of a notebook show; empty texts while there is none."""
    return [shown(cell) for cell in nbformat.read(path, as_version=4).cells] if path.exists() else [""] * 3


def saved_by_an_editor(path: Path) -> None:
    """As JupyterLab saves: the same cells, and metadata of its own."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["editor"] = "was here"
    nbformat.write(notebook, path)


@pytest.mark.slow
def test_outputs_whose_folder_is_gone_are_beside_the_notebook_or_the_run_says_that_they_are_lost(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    one = run("print('one')", "import shutil\nshutil.rmtree('out')", output=str(tmp_path / "out" / "res.ipynb"))

    assert one.here() == 0

    assert one.text(1) == "one\n"
    assert f"The outputs are in {tmp_path}/train.run.ipynb, not in {tmp_path}/out/res.ipynb." == one.record.reason
    one.source.unlink()
    (tmp_path / "train.run.ipynb").unlink()
    two = run("print('one')")
    monkeypatch.setattr(outputs, "drafted", full)
    assert two.here() == runner.INCOMPLETE
    assert (two.record.state, two.record.exit_code) == ("finished", 3)
    assert "The last outputs are not in" in str(two.record.reason)
    assert "No space left" in str(two.record.reason)


@contextlib.contextmanager
def full(path: Path, data: bytes) -> Iterator[tuple[Path, outputs.Written | None]]:
    """A disk that is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    yield path, None


@pytest.mark.slow
def test_what_a_dead_kernel_left_running_is_ended(run: Callable[..., Run], tmp_path: Path) -> None:
    """Before the next one starts, and before a resume; who has a session of its own stays, and so do strangers."""
    one = run(
        "import os, pathlib, subprocess, sys, time\n"
        "def noted(process):\n    with open('left', 'a') as file: print(process.pid, file=file)",
        "noted(subprocess.Popen(['sleep', '600']))\n"
        "stubborn = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', stubborn], env={}, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nnoted(child)\n"
        "noted(subprocess.Popen(['sleep', '600'], start_new_session=True))\n"
        f"if not os.path.exists('go'):\n    pathlib.Path('go').touch()\n    {KILL}\n"
        "print('waits', flush=True)\nwhile True: time.sleep(0.1)",
        retries=1,
    )
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        process = one.apart()
        wait_until(lambda: one.record.progress == "waits")
        left = [int(line) for line in (tmp_path / "left").read_text().split()]
        assert [runs(pid) for pid in left] == [False, False, True, True, True, True]
        assert re.search(r"left running was ended: sleep \(pid \d+\), python\S* \(pid \d+\)\.", one.log)

        beaten = time.time()
        wait_until(lambda: records.last_seen(one.folder) > beaten)
        process.kill()
        process.wait()
        wait_until(lambda: not runs(one.record.kernel.pid))
        assert [runs(pid) for pid in left[3:]] == [True, True, True]
        spawn.prepare_resume(one.folder)

        wait_until(lambda: [runs(pid) for pid in left[3:]] == [False, False, True])
        assert one.log.count("What the kernel left running was ended: ") == 2
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        for pid in map(int, (tmp_path / "left").read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    return lives.process_facts(pid).start_ticks is not None


def test_what_cannot_be_run_is_refused_in_a_sentence(run: Callable[..., Run]) -> None:
    one = run("x = 1", kernel="no-such-kernel")
    assert one.here() == runner.FAILED
    assert "There is no kernel called no-such-kernel here." in str(one.record.reason)
    julia = nbformat.read(one.source, as_version=4)
    julia.metadata["kernelspec"] = {"name": "julia", "display_name": "Julia", "language": "julia"}
    nbformat.write(julia, one.source)
    assert one.resume() == runner.FAILED
    assert "train.ipynb is a notebook in julia" in str(one.record.reason)


@pytest.mark.slow
def test_a_store_that_is_silent_is_not_why_a_cell_failed(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, known = run("open('ran', 'w').close()\n1 / 0"), Holdings.newest_sequence

    def newest_sequence(holdings: Holdings) -> int:
        if (tmp_path / "ran").exists():
            raise StoreError("Could not read the store: Stale file handle.")
        return known(holdings)

    monkeypatch.setattr(Holdings, "newest_sequence", newest_sequence)

    assert one.here() == runner.FAILED

    assert "Cell 1 raised ZeroDivisionError" in str(one.record.reason)
    assert "ZeroDivisionError" in str(one.record.cut_off)
    assert "inside cell 1, for the store is silent: Could not read the store" in one.log


@pytest.mark.slow
def test_in_place_what_an_editor_saves_meanwhile_stays(run: Callable[..., Run], tmp_path: Path) -> None:
    """The cell itself plays the editor."""
    edit = "import json\nsaved = json.load(open('train.ipynb'))\nsaved['cells'][0]['source'] = 'mine'\n"
    one = run(f"print('one')\n{edit}json.dump(saved, open('train.ipynb', 'w'))", "print('two')", in_place=True)

    assert one.here() == 0

    assert nbformat.read(one.source, as_version=4).cells[0].source == "mine"
    assert one.text(2) == "two\n"
    assert "was changed by somebody else" in one.log
