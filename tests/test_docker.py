"""docker/: its entrypoint as a process tree without Docker, and what stands in the Dockerfile and the compose file."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from jupyter_client.blocking import BlockingKernelClient

from ipyrescue.capture.signals import GRACE_SECONDS
from ipyrescue.places.containers import Facts, Mount, reaps
from ipyrescue.places.findings import Place, judge
from ipyrescue.settings import parse_duration, parse_size
from ipyrescue.store import Store, signing

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
ENTRYPOINT = DOCKER / "entrypoint.py"
PATIENCE_SECONDS = 60.0

SERVER = """
import json, os, pathlib, signal, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))

# An orphan that ends: whoever is process 1 must reap it.
if os.fork() == 0:
    orphan = os.fork()
    if orphan == 0:
        time.sleep(0.2)
        os._exit(0)
    (folder / "orphan").write_text(str(orphan))
    os._exit(0)
os.wait()


def kernel(name):
    environ = {**os.environ, "JPY_SESSION_NAME": str(folder / name / "train.ipynb")}
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(folder / name / "kernel.json")]
    return subprocess.Popen(command, cwd=folder / name, env=environ, start_new_session=True)


kernels = {name: kernel(name) for name in ("idle", "busy")}
(folder / "kernels").write_text(json.dumps({name: process.pid for name, process in kernels.items()}))
while not stopped:
    for name, process in kernels.items():
        if process.poll() is not None and not stopped:
            (folder / "restarted").touch()  # as Jupyter's restarter does
    time.sleep(0.02)
(folder / "server").write_text(json.dumps([process.wait() for process in kernels.values()]))
"""


SLOW = """
import time

class Slow:
    def __reduce__(self):
        time.sleep(0.5)
        return Slow, ()

x = Slow()
"""
"""What takes its time to be written: by a fork of the kernel, which outlives it."""


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_there(pid):
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def children_of(pid):
    """Every process below, zombies too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        waiting += (below := parents.get(waiting.pop(), []))
        found += below
    return found


@pytest.fixture
def entrypoint(tmp_path):
    """Start it; what it started is killed at the end, whatever became of it."""
    started = []

    def begin(*arguments, **environ):
        command = [sys.executable, str(ENTRYPOINT), *map(str, arguments)]
        with (tmp_path / "told").open("wb") as told:
            started.append(
                subprocess.Popen(
                    command, env={**os.environ, **environ}, stdout=told, stderr=told, start_new_session=True
                )
            )
        return started[-1]

    yield begin
    for process in started:
        for pid in [*children_of(process.pid), *([process.pid] if process.poll() is None else [])]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def connected(folder):
    """A client of the kernel whose connection file stands in *folder*."""
    file = folder / "kernel.json"

    def is_written():
        try:
            return bool(json.loads(file.read_text())["hb_port"])
        except (OSError, ValueError, KeyError):
            return False

    wait_for(is_written, "the connection file")
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels(hb=False)  # a heart that misses a beat on a busy machine would pass for dead
    client.wait_for_ready(timeout=PATIENCE_SECONDS)
    return client


def test_at_sigterm_every_kernel_saves_and_all_end_within_the_grace_period(entrypoint, tmp_path):
    for name in ("idle", "busy"):
        (tmp_path / name).mkdir()
    process = entrypoint(sys.executable, "-c", SERVER, tmp_path, IPYRESCUE_STOP_SECONDS="60")
    clients = {name: connected(tmp_path / name) for name in ("idle", "busy")}
    for client in clients.values():
        client.execute_interactive("%load_ext ipyrescue\n%checkpoint_vars every=1h", timeout=PATIENCE_SECONDS)
        client.execute_interactive(SLOW, timeout=PATIENCE_SECONDS)
    ready = tmp_path / "ready"
    clients["busy"].execute(f"import time\nopen({str(ready)!r}, 'w').close()\nwhile True:\n    time.sleep(0.01)")
    wait_for(ready.exists, "the busy cell")
    orphan = int((tmp_path / "orphan").read_text())
    wait_for(lambda: not is_there(orphan), "the orphan to be reaped")
    everything = children_of(process.pid)
    pids = json.loads((tmp_path / "kernels").read_text())
    assert {*pids.values()} <= {*everything}

    process.send_signal(signal.SIGTERM)

    code = process.wait(PATIENCE_SECONDS)
    for client in clients.values():
        client.stop_channels()
    told = (tmp_path / "told").read_text()
    assert code == 0, told
    assert [pid for pid in everything if is_there(pid)] == []
    assert not (tmp_path / "restarted").exists()
    assert json.loads((tmp_path / "server").read_text()) == [-signal.SIGTERM, -signal.SIGTERM]
    for name, cut in (("idle", "cell_end"), ("busy", "interrupted")):
        newest = Store.open(tmp_path / name / ".ipyrescue", signing.load_key()).snapshots()[0]
        assert (newest.trigger, newest.cut) == ("signal", cut)
        assert "x" in [variable.name for variable in newest.globals]


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(99)"
)


