"""`ipyrescue install`: one file of ours in the IPython profile; every kernel and ipython loads ipyrescue by it."""

import json
import os
import subprocess
import sys

import pytest
from kernels import kernels
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.install import FILE_NAME, MARKER, STARTUP


@pytest.fixture
def ipython_folder(tmp_path, monkeypatch):
    """Where IPython keeps its profiles; nothing is there yet."""
    folder = tmp_path / "ipython home"
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    return folder


@pytest.fixture
def startup(ipython_folder):
    """The file that is written."""
    return ipython_folder / "profile_default" / "startup" / FILE_NAME


def install(*arguments):
    return CliRunner().invoke(app, ["install", *arguments], catch_exceptions=False)


def done(*arguments):
    result = install(*arguments, "--json")
    assert result.exit_code == Exit.OK, result.stderr
    return json.loads(result.stdout)["done"]


# --- the file --------------------------------------------------------------------------------------------------


def test_it_says_what_it_writes_and_how_to_take_it_back(startup):
    result = install()

    assert (result.exit_code, result.stdout) == (Exit.OK, f"Wrote {startup}\n")
    assert "Take it back: ipyrescue install --uninstall" in result.stderr
    assert startup.read_text() == STARTUP
    assert startup.read_text().splitlines()[0] == MARKER
    assert [path.name for path in startup.parent.iterdir()] == [FILE_NAME]


def test_doing_it_twice_changes_nothing(startup):
    assert done() == "installed"
    before = startup.stat()

    assert done() == "unchanged"

    assert startup.stat().st_mtime_ns == before.st_mtime_ns
    assert startup.stat().st_ino == before.st_ino
    assert install().stdout == f"Already there: {startup}\n"


def test_a_file_of_an_older_version_is_written_anew(startup):
    install()
    startup.write_text(f"{MARKER}\nsomething_older()\n")

    assert done() == "updated"

    assert startup.read_text() == STARTUP


def test_it_is_taken_back(startup):
    install()
    (startup.parent / "60-mine.py").write_text("")

    result = install("--uninstall")

    assert (result.exit_code, result.stdout) == (Exit.OK, f"Removed {startup}\n")
    assert [path.name for path in startup.parent.iterdir()] == ["60-mine.py"]
    assert done("--uninstall") == "absent"
    assert install("--uninstall").stdout == f"Nothing to remove: there is no {startup}\n"


@pytest.mark.parametrize("arguments", [(), ("--uninstall",)])
@pytest.mark.parametrize(
    "content", [b"", b"import mine\n", b"\xff\xfe", b"# Written by somebody else.\n", b"x" * 100_000]
)
def test_a_file_that_is_not_ours_is_left_as_it_is(startup, arguments, content):
    startup.parent.mkdir(parents=True)
    startup.write_bytes(content)

    result = install(*arguments)

    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert f"{startup} was not written by ipyrescue, so it is left as it is." in result.stderr
    assert startup.read_bytes() == content


@pytest.mark.parametrize("arguments", [(), ("--uninstall",)])
def test_a_link_or_a_folder_in_its_place_is_left_as_it_is(startup, tmp_path, arguments):
    startup.parent.mkdir(parents=True)
    (tmp_path / "mine.py").write_text(STARTUP)
    startup.symlink_to(tmp_path / "mine.py")
    assert install(*arguments).exit_code == Exit.FAILED
    assert startup.is_symlink()

    startup.unlink()
    startup.mkdir()
    assert install(*arguments).exit_code == Exit.FAILED
    assert startup.is_dir()


def test_a_profile_that_is_there_is_used(ipython_folder):
    (ipython_folder / "profile_work").mkdir(parents=True)

    result = install("--profile", "work")

    assert (ipython_folder / "profile_work" / "startup" / FILE_NAME).exists()
    assert "ipyrescue install --uninstall --profile work" in result.stderr
    assert not (ipython_folder / "profile_default").exists()


@pytest.mark.parametrize("name", ["work", "..", "a/b", "", "-x"])
def test_no_profile_is_invented(ipython_folder, name):
    """IPython makes the default one by itself, and no other."""
    result = install(f"--profile={name}")

    assert result.exit_code == Exit.FAILED
    assert "ipython profile" in result.stderr
    assert not ipython_folder.exists()


def test_the_default_place_is_ipythons(monkeypatch, tmp_path):
    monkeypatch.delenv("IPYTHONDIR")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert install().stdout == f"Wrote {tmp_path / '.ipython' / 'profile_default' / 'startup' / FILE_NAME}\n"


def test_a_place_that_cannot_be_written_is_said(ipython_folder):
    ipython_folder.write_text("a file")

    result = install()

    assert result.exit_code == Exit.FAILED
    assert result.stderr.startswith("ipyrescue: ")
    assert "Traceback" not in result.stderr


