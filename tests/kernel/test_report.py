"""Reports in their three forms."""

import dataclasses
import json
from html.parser import HTMLParser

import pytest

from ipyrescue import gpus, manifest, wording
from ipyrescue.comparing import compare
from ipyrescue.environment import Difference
from ipyrescue.finding import Scope
from ipyrescue.kernel.faces import MIME_TYPE, AsJson
from ipyrescue.kernel.frames import Frames
from ipyrescue.kernel.listing import DifferenceReport, SnapshotReport, SnapshotRow, SnapshotsTable, group_numbers
from ipyrescue.kernel.report import Forecast, SavedReport, StatusReport
from ipyrescue.kernel.reporting import restore_plan, without_gpu
from ipyrescue.kernel.restore_report import ForeignReport, PlanReport, PlanRow, RestoredReport, RestoredRow
from ipyrescue.manifest import Frame, Group, Import, Settings, Skipped, Storage, Stream, Variable
from ipyrescue.stack import Running
from tests.kernel.samples import GENERATOR, NOW, iso, snapshot

EVIL = "<script>alert('1')</script>\x1b[2J\n\"&"
HOSTILE = snapshot(label=EVIL, variables=(Variable(EVIL, EVIL, 1, None, None),))
TWELVE = tuple(dataclasses.replace(snapshot().variables[1], name=f"x{i}") for i in range(12))
OLDER = snapshot(id="a" * 16, created=iso(3600), label="start", imports=(Import("np", "numpy"),))
NEWER = snapshot(
    variables=(Variable("model", "Net2", 1_400_000_000, 9, None), Variable("y", "int", 28, None, None)),
    imports=(Import("np", "numpy"),), skipped=(Skipped("x", "int", "excluded by -x"),),
)  # fmt: skip
ARMED = Settings(every_seconds=300, keep=10, tagged=("model", "opt"))

DIFFERENCES = (
    Difference("python", "3.11.7", "3.12.1", advice="use a kernel of Python 3.11"),
    Difference("torch", "2.12.0", "2.13.0", "torch==2.12.0"),
    Difference("numpy", "2.3.1", "not installed", "numpy==2.3.1"),
)

REPORTS = [
    SavedReport(snapshot(skipped=(GENERATOR,)), "Armed.", Forecast(10, 10, 1000, 500), ("careful",)),
    RestoredReport(("model", "x"), "3f9c" * 4, 200, (GENERATOR,), ("opt",), ("careful",), "Armed.", 1.9),
    SnapshotsTable((SnapshotRow.of(snapshot()),), NOW, "train.ipynb"),
    SnapshotsTable((), NOW, "train.ipynb"),
    SnapshotReport(snapshot(imports=(Import("np", "numpy"),), skipped=(GENERATOR,)), NOW),
    StatusReport(ARMED, "/s", 10**9, NOW, snapshot(), 3, 1, True, "disk full", ("careful",)),
    StatusReport(Settings(), "/s", 10**9, NOW),
    PlanReport("checkpoint", (PlanRow("model", "Net", 10, "1"),), (GENERATOR,)),
    PlanReport("restore", (PlanRow("x", "int", 2, change="gone"),), (), "3f9c" * 4, 2.0, (), 0.3),
    PlanReport("restore", (), differences=DIFFERENCES),
    RestoredReport((), "3f9c" * 4, 200, differences=DIFFERENCES),
    SnapshotReport(snapshot(environment={"python": "3.11.7", "torch": "2.13.0"}), NOW),
    ForeignReport("3f9c" * 4, "train.ipynb", "lab", 1000, "ab:cd", iso(10)),
    DifferenceReport(OLDER, NEWER, compare(OLDER, NEWER), NOW),
    Frames((Running("train", 3, 5, {"step": 3}), Running("train", None, 5, {}, 2))),
    Frames(),
]