@pytest.mark.parametrize(
    ("arguments", "stop", "code"),
    [
        (["sh", "-c", "exit 7"], None, 7),
        (["sh", "-c", "kill -9 $$"], None, 137),
        (["sleep", "99", "--", "sh", "-c", "exit 3"], None, 3),
        (["sleep", "99", "--", "sleep", "98"], signal.SIGTERM, 0),
        (["sleep", "99"], signal.SIGINT, 0),
        ([sys.executable, "-c", STUBBORN], signal.SIGTERM, 124),
        (["sleep", "99", "--", "no-such-command"], None, 127),
        ([], None, 2),
        (["--"], None, 2),
    ],
)
def test_the_exit_code_says_how_it_ended(entrypoint, tmp_path, arguments, stop, code):
    process = entrypoint(*arguments, IPYRESCUE_STOP_SECONDS="0.5")
    if stop is not None:
        servers = len(arguments) // 2
        wait_for(
            lambda: "here" in told(tmp_path) if STUBBORN in arguments else len(children_of(process.pid)) == servers,
            "a server",
        )
        process.send_signal(stop)
    below = children_of(process.pid)

    assert process.wait(PATIENCE_SECONDS) == code, told(tmp_path)
    assert [pid for pid in below if is_there(pid)] == []


def told(folder):
    return (folder / "told").read_text()


# --- whom the end is told ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module():
    """The entrypoint, imported."""
    specification = importlib.util.spec_from_file_location("docker_entrypoint", ENTRYPOINT)
    loaded = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = loaded
    specification.loader.exec_module(loaded)
    yield loaded
    del sys.modules[specification.name]


LAB, KERNEL = (
    ("python", "/opt/bin/jupyter-lab", "--ip=0.0.0.0"),
    ("python3", "-m", "ipykernel_launcher", "-f", "k.json"),
)
RUN, SCRIPT = ("/opt/bin/python", "-m", "ipyrescue.runs", "/store/runs/a"), ("python", "train.py")
SILENT = {19}


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({10: (1, LAB), 11: (10, KERNEL), 12: (10, KERNEL)}, {11, 12}),
        ({10: (1, LAB), 11: (10, KERNEL), 13: (11, SCRIPT)}, {11}),  # below a kernel: its own business
        ({10: (1, LAB), 19: (10, KERNEL), 13: (19, SCRIPT)}, set()),
        ({10: (1, LAB), 11: (10, ("bash",)), 12: (11, RUN), 14: (12, KERNEL)}, {12}),  # a run tells its kernel itself
        ({10: (1, LAB), 11: (0, ("bash",)), 12: (11, RUN)}, {12}),  # by docker exec
        ({10: (1, LAB), 12: (1, RUN)}, {12}),  # an orphan
        # What is called like a Jupyter need not be one.
        ({10: (1, LAB), 12: (1, ("python", "-m", "ipyrescue.runs", "/store/runs/jupyter-demo"))}, {12}),
        ({10: (1, LAB), 12: (1, ("python", "/opt/bin/ipyrescue", "run", "jupyter_demo.ipynb"))}, {12}),
        ({10: (1, LAB), 12: (1, ("python", "-c", "...", "jupyter")), 13: (1, ("python", "jupyter_demo.py"))}, {12, 13}),
        ({10: (1, SCRIPT), 12: (1, ("python", "-I", "-W", "error", "-m", "jupyterlab")), 13: (12, KERNEL)}, {13}),
        (
            {10: (1, SCRIPT), 12: (1, ("python", "-Im", "jupyter_server")), 13: (1, ("python", "-X", "dev", *LAB[1:]))},
            set(),
        ),
        ({10: (1, LAB), 19: (1, KERNEL)}, set()),  # the fork of a dead kernel that writes its snapshot
        ({10: (1, LAB), 11: (10, ("tmux",)), 12: (11, ("bash",)), 13: (12, SCRIPT)}, {13}),
        ({10: (1, LAB), 19: (10, SCRIPT)}, set()),  # it would die of it without a word
        ({10: (1, LAB), 20: (0, ("bash",)), 21: (20, LAB), 22: (21, KERNEL)}, {22}),  # a server that is not ours
        ({10: (1, SCRIPT), 22: (10, KERNEL)}, {22}),  # a server that is
        ({10: (1, ("sshd",)), 11: (10, ("sshd: me",)), 12: (11, ("node", "server.js"))}, set()),
        ({}, set()),
    ],
)
def test_what_saves_by_itself_is_told_and_nothing_else(module, monkeypatch, tree, told):
    monkeypatch.setattr(module, "catches_sigterm", lambda pid: pid not in SILENT)
    processes = [module.Process(pid, parent, "S", pid, words) for pid, (parent, words) in tree.items()]

    assert {process.pid for process in module.savers(processes, {10})} == told


