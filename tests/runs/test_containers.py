"""What the files of a machine, and the words of `docker inspect`, say of a container."""

import copy
import json

import pytest

from ipyrescue.errors import RescueError
from ipyrescue.runs import containers, inspected, logins
from ipyrescue.runs.containers import Facts, Mount

OVERLAY = "600 500 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w"
WORK = "601 600 254:1 /home/me/my\\040work /workspace rw,relatime - ext4 /dev/sda1 rw"
KEYS = "602 600 254:1 /var/lib/docker/volumes/ipyrescue-key/_data /keys rw,relatime - ext4 /dev/sda1 rw"
CACHE = "603 601 0:61 / /workspace/cache rw,relatime - tmpfs tmpfs rw"
POD = "604 600 254:1 /var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/w /scratch rw - ext4 /dev/sda1 rw"
STAT = "1 ({name}) S 0 1 1 {tty} 1 4194560 100 0"


def a_machine(folder, main=("bash",), *, tty=34816, mounts=(OVERLAY, WORK, KEYS, CACHE, POD), **files):
    """A folder with the files of a machine that is a Docker container."""
    texts = {
        ".dockerenv": "",
        "etc/hostname": "3f2a1b4c5d6e\n",
        "proc/1/cmdline": "".join(f"{word}\0" for word in main),
        "proc/1/stat": STAT.format(name="a ) b", tty=tty),
        "proc/self/mountinfo": "\n".join(mounts) + "\n",
        "dev/shm/here": "",
        **files,
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


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
        (["/bin/sh", "-i"], False, True),
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

ARTICLE = {
    "Id": "3f2a1b4c5d6e" + "0" * 52,
    "Created": "2026-11-21T01:02:03.000000000Z",
    "Path": "bash",
    "Args": [],
    "State": {"Status": "running", "Running": True, "Pid": 4411, "ExitCode": 0},
    "Image": "sha256:" + "a" * 64,
    "Name": "/my_trainer",
    "RestartCount": 0,
    "HostConfig": {
        "Binds": ["/home/me/work:/workspace"],
        "NetworkMode": "bridge",
        "PortBindings": {"8888/tcp": [{"HostIp": "", "HostPort": "8888"}], "53/udp": [{"HostIp": "127.0.0.1"}]},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": True,
        "IpcMode": "private",
        "ShmSize": 67108864,
        "Runtime": "runc",
        "Devices": [],
        "DeviceRequests": None,
        "Init": None,
    },
    "Mounts": [
        {
            "Type": "bind",
            "Source": "/home/me/work",
            "Destination": "/workspace",
            "Mode": "",
            "RW": True,
            "Propagation": "rprivate",
        },
        {
            "Type": "volume",
            "Name": "b" * 64,
            "Source": "/var/lib/docker/volumes/" + "b" * 64 + "/_data",
            "Destination": "/data",
            "Driver": "local",
            "Mode": "",
            "RW": True,
            "Propagation": "",
        },
    ],
    "Config": {
        "Hostname": "3f2a1b4c5d6e",
        "User": "",
        "AttachStdin": True,
        "Tty": True,
        "OpenStdin": True,
        "Env": ["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=all", "HF_TOKEN=hf_secret", "HOME=/root", "BARE"],
        "Cmd": ["bash"],
        "Image": "pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime",
        "WorkingDir": "/workspace",
        "Entrypoint": None,
        "StopTimeout": 5,
    },
}
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
