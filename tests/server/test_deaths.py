"""Kernels of a real server die in every way, and front ends are told what died, why, and what is saved.

Where nothing may be told, another kernel dies afterwards: events come in order, so its offer must be the first.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from ipyrescue.incarnations import witness
from ipyrescue.server import restarts
from ipyrescue.server.offers import SCHEMA

ARMED = ("%load_ext ipyrescue", "model, opt = 42, 'adam'\n%checkpoint_vars model")
LOADED = ("%load_ext ipyrescue",)
SEGFAULT = "import faulthandler; faulthandler._sigsegv()"


async def dies(server, path="other.ipynb"):
    """Let a kernel of another notebook die, and return what is announced first."""
    server.write_notebook(path)
    opened = await server.open(path)
    await opened.run("1")
    opened.kill(signal.SIGKILL)
    return await server.announced()


async def test_a_killed_kernel_is_announced_with_its_snapshot_and_everything_comes_back(server):
    opened = await server.open()
    await opened.run(*ARMED)
    before = opened.pid
    opened.kill(signal.SIGKILL)

    offer = await server.announced()

    assert opened.pid != before
    assert (offer["path"], offer["kernel_id"], offer["state"]) == ("train.ipynb", opened.kernel_id, "restarted")
    assert (offer["cause"]["kind"], offer["cause"]["certain"], offer["note"]) == ("killed", True, None)
    assert offer["snapshot"]["names"] == ["model", "opt"]
    assert offer["snapshot"]["device"] is None
    assert offer["toast"].startswith("train.ipynb: kernel was killed")
    assert len(offer["toast"]) <= 140
    assert "model" in offer["toast"].splitlines()[1]
    assert "%restore_vars" not in offer["message"], "there is a button for it"
    assert [o["id"] for o in await server.offers()] == [offer["id"]]

    shown = await opened.run("%load_ext ipyrescue", f"%restore_vars from={offer['snapshot']['id']}", "model + 1")

    assert "43" in shown
    assert await server.offers() == []


@pytest.mark.parametrize(
    ("cell", "kind", "said"),
    [
        (SEGFAULT, "segmentation_fault", "segmentation fault"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM); input()", "terminated", "SIGTERM"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP); input()", "hung_up", "SIGHUP"),
        ("import os; os.abort()", "aborted", "abort"),
        ("import os; os._exit(3)", "exited", "status 3"),
        ("import os; os._exit(0)", "exited", "status 0"),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
async def test_every_end_is_told_right(server, cell, kind, said, loaded):
    opened = await server.open()
    await opened.run(*(ARMED if loaded else ("1",)))
    await opened.begin(cell)

    if not loaded and kind == "exited" and "0" in said:
        # Without a record, status 0 is the end that `exit()` has.
        await server.action("restart")
        assert (await dies(server))["path"] == "other.ipynb"
        return
    offer = await server.announced()

    assert offer["cause"]["kind"] == kind
    assert said in offer["cause"]["text"]
    assert offer["cell"] == (3 if loaded else None)
    assert (offer["snapshot"] is not None) == loaded
    assert ("had not loaded ipyrescue" in offer["message"]) == (not loaded)


async def test_the_death_stands_on_the_record_before_the_next_process_begins(server):
    """So the new kernel can tell its user, also where no front end listens."""
    opened = await server.open()
    await opened.run(*ARMED)
    await opened.begin(SEGFAULT)
    offer = await server.announced()

    (record,) = (server.root / ".ipyrescue" / "kernels").glob("*.json")
    said = json.loads(record.read_text())

    assert said["incarnation"] == offer["id"]
    assert (said["exit_code"], said["restarts"]) == (-signal.SIGSEGV, 1)
    assert said["died_at"] == offer["died_at"].replace("+00:00", "+00:00")
    assert said["cause"]["kind"] == "segmentation_fault"


@pytest.mark.parametrize("loaded", [True, False])
async def test_exit_is_no_crash(server, loaded):
    opened = await server.open()
    await opened.run(*(ARMED if loaded else ("1",)))
    await opened.begin("exit()")
    await server.action("restart")

    assert (await dies(server))["path"] == "other.ipynb"
    assert await server.offers() == []


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_restart_by_the_user_is_no_crash(server, loaded):
    opened = await server.open()
    await opened.run(*(ARMED if loaded else ("1",)))
    await server.ask("POST", "api", "kernels", opened.kernel_id, "restart")

    assert (await dies(server))["path"] == "other.ipynb"
    assert await server.offers() == []


async def test_a_closed_session_is_no_crash(server):
    opened = await server.open()
    await opened.run(*ARMED)
    await server.ask("DELETE", "api", "sessions", opened.session_id)

    assert (await dies(server))["path"] == "other.ipynb"
    assert await server.offers() == []


class TestAKernelThatHangs:
    """In compiled code that holds the GIL it cannot say that its user ended it."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        return {**jp_server_config, "KernelManager": {"shutdown_wait_time": 1.0}}

    async def hang(self, opened, tmp_path):
        fifo = tmp_path / "hangs"
        os.mkfifo(fifo)
        await opened.run(*ARMED)
        await opened.begin(f"open({str(fifo)!r}, 'w').close()\nimport ctypes; ctypes.PyDLL(None).sleep(600)")
        await asyncio.to_thread(fifo.read_text)

    @pytest.mark.parametrize("how", ["restart", "shutdown"])
    async def test_and_is_ended_by_its_user_is_no_crash(self, server, tmp_path, how):
        opened = await server.open()
        await self.hang(opened, tmp_path)
        if how == "restart":
            await server.ask("POST", "api", "kernels", opened.kernel_id, "restart")
        else:
            await server.ask("DELETE", "api", "sessions", opened.session_id)

        assert (await dies(server))["path"] == "other.ipynb"
        assert await server.offers() == []

    async def test_and_is_killed_is_one(self, server, tmp_path):
        opened = await server.open()
        await self.hang(opened, tmp_path)
        opened.kill(signal.SIGKILL)

        assert (await server.announced())["cell"] == 3