def test_the_entrypoint_needs_nothing_but_python():
    names = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(ENTRYPOINT.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert names <= sys.stdlib_module_names


@pytest.mark.system
def test_as_process_1_it_tells_also_those_that_came_from_outside(tmp_path):
    """`docker exec` puts processes beside it, not below it: here nsenter does."""
    catching = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(tmp_path / 'saved')!r}).touch(), sys.exit()))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(99)"
    )
    unshared = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, str(ENTRYPOINT), "sleep", "99"]
    outer = subprocess.Popen(unshared, start_new_session=True)
    try:
        wait_for(lambda: children_of(outer.pid), "process 1")
        first = children_of(outer.pid)[0]
        wait_for(lambda: children_of(first), "its server")
        entered = ["nsenter", f"--target={first}", "--pid", "--mount", sys.executable, "-c", catching]
        beside = subprocess.Popen(entered, start_new_session=True)
        wait_for((tmp_path / "ready").exists, "the process from outside")

        os.kill(first, signal.SIGTERM)

        assert outer.wait(PATIENCE_SECONDS) == 0
        assert beside.wait(PATIENCE_SECONDS) == 0
        assert (tmp_path / "saved").exists()
    finally:
        outer.kill()


# --- the files -----------------------------------------------------------------------------------------------------

INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "SHELL", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip
SERVICE_KEYS = {
    "build", "deploy", "environment", "image", "ports", "profiles", "restart", "shm_size", "stop_grace_period",
    "stop_signal", "volumes", "working_dir",
}  # fmt: skip
"""Those of the Compose specification that ours needs."""


