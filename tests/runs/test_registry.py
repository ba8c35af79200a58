"""Names of runs, the files that they begin with, and what is refused before one begins."""

import dataclasses
import os
from pathlib import Path

import pytest

from ipyrescue.errors import RunError, RunNotFoundError
from ipyrescue.runs import environment_file, refusals, registry, spawn
from ipyrescue.runs import record as records
from ipyrescue.runs.record import Options, Outputs

pytestmark = pytest.mark.usefixtures("stand_in")


def begun(path, name=None, **options):
    return spawn.begin(path, Options(**options), name=name)


def ended(record):
    records.write(spawn.folder_of(record), records.dataclasses.replace(record, state="finished"))


def test_names_are_unique_and_found_from_anywhere(notebook, tmp_path, monkeypatch):
    first = begun(notebook(""))
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    second = begun(notebook(""))
    assert [first.name, second.name] == ["train", "train-2"]

    monkeypatch.chdir(tmp_path)
    assert registry.find("train") == Path(first.store) / "runs" / "train"
    assert [folder.name for folder in registry.all_folders()] == ["train-2", "train"]
    with pytest.raises(RunError, match="There is a run of the name train already"):
        begun(notebook("", "third.ipynb"), name="train")
    assert oct(registry.registry().stat().st_mode & 0o777) == "0o700"


def test_the_store_here_comes_before_the_registry(notebook, tmp_path, monkeypatch):
    begun(notebook(""))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    mine = begun(notebook(""))

    assert registry.find("train") == spawn.folder_of(mine)
    assert registry.find("train", tmp_path / "work" / ".ipyrescue").parts[-4] == "work"


def test_an_entry_whose_run_is_gone_is_nobodys(notebook):
    record = begun(notebook(""))
    ended(record)
    pointer = registry.registry() / "train.json"
    (spawn.folder_of(record) / "run.json").unlink()
    spawn.folder_of(record).rmdir()

    assert registry.all_folders() == []
    with pytest.raises(RunNotFoundError):
        registry.find("train")
    os.utime(pointer, (1, 1))
    assert begun(notebook("")).name == "train"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"store": 7}', '{"store": "relative"}', '{"store": "/\\u0000"}', "x" * 9000]
)
def test_a_hostile_entry_is_passed_over(content):
    registry.registry().mkdir(parents=True)
    (registry.registry() / "train.json").write_text(content)
    (registry.registry() / "loop.json").symlink_to("loop.json")

    assert registry.all_folders() == []
    with pytest.raises(RunNotFoundError, match="ipyrescue ps -a"):
        registry.find("train")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "-x", "UP", "a\n", "a" * 65, "\0", ".hidden", "ü"])
def test_a_hostile_name_becomes_no_path(notebook, name):
    with pytest.raises(RunNotFoundError, match="no name of a run"):
        registry.find(name)
    with pytest.raises(RunError, match="cannot be the name of a run"):
        begun(notebook(""), name=name)
    assert not (Path.cwd() / ".ipyrescue").exists()


@pytest.mark.parametrize(
    ("file", "name"),
    [("Train Me.ipynb", "train-me"), ("é.ipynb", "run"), (".hidden.py", "hidden"), ("x" * 200 + ".py", "x" * 56)],
)
def test_a_run_is_called_as_its_file(file, name):
    assert registry.name_for(Path(file)) == name


def test_where_the_registry_cannot_be_runs_are_in_their_store(notebook, tmp_path, monkeypatch):
    (tmp_path / "state").write_text("a file, where a folder should be")

    record = begun(notebook(""))

    assert [registry.find("train"), *registry.all_folders()] == [spawn.folder_of(record)] * 2
    with pytest.raises(RunError, match="is run already"):
        begun(Path(record.source))


def test_a_second_run_of_a_file_or_of_its_output_is_refused(notebook):
    first, other = begun(notebook("")), notebook("", "other.ipynb")
    Path("link.ipynb").symlink_to("train.ipynb")

    for twin, output in (("train.ipynb", "else.ipynb"), ("link.ipynb", None), ("other.ipynb", "train.run.ipynb")):
        with pytest.raises(RunError, match=r"by the run train, which is starting\. .*ipyrescue stop train"):
            begun(Path(twin), output=os.path.abspath(output) if output else None)
    with pytest.raises(RunError, match="by the run train"):
        begun(other, output=first.source)
    moved = dataclasses.replace(first, outputs=Outputs(os.path.abspath("train.run-2.ipynb")))
    records.write(spawn.folder_of(first), moved)
    with pytest.raises(RunError, match="by the run train"):
        begun(other, output=os.path.abspath("train.run-2.ipynb"))
    ended(first)
    assert begun(Path("train.ipynb")).name == "train-2"
    with pytest.raises(RunError, match="by the run train-2"):
        spawn.prepare_resume(spawn.folder_of(first))


def test_what_could_only_fail_later_is_refused(notebook, tmp_path):
    path, script = notebook(""), notebook("", "train.py")
    secret = "hf_" + "a1" * 20
    for refused, options, words in (
        (Path("no.ipynb"), {}, "There is no file"),
        (notebook("", "train.txt"), {}, "neither a notebook"),
        (tmp_path, {}, "There is no file"),
        (path, {"arguments": ("--lr",)}, "takes no arguments"),
        (path, {"parameters": (("3x", "1"),)}, "no name for one"),
        (path, {"parameters": (("class", "1"),)}, "no name for one"),
        (path, {"parameters": (("api_key", "x"),)}, "--env-file"),
        (path, {"parameters": (("x", secret),)}, "--env-file"),
        (path, {"parameters": (("x", "y" * 5000),)}, "more than 4096"),
        (path, {"env_file": "/nowhere"}, "cannot be read"),
        (path, {"output": "/nowhere/out.ipynb"}, "is not there"),
        (path, {"output": str(tmp_path)}, "is a folder"),
        (script, {"parameters": (("x", "1"),)}, "A script has no parameters"),
        (script, {"output": "/tmp/x.ipynb"}, "no output notebook"),
        (script, {"kernel": "python3"}, "for notebooks"),
    ):
        with pytest.raises(RunError, match=words) as error:
            begun(refused, **options)
        assert secret not in str(error.value)
    assert not Path(".ipyrescue").exists()
    assert not list(refusals.living(registry.all_folders()))


def test_an_environment_file_is_docker_s(tmp_path):
    path = tmp_path / "env"
    path.write_bytes(
        b'\xef\xbb\xbf# a comment\r\n\n  A=1\r\nB = no\nC="as it is" # too\nD\nE\nF=a=b\nG=\n'.replace(b"B = no\n", b"")
    )

    read = environment_file.read(path, {"D": "passed on"})

    assert read == {"A": "1", "C": '"as it is" # too', "D": "passed on", "F": "a=b", "G": ""}
    for text, words in (
        ("A=1\nB = secret-value", "Line 2 of .* has a blank in the name"),
        ("secret-value and more", "has blanks and no `=`"),
        ("=secret-value", "has no name"),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match=words) as error:
            environment_file.read(path, {})
        assert "secret-value" not in str(error.value)
    path.write_bytes(b"A=\xff\xfe")
    with pytest.raises(RunError, match="not UTF-8"):
        environment_file.read(path, {})