class _Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_every_report_has_text_html_and_json(report):
    bundle = report._repr_mimebundle_()

    assert bundle["text/plain"] == repr(report) != ""
    assert repr(report).isascii()
    assert json.loads(json.dumps(bundle[MIME_TYPE]))["report"]
    assert "application/json" not in bundle, "JupyterLab would show it instead of the table"
    page = _Balanced()
    page.feed(bundle["text/html"])
    assert page.open == []


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_html_takes_its_colours_from_the_theme(report):
    """Light or dark: text inherits, borders are half transparent, nothing paints a background."""
    html = report._repr_html_()

    assert "var(--jp-" in html
    for color in ("white", "black", "#fff", "#000"):
        assert color not in html
    assert "background:none" in html or "<table" not in html


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_json_is_what_json_shows(report):
    bundle = AsJson(report)._repr_mimebundle_()

    assert bundle["application/json"] == report.as_json()
    assert json.loads(bundle["text/plain"]) == json.loads(json.dumps(report.as_json()))
    assert AsJson(report)._repr_html_() is None


def test_a_saved_snapshot_is_one_line_with_numbers():
    """The line of the issue, word for word."""
    report = SavedReport(snapshot(variables=TWELVE, skipped=(GENERATOR,)))

    assert repr(report) == (
        "Saved 12 variables, 1.3 GB (41 MB new), paused 0.21 s. Left out 1: gen (generator, made in cell [4])."
    )


def test_what_was_tagged_and_not_saved_is_loud():
    report = SavedReport(snapshot(skipped=(GENERATOR,), settings=Settings(tagged=("ge*",))))

    assert "NOT SAVED, although you named it: gen (generator, made in cell [4])" in repr(report)
    assert "Left out" not in repr(report)
    assert "var(--jp-error-color0" in report._repr_html_()


def test_locals_are_told_from_variables():
    """They are not counted, and no glob means them; one that was named is as loud as a variable."""
    variables = (Variable("x", "int", 28, None, None), Variable("train().step", "int", 28, 3, None))
    frames = (Frame("train", 3, 5, ("train().step",)), Frame("main", 3, 9, ()))
    lost = Skipped("train().it", "generator", "generator")
    quiet = snapshot(variables=variables, frames=frames, skipped=(lost,), settings=Settings(tagged=("*",)))
    loud = dataclasses.replace(quiet, settings=Settings(tagged=("it",)))

    assert "Saved 1 variable, the locals of train(), 1.3 GB" in repr(SavedReport(quiet))
    assert "NOT SAVED" not in repr(SavedReport(quiet))
    assert "NOT SAVED, although you named it: train().it (generator)" in repr(SavedReport(loud))
    page = repr(SnapshotReport(quiet, NOW))
    assert "Ran then: train(), line 5 of cell [3]\nRan then: main(), line 9 of cell [3]\n" in page
    assert "train().step" in page


def test_frames_are_shown_without_values():
    told = repr(Frames((Running("train", 3, 5, {"step": 3}), Running("train", None, 5, {}, 2))))

    assert told == "[0] train(), line 5 of cell [3]\n[1] train()#2, line 5\nframe  local  type\n[0]    step   int"


def test_a_restore_says_how_long_it_waited():
    report = RestoredReport(("x",), "3f9c" * 4, 200, waited_seconds=3.0)

    assert "Waited 3 s for a process of the dead kernel that was still writing." in repr(report)


def test_a_long_list_of_left_out_names_is_cut():
    skipped = tuple(Skipped(f"g{i}", "generator", "generator") for i in range(9))

    told = repr(SavedReport(snapshot(skipped=skipped)))

    assert "Left out 9: g0 (generator), " in told
    assert "g4 (generator) and 4 more (all: %snapshots show 3f9c12ab)." in told


def test_a_restore_says_what_is_back_and_from_when():
    told = repr(REPORTS[1]).splitlines()

    assert told == [
        "Restored 2 variables in 1.9 s from snapshot 3f9c3f9c, made 3 min ago. "
        "Left out 1: gen (generator, made in cell [4]).",
        "Kept as they are: opt.",
        "Warning: careful",
        "Armed.",
    ]