def test_the_document_is_stable(startup):
    assert json.loads(install("--json").stdout) == {"done": "installed", "path": str(startup), "profile": "default"}
    assert '"done", "path", "profile"' in install("--help").stdout


# --- real ones that start with it ------------------------------------------------------------------------------


def ipython(folder, code, *, before=""):
    """What an ipython in *folder* says that starts, runs *code* and ends; *before* runs before IPython is imported."""
    arguments = ["--no-banner", "--colors=NoColor", "-c", code]
    start = f"{before}\nimport IPython\nIPython.start_ipython(argv={arguments!r})"
    return subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=120, cwd=folder)


NAMES = "print('names:', sorted(name for name in globals() if 'rescue' in name or name in ('sys', 'error', '_error')))"
LOADED = "print('loaded:', 'restore_vars' in get_ipython().magics_manager.magics['line'])"
WITHOUT_IPYRESCUE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ipyrescue":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
BROKEN = """
import ipyrescue
def load_ipython_extension(shell):
    raise RuntimeError("first line\\nsecond line")
ipyrescue.load_ipython_extension = load_ipython_extension
"""


@pytest.mark.usefixtures("startup")
def test_ipython_loads_it_and_the_users_names_stay_theirs(tmp_path):
    assert "loaded: False" in ipython(tmp_path, LOADED).stdout
    install()

    told = ipython(tmp_path, f"{LOADED}\n{NAMES}")

    assert told.returncode == 0
    assert "loaded: True" in told.stdout
    assert "names: []" in told.stdout

    install("--uninstall")
    assert "loaded: False" in ipython(tmp_path, LOADED).stdout


@pytest.mark.usefixtures("startup")
def test_an_environment_without_ipyrescue_is_not_disturbed(tmp_path):
    """The profile is shared by all environments of a user."""
    install()

    told = ipython(tmp_path, f"{LOADED}\n{NAMES}", before=WITHOUT_IPYRESCUE)

    assert (told.returncode, told.stdout, told.stderr) == (0, "loaded: False\nnames: []\n", "")


@pytest.mark.usefixtures("startup")
def test_a_folder_that_is_called_ipyrescue_is_not_taken_for_it(tmp_path):
    install()
    (tmp_path / "ipyrescue").mkdir()
    only_the_folder = WITHOUT_IPYRESCUE.replace(
        "raise", "from importlib.machinery import PathFinder; return PathFinder.find_spec(name, ['.']); raise"
    )

    told = ipython(tmp_path, f"import ipyrescue\nprint(ipyrescue.__path__)\n{LOADED}", before=only_the_folder)

    assert "_NamespacePath" in told.stdout
    assert "loaded: False" in told.stdout
    assert told.stderr == ""


@pytest.mark.usefixtures("startup")
def test_a_failure_of_ours_costs_one_line(tmp_path):
    install()

    told = ipython(tmp_path, f"{NAMES}\nprint('started')", before=BROKEN)

    assert told.returncode == 0
    assert told.stdout == "names: []\nstarted\n"
    assert told.stderr == "ipyrescue was not loaded: RuntimeError('first line\\nsecond line')\n"


@pytest.mark.usefixtures("startup")
def test_a_kernel_loads_it_without_a_word(tmp_path):
    """What a kernel prints as it starts nobody sees; a later %load_ext greets instead of saying that it is loaded."""
    install()
    with kernels(tmp_path) as make_kernel:
        kernel = make_kernel(IPYTHONDIR=os.environ["IPYTHONDIR"])

        assert kernel.run(f"{LOADED}\n{NAMES}").text == "loaded: True\nnames: []\n"
        assert kernel.run("%who").text.strip() == "Interactive namespace is empty."
        greeted = kernel.run("%load_ext ipyrescue").text
        assert greeted.startswith("ipyrescue ")
        assert "already loaded" not in greeted
        kernel.run("answer = 42\n%checkpoint_vars")
        kernel.shut_down()

        after = make_kernel(IPYTHONDIR=os.environ["IPYTHONDIR"])
        after.run("%restore_vars")
        assert after.value("answer") == 42


@pytest.mark.usefixtures("startup")
def test_a_kernel_without_ipyrescue_starts(tmp_path):
    install()
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_IPYRESCUE)
    with kernels(tmp_path) as make_kernel:
        kernel = make_kernel(IPYTHONDIR=os.environ["IPYTHONDIR"], PYTHONPATH=str(tmp_path))

        assert kernel.run(f"{LOADED}\n{NAMES}").text == "loaded: False\nnames: []\n"
        assert "No module named" in str(kernel.try_run("import ipyrescue").error)