class TestARestarterThatGivesUp:
    """It counts deaths in a row, and calls a process stable that was alive for a while."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        jp_server_config["KernelRestarter"]["stable_start_time"] = 60.0
        return jp_server_config

    async def test_says_so_and_offers_what_the_first_one_had(self, server, tmp_path):
        opened = await server.open()
        await opened.run(*ARMED)
        profile = tmp_path / "broken" / "profile_default" / "startup"
        profile.mkdir(parents=True)
        (profile / "0.py").write_text("import os; os._exit(3)")
        opened.kernel.update_env(env={"IPYTHONDIR": str(profile.parent.parent)})
        opened.kill(signal.SIGKILL)

        first, last = await server.announced(), await server.announced()

        assert (first["state"], last["state"]) == ("restarted", "dead")
        assert first["id"] == last["id"]
        assert last["kernel_id"] is None
        assert last["cause"]["kind"] == "killed"
        assert last["snapshot"]["names"] == ["model", "opt"]
        assert "2 restarts failed" in last["toast"]
        assert len(last["toast"]) <= 140
        assert "died 2 times while starting and is not restarted any more" in last["message"]
        assert await server.ask("GET", "api", "sessions") == []
        (offer,) = await server.offers()
        assert (offer["id"], offer["state"]) == (first["id"], "dead")


async def test_two_notebooks_that_die_at_once_get_their_own_offers(server):
    for path, value in (("train.ipynb", 1), ("sub/train.ipynb", 2)):
        server.write_notebook(path)
        await (await server.open(path)).run("%load_ext ipyrescue", f"model = {value}\n%checkpoint_vars label=v{value}")
    for opened in server.opened:
        opened.kill(signal.SIGKILL)

    found = {offer["path"]: offer for offer in (await server.announced(), await server.announced())}

    assert found.keys() == {"train.ipynb", "sub/train.ipynb"}
    listed = (await server.get("offers"))["offers"]
    assert {o["path"]: o["id"] for o in listed} == {path: offer["id"] for path, offer in found.items()}
    for path, value in (("train.ipynb", 1), ("sub/train.ipynb", 2)):
        (snapshot,) = (await server.get("snapshots", path=path))["snapshots"]
        assert (snapshot["id"], snapshot["label"]) == (found[path]["snapshot"]["id"], f"v{value}")


async def test_a_copy_of_a_notebook_gets_no_offer(server):
    opened = await server.open()
    await opened.run(*ARMED)
    copy = await server.ask("POST", "api", "contents", "", body={"copy_from": "train.ipynb"})
    opened.kill(signal.SIGKILL)
    await server.announced()

    assert await server.offers(copy["path"]) == []
    assert (await server.get("snapshots", path=copy["path"]))["snapshots"] == []
    assert len(await server.offers()) == 1


async def test_a_renamed_notebook_keeps_its_offer(server):
    """The kernel knows the old name only; the snapshots stand under it, too."""
    server.write_notebook("train.ipynb", *ARMED)
    opened = await server.open()
    await opened.run(*ARMED, cell_ids=server.cell_ids("train.ipynb"))
    await server.ask("PATCH", "api", "contents", "train.ipynb", body={"path": "best.ipynb"})
    await server.ask("PATCH", "api", "sessions", opened.session_id, body={"path": "best.ipynb", "name": "best.ipynb"})
    opened.kill(signal.SIGKILL)

    offer = await server.announced()

    assert (offer["path"], offer["snapshot"]["names"]) == ("best.ipynb", ["model", "opt"])
    assert [o["id"] for o in await server.offers("best.ipynb")] == [offer["id"]]
    await server.ask("DELETE", "api", "sessions", opened.session_id)
    again = await server.open("best.ipynb")
    assert [(o["id"], o["kernel_id"]) for o in await server.offers("best.ipynb")] == [(offer["id"], again.kernel_id)]
    assert "42" in await again.run("%load_ext ipyrescue", f"%restore_vars from={offer['snapshot']['id']}", "model")
    assert await server.offers("best.ipynb") == []


async def test_a_kernel_that_made_no_snapshot(server):
    opened = await server.open()
    await opened.run(*LOADED, "x = 1")
    opened.kill(signal.SIGKILL)

    offer = await server.announced()

    assert offer["snapshot"] is None
    assert "No snapshot there" in offer["toast"]
    assert "%checkpoint_vars every=5m" in offer["message"]


async def test_a_kernel_that_never_heard_of_ipyrescue(server):
    opened = await server.open()
    await opened.run("x = 1")
    opened.kill(signal.SIGKILL)

    offer = await server.announced()

    assert (offer["snapshot"], offer["cell"], offer["cause"]["kind"]) == (None, None, "killed")
    assert "It had not loaded ipyrescue: %load_ext ipyrescue" in offer["message"]
    assert not (server.root / ".ipyrescue").exists()
    assert [o["id"] for o in await server.offers()] == [offer["id"]]

    await server.ask("DELETE", "ipyrescue", "offers", offer["id"], path="train.ipynb")

    assert await server.offers() == []


async def test_what_an_earlier_kernel_left_is_proposed_after_one_that_kept_no_record(server):
    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    first = await server.announced()
    await opened.run("x = 1")
    opened.kill(signal.SIGSEGV)

    second = await server.announced()

    assert (second["cause"]["kind"], second["snapshot"]["id"]) == ("segmentation_fault", first["snapshot"]["id"])
    assert [o["id"] for o in await server.offers()] == [second["id"]]

    await server.ask("DELETE", "ipyrescue", "offers", second["id"], path="train.ipynb")

    assert await server.offers() == []


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [True, False])
async def test_restoring_what_an_earlier_kernel_left_answers_for_the_later_one_too(server, loaded):
    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    await server.announced()
    await opened.run(*(LOADED if loaded else ("1",)))
    opened.kill(signal.SIGKILL)
    offer = await server.announced()

    await opened.run("%load_ext ipyrescue", f"%restore_vars from={offer['snapshot']['id']}")

    assert await server.offers() == []


async def test_what_an_earlier_kernel_left_and_was_answered_is_not_proposed_again(server):
    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    first = await server.announced()
    await server.ask("DELETE", "ipyrescue", "offers", first["id"], path="train.ipynb")
    await opened.run("x = 1")
    opened.kill(signal.SIGKILL)

    assert (await server.announced())["snapshot"] is None


async def test_dismissed_stays_dismissed(server):
    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    offer = await server.announced()

    assert await server.ask("DELETE", "ipyrescue", "offers", offer["id"], path="train.ipynb") is None

    assert await server.offers() == []
    assert await server.get("offers") == {"offers": []}
    status, message = await server.refusal("DELETE", "offers", "0" * 16, path="train.ipynb")
    assert (status, message) == (404, "Nothing is offered to this notebook under 00000000 any more.")


async def test_dismissing_answers_for_the_deaths_before(server):
    """Else the reload of the page would bring up last week's."""
    opened = await server.open()
    ids = []
    for _ in range(2):
        await opened.run(*ARMED)
        opened.kill(signal.SIGKILL)
        ids.append((await server.announced())["id"])

    await server.ask("DELETE", "ipyrescue", "offers", ids[1], path="train.ipynb")

    assert ids[0] != ids[1]
    assert await server.offers() == []


