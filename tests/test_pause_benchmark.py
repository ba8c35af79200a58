"""`python -m benchmarks.pause` measures what it says: every cell is there, and every contender's bytes are right.

Nothing here asserts a time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.document import write_section
from benchmarks.pause import accounting, room
from benchmarks.pause.contenders import CONTENDERS, DCP, OURS, TorchSave
from benchmarks.pause.samples import of_saves
from benchmarks.pause.table import ABSENT, Target, rows, targets

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "benchmarks.pause", "--scale", "0.004", "--quick"]
# One thread each: what the threads of torch do to each other on a busy machine is not looked at here.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
ONLY_OURS = {"restore, nothing hashed (ms)"}
NOT_OF_UNPROTECTED = {"training time lost per snapshot (ms)", "steps/s, no snapshot near (/s)"}


class Torn(TorchSave):
    """Looks at the tensors when the training has long gone on."""

    def save(self):
        return Late(super().save)


class Late:
    def __init__(self, save):
        self.result = save

    def done(self):
        return bool(self.result())


class Broken(TorchSave):
    """Never gets as far as a snapshot."""

    def begin(self, training):
        raise OSError("no such luck")


@dataclass(frozen=True)
class Run:
    """One quick run of all contenders and of two bad ones: what it said, measured, wrote, and left in its folder."""

    finished: subprocess.CompletedProcess
    size: dict
    document: str
    left: list


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pause")
    (folder / "scratch").mkdir()
    places = ["--folder", str(folder / "scratch"), "--json", str(folder / "numbers.json"), "--write", str(folder)]
    bad = ["--adapter", f"torn={__name__}:Torn", f"broken={__name__}:Broken"]
    finished = subprocess.run([*COMMAND, *places, *bad], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    (size,) = json.loads((folder / "numbers.json").read_text())["sizes"]
    return Run(finished, size, (folder / "BENCHMARKS.md").read_text(), [*(folder / "scratch").iterdir()])


@pytest.mark.slow
def test_every_cell_of_the_table_is_there(run):
    lines = [line for line in run.size["text"].splitlines() if line.startswith("| ")]
    head, *table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    assert head[1:] == [*CONTENDERS, "torn"]
    shown = {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in table if len(line) == len(head)}
    for row in rows(run.size["every_seconds"], run.size["long_seconds"]):
        title = f"{row.title} ({row.unit})" if row.unit else row.title
        for name in CONTENDERS:
            cell = shown[title][name]
            if title in ONLY_OURS and name not in OURS:
                assert cell == ABSENT
            elif name != "unprotected" or "speed" in title or title in NOT_OF_UNPROTECTED:
                assert cell not in ("", ABSENT), (title, name)
    for target in targets(DCP):
        assert any(line[0] == target.words for line in table), target.words
    assert run.size["text"] in run.document
    assert run.size["text"] in run.finished.stdout


@pytest.mark.slow
def test_every_contender_brings_back_the_state_of_its_moment(run):
    for name in CONTENDERS:
        rounds = run.size["contenders"][name]
        if name != "unprotected":
            saved, restored = rounds["saved"][0]["digests"], rounds["restored"][0]["digests"]
            assert {"model.0.weight", "optimizer.state.0.exp_avg", "optimizer.state.0.step"} <= saved.keys()
            assert restored == saved, name
    (told,) = [line for line in run.size["text"].splitlines() if "those of the moment" in line]
    assert told.split().count("yes") == len(CONTENDERS) - 1


@pytest.mark.slow
def test_bad_contenders_are_found_out_and_the_others_measured(run):
    assert "torn did not bring back: model.0.weight" in run.finished.stderr
    assert "broken failed:" in run.finished.stderr
    assert "OSError: no such luck" in run.finished.stderr
    assert "broken" not in run.size["text"]


@pytest.mark.slow
def test_nothing_is_left(run):
    assert run.left == []


@pytest.mark.slow
def test_an_interrupt_ends_the_processes_and_removes_their_files(tmp_path):
    running = subprocess.Popen(
        [*COMMAND, "--every", "600", "--only", "DCP async (process)", "--folder", str(tmp_path)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    harness = psutil.Process(running.pid)
    while not any((folder / "0001").exists() for folder in tmp_path.glob("ipyrescue-bench-*")):
        assert running.poll() is None
        time.sleep(0.05)
    started = harness.children(recursive=True)

    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    told = running.communicate()[1]

    assert running.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "Traceback" not in told
    assert told.endswith("Stopped. The processes were ended, their files removed.\n")
    assert psutil.wait_procs(started, timeout=60)[1] == []
    assert [*tmp_path.iterdir()] == []


def test_cpu_time_and_memory_of_processes_count_while_they_live_and_after():
    """A child that has used a quarter of a second of CPU and 64 MB and lives on, then has ended."""
    work = "import time; held = b'x' * (64 << 20)\nwhile time.process_time() < 0.25: pass\nprint(); input()"
    before = accounting.cpu_seconds()
    with accounting.watched_memory() as plain:
        pass
    with (
        accounting.watched_memory() as peak,
        subprocess.Popen(
            [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
    ):
        child.stdout.readline()
        living = accounting.cpu_seconds()
        child.communicate("\n")

    assert living - before >= 0.25
    assert accounting.cpu_seconds() >= living
    assert peak.size_bytes - plain.size_bytes > 60 << 20


def test_a_size_that_does_not_fit_is_refused_with_the_numbers(tmp_path):
    memory, disk = room.missing(1e6, tmp_path)

    assert "1e+06 GB of state need more memory, and " in memory
    assert "of 4000002.0 GB are available." in memory
    assert f"need more room in {tmp_path}, and " in disk
    assert room.missing(0.0001, tmp_path) == []


def test_the_time_lost_is_that_of_the_disturbed_steps():
    """One second blocked, and a step that took four instead of one; what comes later is noise."""

    def block(protected, steps, **more):
        return {"every_seconds": 5, "protected": protected, "seconds": sum(steps), "steps": steps, **more}

    lost = block(True, [4.0] + [1.0] * 7 + [9.0], blocked_seconds=1.0, durable_seconds=5.0)
    raw = {"blocks": [lost, block(False, [1.0] * 9)]}
    snapshot = {"blocked_seconds": 0.5, "durable_seconds": 2.0, "cpu_seconds": 3.0}
    saves = {"first": snapshot, "memory_bytes": 7, "quiet": [snapshot]}

    assert of_saves([raw], 5, 60)["lost"] == [4.0]
    samples = of_saves([raw, {**raw, **saves}], 5, 60)
    assert samples["lost"] == [4.0, 4.0]
    assert samples["extra"] == [3.0]
    assert samples["price"] == [4.0]
    assert samples["blocked"] == [0.5]


def test_a_target_compares_what_it_says():
    assert Target("at most", 0.5, lambda table, ours: None).reached(0.5)
    assert not Target("at most", 0.5, lambda table, ours: None).reached(0.6)
    assert Target("at least", 0.99, lambda table, ours: None, at_least=True).reached(0.995)


def test_sections_of_one_document_do_not_overwrite_each_other(tmp_path):
    document = tmp_path / "BENCHMARKS.md"
    write_section(document, "bench", "slow")
    write_section(document, "bench-pause", "a snapshot")
    document.write_text(document.read_text() + "\nWritten by hand.\n")
    write_section(document, "bench", "fast")

    text = document.read_text()
    assert text.startswith("# Benchmarks\n\n<!-- bench: begin")
    assert "slow" not in text
    assert text.index("fast") < text.index("a snapshot") < text.index("Written by hand.")
    write_section(document, "bench-pause", "a snapshot")
    assert document.read_text() == text