@pytest.fixture(scope="module")
def dockerfile():
    """The instructions, in order: their word and the rest of their line."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def settings(dockerfile):
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for word, rest in dockerfile if word == "ENV")))


def of_word(dockerfile, wanted):
    return [rest for word, rest in dockerfile if word == wanted]


def test_the_dockerfile_is_what_its_readme_says(dockerfile):
    words = [word for word, _ in dockerfile]

    assert words[:2] == ["ARG", "FROM"]
    assert {*words} <= INSTRUCTIONS
    assert of_word(dockerfile, "USER")[-1] == "${USER_ID}"
    assert "ARG USER_ID=1000" in (DOCKER / "Dockerfile").read_text()
    assert len(of_word(dockerfile, "HEALTHCHECK")) == 1
    assert json.loads(of_word(dockerfile, "VOLUME")[0]) == ["/workspace", "/keys"]
    assert settings(dockerfile)["IPYRESCUE_KEY_FILE"] == "/keys/key"
    main = json.loads(of_word(dockerfile, "ENTRYPOINT")[0])
    assert main == ["python", "/opt/ipyrescue/entrypoint.py"]
    assert reaps(tuple(main))


def test_no_secret_gets_into_the_image(dockerfile):
    said = " ".join(rest for word, rest in dockerfile if word in ("ARG", "ENV"))

    assert re.findall(r"(?i)\w*(?:token|password|secret)\w*", said) == []
    assert set(re.findall(r"\w*KEY\w*", said)) == {"IPYRESCUE_KEY_FILE"}


def test_what_is_copied_is_there_and_makes_the_wheel(dockerfile, tmp_path):
    """Hatchling builds from exactly these files; a new one that the wheel needs must be copied as well."""
    for rest in of_word(dockerfile, "COPY"):
        *sources, target = rest.split()
        assert [name for name in sources if not (ROOT / name).exists()] == []
        if "/source/" not in target:
            continue
        inside = tmp_path / target.partition("/source/")[2]
        for name in sources:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, inside, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, inside if inside.suffix else inside / name)

    def contents(folder):
        wheel = WheelBuilder(str(folder))
        shared = wheel.recurse_explicit_files(wheel.config.shared_data)
        return {file.distribution_path for file in (*wheel.recurse_included_files(), *shared)}

    assert contents(tmp_path) == contents(ROOT)


def test_the_compose_file_has_what_compose_knows(services):
    document = yaml.safe_load((DOCKER / "compose.yaml").read_text())

    assert document.keys() <= {"name", "services", "volumes", "x-service"}
    assert services.keys() == {"cpu", "gpu"}
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["environment"]["JUPYTER_TOKEN"] == "${JUPYTER_TOKEN:-}"
        named = [volume.partition(":")[0] for volume in service["volumes"] if re.match(r"\w", volume)]
        assert [volume for volume in named if volume not in document["volumes"]] == []
    assert "profiles" not in services["cpu"]
    assert services["gpu"]["profiles"] == ["gpu"]
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_a_kernel_has_time_to_save_before_docker_kills(dockerfile, services):
    inside = float(settings(dockerfile)["IPYRESCUE_STOP_SECONDS"])
    servers = re.search(r"^SERVER_SECONDS = ([\d.]+)$", ENTRYPOINT.read_text(), re.MULTILINE)[1]

    assert inside - float(servers) > GRACE_SECONDS
    assert all(parse_duration(service["stop_grace_period"]) > inside for service in services.values())


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_doctor_finds_nothing_wrong_with_it(dockerfile, services, name):
    service = services[name]
    points = [re.sub(r"\$\{.*?\}", "/host", volume).split(":")[1] for volume in service["volumes"]]
    facts = Facts(
        kind="docker",
        name=name,
        main=(*json.loads(of_word(dockerfile, "ENTRYPOINT")[0]), *json.loads(of_word(dockerfile, "CMD")[0])),
        reaps=True,
        stop_seconds=parse_duration(service["stop_grace_period"]),
        shm_bytes=parse_size(service["shm_size"]),
        has_gpu=name == "gpu",
        asks_gpu="image" if name == "gpu" else None,
        working_folder=service["working_dir"],
        mounts=tuple(Mount(point) for point in points),
        inspected=True,
    )
    folder = service["working_dir"]
    place = Place(folder, f"{folder}/.ipyrescue", service["environment"]["IPYRESCUE_KEY_FILE"], f"{folder}/train.ipynb")

    assert judge(facts, place) == []


def test_the_shell_script_is_one():
    subprocess.run(["sh", "-n", DOCKER / "sshd.sh"], check=True)


def test_a_login_over_ssh_has_what_arms_a_kernel_and_says_where_it_saves(dockerfile, tmp_path):
    """A session of sshd begins with an empty environment, as VS Code's over SSH does."""
    keys = tmp_path / "ssh"
    keys.mkdir()
    (keys / "host_ed25519").touch()
    said = settings(dockerfile)
    environ = {**os.environ, **said, "SSH_KEYS": str(keys), "PATH": "/opt/conda/bin:/usr/bin:/bin"}
    script = (DOCKER / "sshd.sh").read_text().replace("exec /usr/sbin/sshd", "printf '%s\\n'")

    def handed_on(**more):
        shown = subprocess.run(
            ["sh", "-c", script], env={**environ, **more}, stdout=subprocess.PIPE, text=True, check=True
        )
        return next(line for line in shown.stdout.splitlines() if line.startswith("SetEnv="))

    armed = f'"IPYRESCUE_KEY_FILE={said["IPYRESCUE_KEY_FILE"]}" "IPYRESCUE_AUTOSTART={said["IPYRESCUE_AUTOSTART"]}"'
    assert handed_on() == f"SetEnv=PATH=/opt/conda/bin:/usr/bin:/bin {armed}"
    assert handed_on(IPYRESCUE_STORE="/work space/s").endswith(f'{armed} "IPYRESCUE_STORE=/work space/s"')
