"""What the files of a machine, and the words of `docker inspect`, say of a container."""

import copy
import json

import pytest
from places.machines import ARTICLE, a_machine

from ipyrescue.errors import RescueError
from ipyrescue.places import containers, inspected, logins
from ipyrescue.places.containers import Facts, Mount


def test_a_container_is_seen_from_the_inside(tmp_path):
    facts = containers.look(a_machine(tmp_path), {"NVIDIA_VISIBLE_DEVICES": "all", "TOKEN": "secret"})

    assert (facts.kind, facts.name, facts.main, facts.terminal) == ("docker", "3f2a1b4c5d6e", ("bash",), True)
    assert (facts.main_is_shell, facts.reaps, facts.removed, facts.stop_seconds) == (True, True, None, None)
    assert (facts.has_gpu, facts.asks_gpu, facts.dies, facts.inspected) == (False, "image", True, False)
    assert facts.shm_bytes is not None
    assert "secret" not in repr(facts)


def test_a_path_stands_on_the_mount_that_is_nearest(tmp_path):
    facts = containers.look(a_machine(tmp_path), {})

    assert facts.mount_of("/root/.local/key") is None
    assert facts.mount_of("/workspaces") is None
    assert facts.mount_of("/workspace/.ipyrescue") == Mount("/workspace", "ext4")
    assert facts.mount_of("/workspace/cache/x") == Mount("/workspace/cache", "tmpfs", kept=False)
    assert facts.mount_of("/keys") == Mount("/keys", "ext4", "ipyrescue-key")
    assert facts.mount_of("/scratch/x") == Mount("/scratch", "ext4", kept=False)


@pytest.mark.parametrize(
    ("main", "is_shell", "reaps"),
    [
        (["bash"], True, True),
        (["-bash"], True, True),
        (["/bin/sh", "-i"], True, True),
        (["bash", "-l"], True, True),
        (["bash", "--login"], True, True),
        (["tini", "--", "bash", "-l"], True, True),
        (["/sbin/docker-init", "--", "/bin/sh", "-i"], True, True),
        (["bash", "-lc", "python train.py"], False, True),
        (["bash", "-c"], False, True),
        (["/sbin/docker-init", "--", "/bin/bash"], True, True),
        (["tini", "-g", "zsh"], True, True),
        (["/opt/nvidia/nvidia_entrypoint.sh", "bash"], True, False),
        (["bash", "-c", "python train.py"], False, True),
        (["sh", "/start.sh"], False, True),
        (["sleep", "infinity"], False, False),
        (["python", "/usr/local/lib/ipyrescue/entrypoint.py", "jupyter", "lab"], False, True),
        (["/sbin/init"], False, True),
        ([], False, False),
    ],
)
def test_the_first_process_is_known_by_its_words(main, is_shell, reaps):
    facts = Facts(main=tuple(main))

    assert (facts.main_is_shell, containers.reaps(facts.main)) == (is_shell, reaps)


def test_a_machine_that_shows_nothing_is_no_container(tmp_path):
    facts = containers.look(tmp_path, {})

    assert facts == Facts(reaps=False)
    assert not facts.dies


def test_this_machine_can_be_looked_at():
    assert containers.look().main


# --- docker inspect ------------------------------------------------------------------------------------------------

GPU = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}


def changed(path, value):
    """The article's container with one field of another value; *path* is `Config.Tty`."""
    document = copy.deepcopy(ARTICLE)
    *parents, name = path.split(".")
    fields = document
    for parent in parents:
        fields = fields[parent]
    fields[name] = value
    return document


def test_docker_inspect_tells_the_rest():
    facts = inspected.parse(json.dumps([ARTICLE]).encode())

    assert facts == Facts(
        kind="docker",
        name="my_trainer",
        image="pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime",
        main=("bash",),
        terminal=True,
        attached=True,
        reaps=True,
        removed=True,
        stop_seconds=5.0,
        shm_bytes=64 << 20,
        has_gpu=False,
        asks_gpu="image",
        working_folder="/workspace",
        mounts=(Mount("/workspace", "", "/home/me/work"), Mount("/data", "", "b" * 64, kept=False)),
        ports=("8888:8888", "127.0.0.1:53/udp"),
        environ=(("HOME", "/root"),),
        inspected=True,
    )
    assert facts.main_is_shell


