"""Servers as processes of their own: killed and started anew, behind a prefix, before a gateway, never unpickling."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from processes import TOKEN, ServerProcess, run

from ipyrescue.store import lives

pytestmark = pytest.mark.slow

ARMED = ("%load_ext ipyrescue", "model = 42\n%checkpoint_vars")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for path in ("train.ipynb", "sub/train.ipynb"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), root / path)
    return root


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., ServerProcess]]:
    """A starter of servers, each of them gone at the end."""
    made: list[ServerProcess] = []

    def start(*arguments: str, **options: object) -> ServerProcess:
        made.append(ServerProcess(root, *arguments, **options))
        return made[-1]

    yield start
    for server in made:
        children = psutil.Process(server.process.pid).children(recursive=True) if server.process.poll() is None else []
        server.close()
        for child in children:
            child.kill()


def processes_of(root: Path) -> list[psutil.Process]:
    """The kernels that keep a record under *root*."""
    import json

    records = [json.loads(path.read_text()) for path in root.rglob(".ipyrescue/kernels/*.json")]
    return [psutil.Process(record["pid"]) for record in records]


def test_a_server_killed_with_two_kernels_and_started_anew_offers_to_each_its_own(start, root):
    server = start()
    for path, value in (("train.ipynb", 1), ("sub/train.ipynb", 2)):
        kernel_id = server.open(path)["kernel"]["id"]
        run(server.runtime, kernel_id, "%load_ext ipyrescue", f"model = {value}\n%checkpoint_vars label=v{value}")
    kernels = processes_of(root)
    assert len(kernels) == 2

    server.kill()
    for kernel in kernels:  # some die with the server, through ipykernel's own watch
        kernel.kill() if kernel.is_running() else None
    psutil.wait_procs(kernels)
    anew = start()

    for path, value in (("train.ipynb", 1), ("sub/train.ipynb", 2)):
        (offer,) = anew.get("offers", path=path)["offers"]
        (snapshot,) = anew.get("snapshots", path=path)["snapshots"]
        assert (offer["path"], offer["state"], offer["kernel_id"]) == (path, "found", None)
        assert (offer["snapshot"]["id"], snapshot["label"]) == (snapshot["id"], f"v{value}")
        kernel_id = anew.open(path)["kernel"]["id"]
        assert anew.get("offers", path=path)["offers"][0]["kernel_id"] == kernel_id
        assert str(value) in run(
            anew.runtime, kernel_id, "%load_ext ipyrescue", f"%restore_vars from={snapshot['id']}", "model"
        )
        assert anew.get("offers", path=path)["offers"] == []


def test_a_server_never_unpickles_and_loads_nothing_that_could(start, root):
    """`sys.modules` after every request, and an audit hook: nothing looked a class up to unpickle it."""
    server = start()
    kernel_id = server.open("train.ipynb")["kernel"]["id"]
    run(
        server.runtime,
        kernel_id,
        "%load_ext ipyrescue",
        "import numpy; x = numpy.ones(9)\n%checkpoint_vars",
        "%checkpoint_vars",
    )
    of = {"path": "train.ipynb"}
    newest, oldest = (snapshot["id"] for snapshot in server.get("snapshots", **of)["snapshots"])
    os.kill(processes_of(root)[0].pid, signal.SIGKILL)
    server.wait_for_log("ipyrescue: train.ipynb")
    (offer,) = server.get("offers", **of)["offers"]
    for name in ("offers", "status", "deaths", f"snapshots/{newest}", f"snapshots/{oldest}/diff/{newest}"):
        assert server.get(name, **of)
    for method, name in (
        ("PUT", f"snapshots/{newest}/pin"),
        ("DELETE", f"snapshots/{newest}/pin"),
        ("DELETE", f"snapshots/{oldest}"),
        ("DELETE", f"offers/{offer['id']}"),
    ):
        assert server.ask(method, f"ipyrescue/{name}", **of) is None

    run(server.runtime, kernel_id, "1")
    audit = server.stop()

    unpicklers = (
        "ipyrescue.pickling",
        "ipyrescue.checkpointing",
        "ipyrescue.restoring",
        "ipyrescue.kernel",
        "ipyrescue.capture",
    )
    assert [name for name in audit["modules"] if name.startswith(unpicklers)] == []
    assert {"torch", "numpy", "dill", "cloudpickle"} & set(audit["modules"]) == set()
    assert "ipyrescue.server.handlers" in audit["modules"]
    assert audit["unpickled"] == []
    assert not [line for line in server.log if "registered for" in line and "ipyrescue" in line]
    assert not [line for line in server.log if "Traceback" in line], "".join(server.log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_kernel_that_died_just_before_its_server_ended_is_dead(start, root, number):
    """As a container ends: docker/entrypoint.py holds the server while kernels save, so its restarter sees nothing."""
    server = start()
    kernel_id = server.open("train.ipynb")["kernel"]["id"]
    run(server.runtime, kernel_id, *ARMED)
    kernel = processes_of(root)[0]
    server.process.send_signal(signal.SIGSTOP)
    kernel.send_signal(number)
    while kernel.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    server.process.wait()

    assert [life.ended for life in lives.read_all(root / ".ipyrescue")] == [None]


def test_behind_a_users_prefix_as_in_jupyterhub(start, root):
    server = start(base_url="/user/x/")
    kernel_id = server.open("sub/train.ipynb")["kernel"]["id"]
    run(server.runtime, kernel_id, *ARMED)

    assert server.get("status", path="sub/train.ipynb")["kernel_id"] == kernel_id
    (snapshot,) = server.get("snapshots", path="sub/train.ipynb")["snapshots"]
    assert snapshot["variables"] == 1


def test_before_a_gateway_everything_goes_on(start, root):
    """Its kernels have no restarter here, and know no notebook; what the store holds is shown nevertheless."""
    local = start()
    kernel_id = local.open("train.ipynb")["kernel"]["id"]
    run(local.runtime, kernel_id, *ARMED)
    kernel = processes_of(root)[0]
    local.kill()
    psutil.wait_procs([kernel])
    gateway = start(extension=False)
    server = start(f"--GatewayClient.url={gateway.address}", f"--GatewayClient.auth_token={TOKEN}")

    kernel_id = server.open("train.ipynb")["kernel"]["id"]

    (offer,) = server.get("offers", path="train.ipynb")["offers"]
    assert (offer["state"], offer["kernel_id"]) == ("found", kernel_id)
    assert server.get("status", path="train.ipynb")["protection"]["state"] == "not_loaded"
    assert "42" in run(
        gateway.runtime,
        kernel_id,
        f"import os; os.environ['JPY_SESSION_NAME'] = {str(root / 'train.ipynb')!r}",
        "%load_ext ipyrescue",
        f"%restore_vars from={offer['snapshot']['id']}",
        "model",
    )
    assert server.get("offers", path="train.ipynb")["offers"] == []
    assert server.get("status", path="train.ipynb")["protection"]["state"] == "not_armed"
    server.ask("POST", f"api/kernels/{kernel_id}/restart")
    server.ask("DELETE", f"api/kernels/{kernel_id}")
    assert server.stop()["unpickled"] == []
    assert not [line for line in server.log if "Traceback" in line], "".join(server.log)
