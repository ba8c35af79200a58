"""Which notebook, and which store: tables over a folder."""

import os
from pathlib import Path

import pytest

from ipyrescue.identity import of_script, resolve


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project" / "deep").mkdir(parents=True)
    return tmp_path / "project"


def test_jupyter_names_the_notebook(project):
    found = resolve({}, {"JPY_SESSION_NAME": str(project / "train.ipynb")}, project / "deep", None)

    assert (found.notebook, found.kind, found.title) == ("train.ipynb", "notebook", "train.ipynb")
    assert found.path == project / "train.ipynb"
    assert found.store_root == project / ".ipyrescue"


@pytest.mark.parametrize(
    ("name", "notebook"),
    [
        ("train.ipynb", "train.ipynb"),
        ("deep/../train.ipynb", "train.ipynb"),
        ("my notebook.ipynb", "my notebook.ipynb"),
        ("script.py", "script.py"),
        ("train-jvsc-0f0c8a3e-1b2c-4d5e-8f90-a1b2c3d4e5f6.ipynb", "train.ipynb"),
    ],
)
def test_a_relative_name_is_seen_from_where_the_kernel_started(project, name, notebook):
    found = resolve({}, {"JPY_SESSION_NAME": name}, project, None)

    assert found.notebook == notebook
    assert found.store_root == project / ".ipyrescue"


@pytest.mark.parametrize("name", ["", "Console 1", "console-1-0f0c8a3e", "deep/", ".ipynb"])
def test_a_session_without_a_file_is_a_console(project, name):
    found = resolve({}, {"JPY_SESSION_NAME": name}, project, None, console="ipykernel")

    assert (found.notebook, found.kind, found.path) == ("console:ipykernel:.", "console", None)
    assert found.title == "this console"


def test_vs_code_names_the_notebook_late(project):
    """The name appears in the namespace only after extensions were loaded."""
    user_ns = {}
    before = resolve(user_ns, {}, project, None)
    user_ns["__vsc_ipynb_file__"] = str(project / "deep" / "train.ipynb")

    after = resolve(user_ns, {}, project, None)

    assert (before.kind, after.kind) == ("console", "notebook")
    assert after.store_root == project / "deep" / ".ipyrescue"


@pytest.mark.parametrize("odd", [None, 3, b"x.ipynb", "", ["a.ipynb"]])
def test_what_is_no_text_names_no_notebook(project, odd):
    assert resolve({"__vsc_ipynb_file__": odd}, {}, project, None).kind == "console"


def test_jupyter_is_asked_before_vs_code(project):
    found = resolve(
        {"__vsc_ipynb_file__": str(project / "b.ipynb")}, {"JPY_SESSION_NAME": str(project / "a.ipynb")}, project, None
    )

    assert found.notebook == "a.ipynb"


def test_two_notebooks_in_one_folder_share_a_store_and_no_key(project):
    one, two = (resolve({}, {"JPY_SESSION_NAME": name}, project, None) for name in ("a.ipynb", "b.ipynb"))

    assert one.store_root == two.store_root
    assert one.notebook != two.notebook


def test_host_and_container_agree_on_the_key(tmp_path):
    """The same folder, mounted elsewhere: the key does not change."""
    keys = set()
    for place in ("host", "container"):
        (tmp_path / place / "nb").mkdir(parents=True)
        keys.add(resolve({}, {"JPY_SESSION_NAME": "nb/train.ipynb"}, tmp_path / place, None).notebook)

    assert keys == {"train.ipynb"}


def test_a_configured_store_names_the_notebook_from_its_parent(project):
    found = resolve({}, {"JPY_SESSION_NAME": "deep/train.ipynb"}, project, project / "snapshots")

    assert (found.notebook, found.store_root) == ("deep/train.ipynb", project / "snapshots")


def test_a_relative_store_stands_in_the_kernels_folder(project):
    assert resolve({}, {}, project, Path("snapshots")).store_root == project / "snapshots"


def test_a_notebook_outside_keeps_its_whole_path(project, tmp_path):
    found = resolve({}, {"JPY_SESSION_NAME": str(project / "train.ipynb")}, project, tmp_path / "else" / "store")

    assert found.notebook == (project / "train.ipynb").as_posix()


def test_a_link_to_the_folder_gives_the_same_key(project, tmp_path):
    (tmp_path / "link").symlink_to(project)

    found = resolve({}, {"JPY_SESSION_NAME": str(tmp_path / "link" / "a.ipynb")}, project, project / ".ipyrescue")

    assert found.notebook == "a.ipynb"


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"XDG_STATE_HOME": "/state"}, "/state"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "x"}, "/home/ada/.local/state"),
    ],
)
def test_where_the_folder_cannot_be_written_the_state_directory_serves(project, environ, state):
    environ = {"JPY_SESSION_NAME": "a.ipynb", **environ}

    found = resolve({}, environ, project, None, writable=lambda folder: False)
    other = resolve({}, environ, project / "deep", None, writable=lambda folder: False)

    assert found.store_root.parent == Path(state) / "ipyrescue"
    assert found.store_root != other.store_root
    assert found.notebook == (project / "a.ipynb").as_posix()


def test_a_store_that_is_there_is_read_where_it_is(project):
    """Also from a read-only mount: what it holds is there and nowhere else."""
    (project / ".ipyrescue").mkdir()

    found = resolve({}, {}, project, None, writable=lambda folder: False)

    assert found.store_root == project / ".ipyrescue"


def test_no_name_from_outside_becomes_a_path_in_the_store(project):
    """Only keys in JSON: a name that climbs does not move the store out of its folder's own place."""
    found = resolve({}, {"JPY_SESSION_NAME": "../../etc/x.ipynb"}, project, project / "s")

    assert found.store_root == project / "s"
    assert os.path.isabs(found.notebook)


def test_consoles_are_known_by_kind_and_folder(project):
    found = {
        resolve({}, {}, folder, project / "s", console=console).notebook
        for folder in (project, project / "deep")
        for console in ("ipython", "ipykernel")
    }

    assert found == {"console:ipython:.", "console:ipykernel:.", "console:ipython:deep", "console:ipykernel:deep"}


def test_a_script_is_known_by_its_file(project):
    """A kernel that starts it hands its own name down; that is not the script's."""
    environ = {"JPY_SESSION_NAME": str(project / "train.ipynb")}
    found = of_script(str(project / "train.py"), environ, project / "deep", None)

    assert (found.notebook, found.kind, found.title) == ("train.py", "script", "train.py")
    assert found.store_root == project / ".ipyrescue"


def test_a_python_without_a_script_is_a_console(project):
    found = of_script(None, {"JPY_SESSION_NAME": str(project / "train.ipynb")}, project, None)

    assert (found.notebook, found.kind, found.path) == ("console:python:.", "console", None)
