"""`ipyrescue doctor`: what would lose the work, before it does."""

import errno
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from places.machines import ARTICLE, OVERLAY, STAT, WORK
from typer.testing import CliRunner

from ipyrescue.cli import doctor as verb
from ipyrescue.cli.app import app
from ipyrescue.cli.exits import Exit
from ipyrescue.gpus import Facts as Gpus
from ipyrescue.places import examining
from ipyrescue.places.containers import Facts
from ipyrescue.store import layout, probe
from ipyrescue.store.filesystems import FileSystem

QUIET = Facts(kind=None, reaps=True)


def doctor(*arguments, **options):
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False, **options)


def plain(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def on_a_machine(monkeypatch):
    """An ordinary machine, whatever this one is."""
    monkeypatch.setattr(examining.containers, "look", lambda *_: QUIET)
    monkeypatch.setattr(examining.logins, "fate_at_logout", lambda *_: None)
    monkeypatch.setattr(examining.keeping, "warning", lambda *_: None)
    monkeypatch.setattr(examining, "_free_bytes", lambda *_: 50_000_000_000)
    monkeypatch.setattr(examining.filesystems, "of", lambda *_: FileSystem("ext4", "/dev/sda1"))


@pytest.mark.usefixtures("on_a_machine")
def test_where_nothing_is_wrong_it_says_so(store, make):
    made = make(created=datetime.now(timezone.utc).isoformat())
    manifest = layout.snapshots(store.root) / layout.snapshot_name(made.sequence, made.id)
    began = datetime.fromisoformat(made.created).timestamp()
    os.utime(manifest, (began + 14, began + 14))

    result = doctor()

    assert (result.exit_code, result.stderr) == (Exit.OK, "")
    assert result.stdout.endswith("\nNothing is wrong here.\n")
    text = plain(result.stdout)
    assert f"store {store.root}, 50 GB free on ext4, /dev/sda1 at /, room for " in text
    assert "; 9 of 9 things that were tried work the last snapshot: 5.0 kB, in 14 s key " in text
    assert "good, fingerprint " in text
    assert "container none that can be seen" in text
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if "/" not in line)


@pytest.mark.usefixtures("on_a_machine")
@pytest.mark.parametrize("how", ["out of reach", "open to all"])
def test_a_key_that_is_not_used_is_a_finding(tmp_path, monkeypatch, how):
    """The name that is too long is refused as a folder is that one may not enter: by the look itself."""
    key = tmp_path / ("k" * 300 if how == "out of reach" else "key")
    if how == "open to all":
        key.write_bytes(b"k" * 32)
        key.chmod(0o644)
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(key))

    result = doctor("--no-probe", "--json")
    told = doctor("--no-probe")

    why = {"out of reach": "cannot be read (File name too long)", "open to all": "can be read or written by others"}[
        how
    ]
    said = json.loads(result.stdout)
    [finding] = said["findings"]
    assert (result.exit_code, finding["kind"], finding["level"]) == (Exit.FAILED, "key_not_used", "warning")
    assert why in finding["text"]
    assert said["key"].startswith(why)
    assert (told.exit_code, told.stderr) == (Exit.FAILED, "")
    assert "1 warning" in told.stdout


@pytest.mark.usefixtures("on_a_machine")
def test_a_notebook_and_a_script_are_looked_for(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/train.ipynb").touch()
    (tmp_path / "train.py").touch()

    places = [json.loads(doctor(name, "--json").stdout)["place"] for name in ("deep/train.ipynb", "train.py")]

    assert [place["store"] for place in places] == [f"{tmp_path}/deep/.ipyrescue", f"{tmp_path}/.ipyrescue"]
    missing = doctor("none.ipynb")
    assert (missing.exit_code, missing.stdout) == (Exit.FAILED, "")
    assert "There is no none.ipynb here." in missing.stderr


@pytest.mark.usefixtures("on_a_machine")
def test_the_articles_container_is_told_from_its_host(tmp_path):
    (tmp_path / "inspected.json").write_text(json.dumps([ARTICLE]))

    result = doctor("train.ipynb", "--inspect", "inspected.json")

    assert (result.exit_code, result.stderr) == (Exit.FAILED, "")
    text = plain(result.stdout)
    assert "warning The container my_trainer lives as long as a shell at a terminal does (bash" in text
    assert "--rm: when it stops, it is removed with all that is on no volume, the key among it." in text
    assert "docker exec my_trainer ipyrescue run train.ipynb --detach" in text
    assert "hf_secret" not in text
    assert result.stdout.endswith("\n5 warnings, 2 notes.\n")
    from_stdin = doctor("train.ipynb", "--inspect", "-", "--json", input=json.dumps([ARTICLE]))
    document = json.loads(from_stdin.stdout)
    assert [finding["kind"] for finding in document["findings"]] == [
        "main_is_shell",
        "removed",
        "key_not_kept",
        "stop_too_short",
        "small_shm",
        "no_gpu",
        "stop_unheard",
    ]
    assert (document["container"]["name"], document["place"]["store"]) == ("my_trainer", "/workspace/.ipyrescue")
    assert document["commands"].count("my_trainer") == 5
    assert "hf_secret" not in from_stdin.stdout


def test_an_inspection_that_is_none_is_refused(tmp_path):
    result = doctor("--inspect", "-", input="Error: No such object: trainer\n")

    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert "docker inspect NAME | ipyrescue doctor --inspect -" in result.stderr
    assert doctor("--inspect", "none.json").exit_code == Exit.FAILED


@pytest.fixture
def in_a_container(tmp_path, monkeypatch):
    """A fake machine: Docker, a shell at a terminal, the work mounted at this test's folder and the key not."""
    machine = tmp_path / "machine"
    mounted = WORK.replace("/workspace", str(tmp_path))
    for name, text in {
        ".dockerenv": "",
        "etc/hostname": "3f2a1b4c5d6e\n",
        "proc/1/cmdline": "bash\0",
        "proc/1/stat": STAT.format(name="bash", tty=34816),
        "proc/self/mountinfo": f"{OVERLAY}\n{mounted}\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n",
    }.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(text)
    look = examining.containers.look
    monkeypatch.setattr(examining.containers, "look", lambda *_: look(machine, {}))
    return machine


@pytest.mark.usefixtures("in_a_container", "store")
def test_inside_a_container_a_run_is_told_before_it_starts(tmp_path, store_root):
    told = examining.at_start(tmp_path / "train.ipynb", store_root)

    assert len(told) == 4
    assert told[0].startswith("This container lives as long as a shell at a terminal does (bash")
    assert "dies with the container and the store does not" in told[1]
    assert "was given no GPU, and the host has an NVIDIA driver" in told[2]
    assert told[3].startswith("On the host:\nimage=$(docker inspect")
    assert f'-v "$PWD":{tmp_path}' in told[3]
    assert all(line.isascii() for line in told)


@pytest.mark.usefixtures("on_a_machine")
def test_on_an_ordinary_machine_a_run_is_told_nothing(tmp_path, store_root):
    assert examining.at_start(tmp_path / "train.ipynb", store_root) == []


@pytest.mark.parametrize(
    ("files", "enabled"),
    [
        ({}, False),
        ({"jupyter_server_config.d/ipyrescue.json": {"ipyrescue.server": True}}, True),
        (
            {
                "jupyter_server_config.d/ipyrescue.json": {"ipyrescue.server": True},
                "jupyter_server_config.json": {"ipyrescue.server": False},
            },
            False,
        ),
        ({"jupyter_server_config.json": {"other": True}}, False),
        ({"jupyter_server_config.json": []}, False),
    ],
)
def test_the_server_extension_is_found_as_jupyter_finds_it(tmp_path, monkeypatch, files, enabled):
    monkeypatch.setattr("jupyter_core.paths.jupyter_config_path", lambda: [str(tmp_path), str(tmp_path / "none")])
    for name, extensions in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"ServerApp": {"jpserver_extensions": extensions}}))

    assert verb._server().startswith("enabled") is enabled