def test_the_table_is_aligned_and_leaves_empty_columns_out():
    rows = (
        SnapshotRow.of(snapshot(label="before-lr")),
        SnapshotRow.of(snapshot(id="d" * 16, cut="interrupted", new_bytes=812)),
        SnapshotRow(id="e" * 16, mark="damaged", pinned=True),
        SnapshotRow.of(snapshot(), pinned=True),
    )

    told = repr(SnapshotsTable(rows, NOW, "train.ipynb")).splitlines()

    assert told[0].startswith("4 snapshots of train.ipynb.")
    head = told[1].split()
    assert head == ["id", "when", "label", "trigger", "cell", "cut", "variables", "size", "new", "note"]
    end = told[1].index("new") + 3
    assert [line[end - 5 : end].strip() for line in told[2:]] == ["41 MB", "812 B", "", "41 MB"]
    assert told[3].endswith("interrupted")
    assert told[4].endswith("damaged, pinned")
    assert told[5].endswith("pinned")


def test_the_notebook_is_a_column_only_where_all_are_shown():
    rows = (SnapshotRow.of(snapshot()),)

    assert "train.ipynb" in repr(SnapshotsTable(rows, NOW, "x", every_notebook=True)).splitlines()[2]
    assert "train.ipynb" not in repr(SnapshotsTable(rows, NOW, "x")).splitlines()[2]


def test_a_table_of_thousands_shows_the_newest_and_what_is_damaged():
    rows = tuple(SnapshotRow(id=f"{n:016x}", mark="damaged" if n == 4000 else "") for n in range(5000))
    table = SnapshotsTable(rows, NOW, "x")

    assert [row[0] for row in table.table().rows] == [f"{n:016x}"[:8] for n in (*range(100), 4000)]
    assert "4899 older ones not shown here" in repr(table).replace(",", "")
    assert len(table.as_json()["snapshots"]) == 5000


def test_one_snapshot_is_shown_with_cells_imports_and_what_is_missing():
    told = repr(REPORTS[4])

    assert told.startswith("Snapshot 3f9c12ab of train.ipynb: 2 variables, 1.3 GB, made 3 min ago on lab.")
    assert "Cut: cell_end, at the end of a cell, cell [7]." in told
    assert "Imports: np" in told
    assert "Left out: gen" in told
    assert "[3]" in told


def test_a_page_says_that_it_is_pinned():
    report = SnapshotReport(snapshot(), NOW, pinned=True)

    assert "Pinned: it stays until %snapshots unpin 3f9c12ab" in repr(report)
    assert report.as_json()["snapshot"]["pinned"] is True


def test_a_difference_is_counted_and_listed():
    told = repr(DifferenceReport(OLDER, NEWER, compare(OLDER, NEWER), NOW)).splitlines()

    assert told[0] == (
        "From aaaaaaaa `start` (made 1 h ago) to 3f9c12ab (made 3 min ago): 1 added, 1 removed, 1 changed, 1 the same."
    )
    assert told[1].startswith("Changed means that the saved bytes differ")
    assert [line.split() for line in told[2:]] == [
        ["change", "name", "type", "size", "before", "size", "changed", "note"],
        ["added", "y", "int", "28", "B"],
        ["removed", "x", "int", "28", "B", "left", "out:", "excluded", "by", "-x"],
        ["changed", "model", "Net", "->", "Net2", "1.3", "GB", "1.4", "GB", "0", "B"],
    ]


def test_two_equal_snapshots_are_one_sentence():
    told = repr(DifferenceReport(OLDER, OLDER, compare(OLDER, OLDER), NOW))

    assert "1 the same" in told


