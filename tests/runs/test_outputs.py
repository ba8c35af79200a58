"""Outputs into a notebook file: atomically, seldom enough, never over what others wrote, whatever the disk does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from ipyrescue.runs import document, outputs
from ipyrescue.runs.document import Document
from ipyrescue.runs.outputs import OutputFile, Written
from ipyrescue.store import atomic


class Setting:
    """A file that is saved to, its text, and what was told."""

    def __init__(self, path: Path, *, written: Written | None = None) -> None:
        self.text = "one"
        self.told: list[str] = []
        self.moved: list[Path] = []
        aside = path.with_name("aside.ipynb") if path.parent.name != "out" else path.parents[1] / "aside.ipynb"
        self.file = OutputFile(
            path,
            aside=aside,
            written=written,
            text=lambda: self.text,
            tell=self.told.append,
            moved=self.moved.append,
        )

    def save(self, text: str) -> bool:
        self.text = text
        return asyncio.run(self.file.save())


Drafted = contextlib.AbstractContextManager[tuple[Path, Written | None]]


def refusing(times: int) -> Callable[[Path, bytes], Drafted]:
    """What writes beside a file on a disk that is full so many times."""
    real, refusals = outputs.drafted, iter(range(times))

    def drafted(path: Path, data: bytes) -> Drafted:
        if next(refusals, None) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    return drafted


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    setting = Setting(path)

    assert setting.save("first")
    path.chmod(0o640)
    assert setting.save("second")

    assert path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out.ipynb"]
    assert setting.told == []


def test_a_full_disk_is_told_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path / "out.ipynb")
    monkeypatch.setattr(outputs, "drafted", refusing(2))

    assert [setting.save("lost"), setting.save("lost"), setting.save("kept")] == [False, False, True]

    assert (tmp_path / "out.ipynb").read_text() == "kept"
    assert ["No space left" in told for told in setting.told] == [True, False]


def test_what_somebody_else_wrote_stays_and_the_outputs_go_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "train.ipynb"
    path.write_text("mine")
    (tmp_path / "aside.ipynb").write_text("there already")
    setting = Setting(path, written=Written.of(path, b"mine"))
    setting.save("ours")
    path.write_text("theirs")

    setting.save("ours again")
    setting.save("and again")

    assert path.read_text() == "theirs"
    assert (tmp_path / "aside-2.ipynb").read_text() == "and again"
    assert setting.moved == [tmp_path / "aside-2.ipynb"]
    assert (tmp_path / "aside.ipynb").read_text() == "there already"
    assert len(setting.told) == 1


def test_outputs_that_cannot_be_written_at_last_go_beside_the_notebook_or_are_said_to_be_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    setting = Setting(tmp_path / "out" / "train.ipynb")
    setting.save("first")
    shutil.rmtree(tmp_path / "out")

    assert asyncio.run(setting.file.save_at_last())

    assert setting.file.path == tmp_path / "aside.ipynb"
    assert setting.file.path.read_text() == "first"
    monkeypatch.setattr(outputs, "drafted", refusing(2))
    assert not asyncio.run(setting.file.save_at_last())
    assert "No space left" in str(setting.file.failure)


@pytest.mark.parametrize("step", ["sync_file", "sync_folder"])
def test_what_somebody_else_writes_in_the_midst_of_a_save_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """While the bytes become durable, which may take seconds, and right after they have got their name."""
    path = tmp_path / "train.ipynb"
    setting = Setting(path)
    setting.save("ours")
    real = getattr(atomic, step)

    def slow(what: object) -> None:
        real(what)
        if not setting.told and path.read_text().startswith("ours"):
            path.write_text("theirs as long")

    monkeypatch.setattr(atomic, step, slow)
    setting.save("ours, as long.")
    setting.save("ours once more")

    assert path.read_text() == "theirs as long"
    assert (tmp_path / "aside.ipynb").read_text() == "ours once more"
    assert len(setting.told) == 1
    assert sorted(os.listdir(tmp_path)) == ["aside.ipynb", "train.ipynb"]


def test_a_file_that_was_only_touched_or_deleted_is_no_conflict(tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    setting = Setting(path)
    setting.save("ours")
    os.utime(path, (1, 1))
    setting.save("touched")
    path.unlink()

    setting.save("there again")

    assert path.read_text() == "there again"
    assert setting.told == []


def test_saves_follow_changes_and_take_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, now = Setting(tmp_path / "out.ipynb"), [0.0]
    saves: list[float] = []

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    def sync_folder(folder: Path) -> None:
        saves.append(now[0])
        now[0] += 0.5  # a slow disk

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        setting.file.changed()
        if now[0] > 20:
            raise asyncio.CancelledError

    monkeypatch.setattr(outputs, "time", Clock)
    monkeypatch.setattr(atomic, "sync_folder", sync_folder)
    monkeypatch.setattr(outputs.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(setting.file.follow())

    assert min(later - earlier for earlier, later in itertools.pairwise(saves)) >= 4.9
    assert len(saves) >= 3


def made(*sources: str) -> Document:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    return Document(notebook, document.numbered(notebook), None, "train")


def stream(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def texts(document_text: str, cell: int = 0) -> list[str]:
    return [one.text for one in nbformat.reads(document_text, as_version=4).cells[cell].outputs]


def test_what_was_printed_before_stays_above_a_mark_whatever_the_cell_clears() -> None:
    one = made("a")
    one.cell(one.cells[0]).outputs = [stream("before\n")]
    one.keep(one.cells[0], "--- mark ---")
    one.cell(one.cells[0]).outputs = [stream("after\n")]
    assert texts(one.text()) == ["before\n", "--- mark ---\n", "after\n"]
    one.cell(one.cells[0]).outputs[:] = []
    assert texts(one.text()) == ["before\n", "--- mark ---\n"]
    one.settle()
    one.keep(one.cells[0], "--- again ---")
    assert texts(one.text()) == ["before\n", "--- mark ---\n", "--- again ---\n"]


def test_an_output_that_no_notebook_can_hold_costs_only_itself() -> None:
    one = made("a")
    wrong = nbformat.NotebookNode(output_type="display_data", data="no bundle", metadata={})
    one.cell(one.cells[0]).outputs = [stream("good\n"), wrong]

    good, instead = texts(one.text())

    assert good == "good\n"
    assert "display_data" in instead


def test_cells_that_are_no_code_empty_or_to_be_skipped_are_not_counted() -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(" \n"),
        nbformat.v4.new_code_cell("a"),
        nbformat.v4.new_code_cell("b", metadata={"tags": ["skip-execution"]}),
        nbformat.v4.new_code_cell("c", metadata={"tags": ["ipyrescue-continue"]}),
    ]

    found = document.numbered(nbformat.v4.new_notebook(cells=cells))

    assert [(code.number, code.index, code.continues) for code in found] == [(1, 2, False), (2, 4, True)]


def test_outputs_of_earlier_runs_are_taken_over_where_all_before_is_unchanged() -> None:
    first = made("a", "b", "c")
    for code in first.cells:
        first.cell(code).outputs = [stream(f"{code.number}")]
        first.mark(code, "done")
    earlier = nbformat.reads(first.text(), as_version=4)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in ("a", "B", "c")])

    second = Document(notebook, document.numbered(notebook), earlier, "train")

    assert [texts(second.text(), cell) for cell in range(3)] == [["1"], [], []]
    assert [second.state(code) for code in second.cells] == ["done", None, None]