@pytest.mark.parametrize(
    ("torch", "driver", "shown", "said"),
    [
        ("2.13.0+cpu", "580.65.06", True, "built for the CPU only"),
        ("2.13.0+cu130", "535.1", True, "driver 535.1 is too old for CUDA 13.0"),
        ("2.13.0+cu130", "580.65.06", False, "driver 580.65.06 shows no GPU"),
        ("2.13.0", "580.65.06", True, "shown to this machine, driver 580.65.06"),
        (None, None, False, "no NVIDIA GPU here"),
    ],
)
def test_what_torch_can_see_is_told_by_its_version_and_by_files(monkeypatch, torch, driver, shown, said):
    monkeypatch.setattr(verb.gpus, "look", lambda: Gpus(driver=driver, shown=shown))
    monkeypatch.setattr(verb, "_versions", lambda: {"torch": torch} if torch else {})

    assert said in verb._gpu()


def test_this_very_machine_is_examined_without_loading_torch(tmp_path):
    """Whatever it is: the command ends by its rules, and never loads what could unpickle."""
    code = (
        "import sys\nfrom ipyrescue.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'dill', 'IPython'} & sys.modules.keys()), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.stderr == "[]\n"
    findings = json.loads(ended.stdout)["findings"]
    assert ended.returncode == any(finding["level"] == "warning" for finding in findings)
    assert Path(json.loads(ended.stdout)["place"]["store"]).parent == tmp_path.resolve()


@pytest.mark.usefixtures("on_a_machine")
def test_the_file_system_is_tried_out_and_left_as_it_was(make, tmp_path, monkeypatch):
    """In the store, in its tmp/; without one where it would be made; not at all where that is not wanted."""
    make()
    nowhere = tmp_path / "deep" / ".ipyrescue"
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(probe, "_clock_ahead_seconds", lambda _: -45.0)

    here = json.loads(doctor("--json").stdout)
    there = json.loads(doctor("--json", "--store", str(nowhere)).stdout)
    text = plain(doctor().stdout)
    quiet = json.loads(doctor("--json", "--no-probe").stdout)

    for document in (here, there):
        tried = document["place"]["probed"]
        assert {name for name, answer in tried["answers"].items() if not answer["works"]} == {"link"}
        assert (tried["failure"], tried["clock_ahead_seconds"]) == (None, -45.0)
        assert [finding["kind"] for finding in document["findings"]] == ["clock_skew"]
    assert "; 8 of 9 things that were tried work, lacks link " in text
    assert "is 45 s behind this machine's" in text
    assert (quiet["place"]["probed"], quiet["findings"]) == (None, [])
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before


def no_link(*_, **__):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


@pytest.mark.usefixtures("on_a_machine")
def test_a_store_that_cannot_be_written_is_said_to_be(store, monkeypatch):
    monkeypatch.setattr(os, "open", read_only(os.open))

    result = doctor()

    assert result.exit_code == Exit.FAILED
    text = plain(result.stdout)
    assert f"warning Could not open {store.root}/lock: Read-only file system. Restoring still works" in text
    assert "; not tried out" in text
    elsewhere = plain(doctor("--store", "new").stdout)
    assert "warning Nothing could be written where the store is, " in elsewhere


def read_only(real):
    def refuse(path, flags, *arguments, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *arguments, **options)

    return refuse