@pytest.mark.parametrize(
    ("pauses", "slowdown_seconds", "writer", "line"),
    [
        ((0.041,), None, None, "It paused the cell 41 ms."),
        ((0.041, 2.0), 0.0, "a child process",
         "The last 2 pauses: 41 ms, 2 s; while it was written training lost nothing that was measured. "
         "Written by a child process."),
        ((0.041,), 1.2, "a thread",
         "It paused the cell 41 ms; while it was written training lost 1.2 s. Written by a thread."),
    ],
)  # fmt: skip
def test_status_says_what_snapshots_cost(pauses, slowdown_seconds, writer, line):
    report = StatusReport(
        ARMED, "/s", 10**9, NOW, snapshot(cut="boundary"), writing=True, pauses=pauses,
        slowdown_seconds=slowdown_seconds, writer=writer, protection="Protected: so and so.", judged="protected",
    )  # fmt: skip

    told = repr(report).splitlines()

    assert told[1] == "Protected: so and so."
    assert "cut between two iterations of your loop" in told[2]
    assert told[3] == line
    assert told[4].startswith("A snapshot is being written right now")
    assert "var(--jp-success-color0" in report._repr_html_()


def test_every_cut_has_its_words():
    assert wording.CUTS.keys() == set(manifest.CUTS)


def test_status_claims_no_more_than_the_last_snapshot():
    told = repr(REPORTS[5])

    assert "at most every 5 min" in told
    assert "Last snapshot: 3f9c12ab, 3 min ago (2 variables, 1.3 GB, cut at the end of a cell)" in told
    assert "; 3 snapshots by this kernel." in told
    assert "NOT PROTECTED. 1 attempt in a row failed. disk full" in told


def test_a_status_without_snapshots_says_what_to_type():
    told = repr(REPORTS[6])

    assert told.startswith("Not armed")
    assert "no snapshot of this notebook yet" in told


@pytest.mark.parametrize(
    ("forecast", "fits"),
    [
        (Forecast(100, 10, 1000, 500), True),
        (Forecast(251, 10, 1000, 500), False),
        (Forecast(100, 10, 199, 500), False),
    ],
)
def test_a_forecast_gives_the_numbers(forecast, fits):
    assert forecast.fits == fits
    assert f"One snapshot is {forecast.snapshot_bytes} B; keeping 10 needs at most" in str(forecast)


def test_a_plan_names_each_variable_and_why_another_is_left_out():
    told = repr(REPORTS[7])

    assert told.startswith("Would save 1 variable, 10 B. Nothing was done.")
    assert "left out: generator, made in cell [4]" in told


def test_a_plan_says_what_device_cpu_would_move():
    """Of what is wanted, and of nothing else."""
    groups = tuple(
        Group((name,), "data", "pickle", Stream((), 0, "raw"), (), (Storage(0, 0, 1, "torch", device),), (), (), ())
        for name, device in (("model", "cuda:1"), ("x", "cpu"))
    )
    chosen = snapshot(groups=groups)

    assert "Tensors of cuda:1 would be on the CPU" in repr(restore_plan(chosen, Scope(device="cpu"), ()))
    assert "cuda" not in repr(restore_plan(chosen, Scope(("x",), device="cpu"), ()))
    assert "cuda" not in repr(restore_plan(chosen, Scope(), ()))


def test_a_plan_says_what_would_change():
    """Same and changed by comparison with a draft of the namespace; without one, what is there is replaced."""
    chosen = snapshot(imports=(Import("np", "numpy"),))
    now = snapshot(variables=(dataclasses.replace(chosen.variables[0], type="Net2"),), imports=(Import("np", "numpy"),))

    plan = restore_plan(chosen, Scope(), {"model", "np"}, now)
    beside = restore_plan(chosen, Scope(prefix="old_"), {"model", "old_x"})

    assert [(row.name, row.change) for row in plan.rows] == [("model", "changed"), ("x", "new"), ("np", "same")]
    assert "Net2 -> Net " in repr(plan)
    assert "Against your namespace: 1 same, 1 changed, 1 new." in repr(plan)
    assert [(row.name, row.change, row.note) for row in beside.rows] == [
        ("old_model", "new", ""),
        ("old_x", "", "replaces yours"),
        ("old_np", "new", "import numpy"),
    ]