@pytest.mark.parametrize(
    ("path", "value", "fact", "expected"),
    [
        ("Config.StopTimeout", None, "stop_seconds", 10.0),
        ("Config.StopTimeout", -1, "stop_seconds", None),
        ("Config.Entrypoint", ["tini", "--"], "program", ("bash",)),
        ("Config.Entrypoint", "/start.sh", "main", ("/start.sh", "bash")),
        ("HostConfig.Init", True, "main", ("docker-init", "--", "bash")),
        ("HostConfig.DeviceRequests", [GPU], "has_gpu", True),
        ("HostConfig.DeviceRequests", [{"DeviceIDs": ["nvidia.com/gpu=all"]}], "has_gpu", True),
        ("HostConfig.Devices", [{"PathOnHost": "/dev/nvidia0"}], "has_gpu", True),
        ("HostConfig.Devices", None, "has_gpu", False),
        ("HostConfig.Runtime", "nvidia", "has_gpu", True),
        ("HostConfig.IpcMode", "host", "shm_bytes", None),
        ("HostConfig.ShmSize", 8 << 30, "shm_bytes", 8 << 30),
        ("HostConfig.ShmSize", 0, "shm_bytes", 64 << 20),
        ("HostConfig.Tmpfs", {"/run": ""}, "mounts", None),
        ("Config.WorkingDir", "", "working_folder", "/"),
        ("Config.OpenStdin", False, "terminal", False),
        ("Mounts", None, "mounts", ()),
        ("Name", "", "name", None),
    ],
)
def test_what_docker_means_by_a_field(path, value, fact, expected):
    facts = inspected.of_inspect(changed(path, value))

    if fact == "mounts" and expected is None:
        assert facts.mount_of("/run/x") == Mount("/run", "tmpfs", kept=False)
    else:
        assert getattr(facts, fact) == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Config", None),
        ("Config", []),
        ("HostConfig", "text"),
        ("Config.Tty", "true"),
        ("Config.Tty", 1),
        ("Config.StopTimeout", "10"),
        ("Config.StopTimeout", True),
        ("Config.StopTimeout", 1.5),
        ("Config.StopTimeout", 1 << 70),
        ("Config.Cmd", {"0": "bash"}),
        ("Config.Cmd", ["bash", None]),
        ("Config.Cmd", ["x" * 50_000]),
        ("Config.Env", "PATH"[:0] or [1]),
        ("Config.Env", ["HOME=/root\x1b[2J"]),
        ("Config.Image", "image\nrm -rf ~"),
        ("Config.WorkingDir", "/\x1b]0;title\x07"),
        ("Name", "/a b; rm -rf ~"),
        ("Name", "/-rf"),
        ("HostConfig.AutoRemove", "yes"),
        ("HostConfig.ShmSize", "64m"),
        ("HostConfig.DeviceRequests", {"Capabilities": [["gpu"]]}),
        ("HostConfig.DeviceRequests", [{"Capabilities": ["gpu"]}]),
        ("HostConfig.DeviceRequests", [{"Capabilities": [[1]]}]),
        ("HostConfig.PortBindings", {"8888/tcp; x": []}),
        ("HostConfig.PortBindings", {"8888/tcp": [1]}),
        ("HostConfig.Tmpfs", {"/a\nb": ""}),
        ("Mounts", {}),
        ("Mounts", [[]]),
        ("Mounts", [{"Type": "bind", "Source": "/x", "Destination": "relative"}]),
        ("Mounts", [{"Type": "bind", "Source": ["/x"], "Destination": "/y"}]),
    ],
)
def test_what_is_not_of_dockers_types_is_refused_with_the_line_to_type(path, value):
    with pytest.raises(RescueError, match=r"docker inspect NAME \| ipyrescue doctor --inspect -"):
        inspected.of_inspect(changed(path, value))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Error: No such object: trainer",
        b"[]",
        b"[1]",
        b"null",
        b"NaN",
        b"[" * 100_000,
        b'"\\ud800"',
        b"\xff\xfe",
        json.dumps([ARTICLE, ARTICLE]).encode(),
        b" " * (inspected.LARGEST_BYTES + 1),
    ],
)
def test_what_is_no_inspection_at_all_is_refused(text):
    with pytest.raises(RescueError, match="docker inspect NAME"):
        inspected.parse(text)


# --- logging out ---------------------------------------------------------------------------------------------------

SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"
MANAGER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n"
KILLS = "[Login]\nKillUserProcesses=yes\n"


@pytest.mark.parametrize(
    ("files", "fate"),
    [
        ({"proc/self/cgroup": SESSION}, None),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": KILLS}, "session"),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, "session"),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=no\n"}, None),
        ({"proc/self/cgroup": SESSION, "usr/lib/systemd/logind.conf.d/50-x.conf": KILLS}, "session"),
        (
            {
                "proc/self/cgroup": SESSION,
                "etc/systemd/logind.conf": KILLS,
                "etc/systemd/logind.conf.d/a.conf": "[Login]\nKillUserProcesses=no\n",
            },
            None,
        ),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": f"{KILLS}KillExcludeUsers=root me\n"}, None),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": f"{KILLS}KillOnlyUsers=you\n"}, None),
        ({"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": "KillUserProcesses=yes\n[Log"}, None),
        # Lingering does not spare what stands in a session's scope.
        (
            {"proc/self/cgroup": SESSION, "etc/systemd/logind.conf": KILLS, "var/lib/systemd/linger/me": ""},
            "session",
        ),
        ({"proc/self/cgroup": MANAGER}, "manager"),
        ({"proc/self/cgroup": MANAGER, "var/lib/systemd/linger/me": ""}, None),
        ({"proc/self/cgroup": "0::/system.slice/cron.service\n", "etc/systemd/logind.conf": KILLS}, None),
    ],
)
def test_what_a_logout_ends(tmp_path, files, fate):
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert logins.fate_at_logout(tmp_path, "me") == fate


def test_without_systemd_a_logout_ends_nothing_by_itself(tmp_path):
    assert logins.fate_at_logout(tmp_path, "me") is None