async def test_a_notebook_whose_user_wants_no_offers_gets_none(server):
    opened = await server.open()
    await opened.run("%load_ext ipyrescue", "model = 42\n%checkpoint_vars on_death=never")
    opened.kill(signal.SIGKILL)
    await server.action("restart")

    assert (await dies(server))["path"] == "other.ipynb"
    assert await server.offers() == []


async def test_kernels_of_other_languages_are_left_alone(server):
    server.write_notebook("echo.ipynb")
    opened = await server.open("echo.ipynb", kernel="echo")
    await opened.client()
    opened.kill(signal.SIGKILL)
    await server.action("restart")

    assert (await dies(server))["path"] == "other.ipynb"
    assert await server.offers("echo.ipynb") == []


async def test_a_console_is_left_alone(server):
    kernel = await server.ask("POST", "api", "kernels", body={"name": "python3"})
    process = server.app.kernel_manager.get_kernel(kernel["id"]).provisioner.process
    process.send_signal(signal.SIGKILL)
    await server.action("restart")

    assert (await dies(server))["path"] == "other.ipynb"


async def test_a_death_that_cannot_be_noted_is_told_and_restarted_nevertheless(server):
    """The store is gone, or cannot be written."""
    opened = await server.open()
    await opened.run(*ARMED)
    kernels = server.root / ".ipyrescue" / "kernels"
    kernels.rename(server.root / ".ipyrescue" / "gone")
    kernels.write_text("no folder")
    opened.kill(signal.SIGKILL)

    offer = await server.announced()

    assert (offer["path"], offer["state"]) == ("train.ipynb", "restarted")
    assert await opened.run("1 + 1") == "2"


async def test_a_slow_disk_delays_the_restart_by_no_more_than_a_moment(server, monkeypatch):
    answers = threading.Event()
    attest = witness.attest
    monkeypatch.setattr(restarts, "RECORD_SECONDS", 0.1)
    monkeypatch.setattr(witness, "attest", lambda *arguments: answers.wait(60) and attest(*arguments))
    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    await server.action("restart")

    answers.set()

    assert (await server.announced())["snapshot"]["names"] == ["model", "opt"]


async def test_whatever_is_wrong_with_us_the_kernel_is_restarted(server, monkeypatch):
    monkeypatch.setattr(witness, "attest", None)
    opened = await server.open()
    await opened.run("1")
    opened.kill(signal.SIGKILL)
    await server.action("restart")

    assert await opened.run("1 + 1") == "2"


async def test_the_event_is_valid_and_needs_every_field(server):
    import yaml
    from jsonschema import Draft7Validator

    opened = await server.open()
    await opened.run(*ARMED)
    opened.kill(signal.SIGKILL)
    offer = await server.announced()

    schema = yaml.safe_load(SCHEMA.read_text())
    assert offer.keys() == set(schema["required"]) == schema["properties"].keys()
    Draft7Validator(schema).validate(offer)