def test_a_plan_numbers_only_groups_that_are_shared():
    assert group_numbers([("a",), ("model", "opt"), ("x",), ("p", "q")]) == {
        "model": "1",
        "opt": "1",
        "p": "2",
        "q": "2",
    }


@pytest.mark.parametrize(
    "report",
    [
        SavedReport(snapshot(skipped=(Skipped(EVIL, EVIL, EVIL),)), EVIL, None, (EVIL,)),
        SnapshotsTable((SnapshotRow(EVIL, EVIL, EVIL, EVIL, EVIL, 1, EVIL, 1, 1, 1, EVIL),), NOW, EVIL, True),
        SnapshotReport(snapshot(label=EVIL, host=EVIL, reason=EVIL, warnings=(EVIL,)), NOW),
        DifferenceReport(HOSTILE, HOSTILE, compare(HOSTILE, HOSTILE), NOW),
        PlanReport("restore", (PlanRow(EVIL, EVIL, 1, EVIL, EVIL),), (), EVIL),
        StatusReport(ARMED, EVIL, 1, NOW, None, 0, 1, False, EVIL),
    ],
    ids=lambda report: type(report).__name__,
)
def test_names_from_outside_are_neither_markup_nor_escape_codes(report):
    """A foreign snapshot may be called anything; showing it must not run it."""
    page = _Balanced()
    page.feed(report._repr_html_())

    assert page.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert "\x1b" not in repr(report)
    assert "\x1b" not in report._repr_html_()


def test_a_plan_says_which_gpu_is_not_here(monkeypatch):
    """As far as files and variables show it: torch need not be loaded yet. With device=cpu nobody wants it."""
    group = Group(
        ("m",), "data", "pickle", Stream((), 0, "raw"), (), (Storage(0, 0, 1, "torch", "cuda:1"),), (), (), ()
    )
    chosen = snapshot(groups=(group,))
    monkeypatch.setattr(gpus, "look", lambda: gpus.Facts(shown=False, container="docker"))

    (told,) = without_gpu(chosen, Scope(), frozenset({"m"}))
    assert told.startswith("Tensors of cuda:1 would be on the CPU: this container was given no GPU")
    assert list(without_gpu(chosen, Scope(), frozenset({"x"}))) == []
    assert list(without_gpu(chosen, Scope(device="cpu"), frozenset({"m"}))) == []
    monkeypatch.setattr(gpus, "look", gpus.Facts)
    assert list(without_gpu(chosen, Scope(), frozenset({"m"}))) == []


def test_differences_are_a_table_with_one_line_that_mends_all_versions():
    """Before the table of the names, in text and in HTML; in JSON each with its fields."""
    rows = (RestoredRow("x", "int", 28, "restored"),)
    report = RestoredReport(("x",), "3f9c" * 4, 200, rows=rows, differences=DIFFERENCES)

    assert repr(report).splitlines()[1:] == [
        "Different from the session of the snapshot. For the versions: "
        "%pip install torch==2.12.0 numpy==2.3.1   and restart the kernel.",
        "what    then    now            to do",
        "python  3.11.7  3.12.1         use a kernel of Python 3.11",
        "torch   2.12.0  2.13.0",
        "numpy   2.3.1   not installed",
        "name  type  size",
        "x     int   28 B  restored",
    ]
    html = report._repr_html_()
    assert html.index("For the versions") < html.index(">3.12.1<") < html.index(">restored<")
    assert report.as_json()["requirements"] == "%pip install torch==2.12.0 numpy==2.3.1"
    assert report.as_json()["differences"][1] == {
        "key": "torch", "then": "2.12.0", "now": "2.13.0", "requirement": "torch==2.12.0", "advice": "",
    }  # fmt: skip


def test_where_nothing_differs_nothing_is_said_of_it():
    assert "Different" not in repr(RestoredReport(("x",), "3f9c" * 4, 200))
    plain = RestoredReport(("x",), "3f9c" * 4, 200, differences=DIFFERENCES[:1])
    assert "For the versions" not in repr(plain)
