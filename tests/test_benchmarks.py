"""The benchmarks measure what they say: every row is there, and every contender brings back what it saved.

Nothing here asserts a time.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.states import Size
from benchmarks.table import ROWS, TARGETS, medians, render

ROOT = Path(__file__).parent.parent
SCALE = 0.005


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One round of every contender at a size that takes seconds."""
    file = tmp_path_factory.mktemp("benchmarks") / "samples.json"
    command = [sys.executable, "-m", "benchmarks", "--scale", str(SCALE), "--rounds", "1", "--json", str(file)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (document,) = json.loads(file.read_text())
    assert document["text"] in finished.stdout
    return document["measured"]


@pytest.mark.slow
def test_every_contender_brings_back_what_it_saved(measured):
    assert list(measured) == list(CONTENDERS)
    for rounds in measured.values():
        saved, restored = rounds[0]["saved"]["digest"], rounds[0]["restored"]["digest"]
        assert saved == restored
        assert {"frame", "records", "v07", "net.head.weight", "opt.0.exp_avg"} <= saved.keys()
        for truth in ("optimizer holds the model's parameters", "weights are tied", "v49 is v48"):
            assert saved[truth] == "True"


@pytest.mark.slow
def test_the_state_is_the_same_for_all(measured):
    digests = [rounds[0]["saved"]["digest"] for rounds in measured.values()]

    assert all(digest == digests[0] for digest in digests)


@pytest.mark.slow
def test_a_training_step_changes_every_weight(measured):
    """A model that does not learn would flatter whoever deduplicates."""
    step = measured["ipyrescue"][0]["saved"]["samples"]["step"]["written_bytes"]

    assert step > 0.95 * SCALE * 1e9


@pytest.mark.slow
def test_the_table_has_every_row(measured):
    text = render(SCALE, measured)

    for row in ROWS:
        assert row.title in text
        assert medians(measured)[row.key]["ipyrescue"] is not None
    assert text.count("met: ") + text.count("NOT MET: ") == len(TARGETS)


def test_sizes_are_what_they_are_called():
    for scale in (0.005, 0.05, 0.3, 1.2):
        size = Size.of(scale)
        parameters = size.vocabulary * size.width + size.depth * (size.width + 1) * size.width
        assert parameters * 12 / 1e9 == pytest.approx(scale, rel=0.1)
