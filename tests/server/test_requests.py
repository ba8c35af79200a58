"""What the endpoints answer, to whom, and how they refuse."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.services.contents.manager import AsyncContentsManager
from tornado.httpclient import HTTPClientError

from ipyrescue.manifest import Snapshot
from ipyrescue.server.handlers import without_folders
from ipyrescue.store import Store, layout, signing

ARMED = ("%load_ext ipyrescue", "phrase = 'hunter2'\nmodel = list(range(1000))\n%checkpoint_vars label=first")
NOWHERE = "0" * 16
OF_A_NOTEBOOK = ("offers", "status", "snapshots", "deaths")
WITH_AN_ID = (
    ("GET", "snapshots", NOWHERE),
    ("DELETE", "snapshots", NOWHERE),
    ("PUT", "snapshots", NOWHERE, "pin"),
    ("DELETE", "snapshots", NOWHERE, "pin"),
    ("GET", "snapshots", NOWHERE, "diff", NOWHERE),
    ("DELETE", "offers", NOWHERE),
)
EVERY_VERB = (*(("GET", name) for name in OF_A_NOTEBOOK), *WITH_AN_ID)


def store_of(server) -> Store:
    return Store.open(server.root / ".ipyrescue", signing.load_key())


async def snapshots(server, path="train.ipynb"):
    return (await server.get("snapshots", path=path))["snapshots"]


class TestWithoutAStore:
    async def test_there_is_nothing_and_nothing_is_made(self, server, tmp_path):
        path = "train.ipynb"

        assert await server.get("offers", path=path) == {"offers": []}
        assert await server.get("offers") == {"offers": []}
        assert await server.get("snapshots", path=path) == {"path": path, "snapshots": []}
        assert await server.get("deaths", path=path) == {"deaths": []}
        assert sorted(p.name for p in server.root.iterdir()) == ["train.ipynb"]
        assert not signing.key_path().exists()

    async def test_the_status_says_that_there_is_no_kernel(self, server):
        status = await server.get("status", path="train.ipynb")

        assert status["protection"] == {
            "state": "no_kernel",
            "label": "no kernel",
            "text": "There is no kernel, so there is nothing to protect.",
            "paused": None,
            "every_seconds": None,
            "interval_seconds": None,
            "pause_seconds": None,
            "slowdown_seconds": None,
            "protected_since": None,
            "armed_at": None,
            "saved_at": None,
            "failure": None,
        }
        assert (status["kernel_id"], status["memory"], status["largest"]) == (None, None, [])

    @pytest.mark.parametrize("request_", WITH_AN_ID, ids=" ".join)
    async def test_a_snapshot_that_is_meant_is_not_found(self, server, request_):
        status, message = await server.refusal(*request_, path="train.ipynb")

        assert status == 404
        assert message.endswith(".") or "%checkpoint_vars" in message


class TestStatus:
    async def test_of_a_kernel_that_has_not_loaded_ipyrescue(self, server):
        opened = await server.open()

        status = await server.get("status", path="train.ipynb")

        assert status["kernel_id"] == opened.kernel_id
        assert status["protection"]["state"] == "not_loaded"

    async def test_of_one_that_makes_snapshots_by_itself(self, server):
        opened = await server.open()
        await opened.run("%load_ext ipyrescue", "big = bytearray(100_000); small = 1\n%checkpoint_vars every=5m")

        status = await server.get("status", path="train.ipynb")

        assert status["protection"]["state"] == "protected"
        assert status["protection"]["every_seconds"] == 300.0
        assert len(status["protection"]["label"]) <= 40
        assert status["protection"]["armed_at"]
        assert status["protection"]["saved_at"]
        assert status["memory"]["rss_bytes"] > 10_000_000
        assert status["memory"].keys() == {
            "rss_bytes", "peak_rss_bytes", "limit_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes", "warning",
        }  # fmt: skip
        assert status["largest"][0].keys() == {"name", "type", "size_bytes"}
        assert status["largest"][0]["name"] == "big"

    async def test_of_a_new_kernel_is_not_that_of_the_one_before(self, server):
        opened = await server.open()
        await opened.run("%load_ext ipyrescue", "x = 1\n%checkpoint_vars every=5m")
        opened.kill(signal.SIGKILL)
        await server.announced()

        assert (await server.get("status", path="train.ipynb"))["protection"]["state"] == "not_loaded"

        await opened.run("%load_ext ipyrescue")

        assert (await server.get("status", path="train.ipynb"))["protection"]["state"] == "not_armed"


class TestSnapshots:
    @pytest.fixture
    def opened(self, server, jp_asyncio_loop):
        """Two snapshots, `first` and `second`."""
        opened = jp_asyncio_loop.run_until_complete(server.open())
        jp_asyncio_loop.run_until_complete(
            opened.run(
                *ARMED,
                "gen = (i for i in [])",
                "del phrase\nmodel.append(1); lr = 0.1\n%checkpoint_vars",
            )
        )
        return opened

    async def test_are_listed_newest_first(self, server, opened):
        second, first = await snapshots(server)

        assert (first["label"], second["label"]) == ("first", None)
        assert first.keys() == {
            "id", "created", "label", "trigger", "cut", "cell", "size_bytes", "new_bytes", "variables",
            "pinned", "mark",
        }  # fmt: skip
        assert (first["variables"], first["pinned"], first["mark"], first["cut"]) == (2, False, "", "line")
        assert (first["cell"], second["cell"]) == (2, 4)

    async def test_are_described_without_a_single_value(self, server, opened):
        first = (await snapshots(server))[-1]

        described = await server.get("snapshots", first["id"], path="train.ipynb")

        assert described["snapshot"] == first
        by_name = {variable["name"]: variable for variable in described["variables"]}
        assert by_name.keys() == {"phrase", "model"}
        assert by_name["phrase"].keys() == {"name", "type", "size_bytes", "cell"}
        assert (by_name["phrase"]["type"], by_name["model"]["type"]) == ("str", "list")
        assert "hunter2" not in json.dumps(described)

    async def test_say_what_was_left_out(self, server, opened):
        newest = (await snapshots(server))[0]

        (skipped,) = (await server.get("snapshots", newest["id"], path="train.ipynb"))["skipped"]

        assert (skipped["name"], skipped["type"], skipped["cell"]) == ("gen", "generator", 3)
        assert skipped["reason"]

    async def test_are_compared_in_whichever_order(self, server, opened):
        second, first = await snapshots(server)

        forth = await server.get("snapshots", first["id"], "diff", second["id"], path="train.ipynb")
        back = await server.get("snapshots", second["id"], "diff", first["id"], path="train.ipynb")

        assert forth == back
        assert (forth["older"], forth["newer"]) == (first["id"], second["id"])
        assert [v["name"] for v in forth["added"]] == ["lr"]
        assert [v["name"] for v in forth["removed"]] == ["phrase"]
        assert [v["name"] for v in forth["changed"]] == ["model"]
        assert forth["changed"][0].keys() == {"name", "type", "size_bytes", "size_bytes_before", "changed_bytes"}

    async def test_are_pinned_unpinned_and_forgotten(self, server, opened):
        first = (await snapshots(server))[-1]["id"]

        for _ in range(2):
            assert await server.ask("PUT", "ipyrescue", "snapshots", first, "pin", path="train.ipynb") is None
        assert [s["pinned"] for s in await snapshots(server)] == [False, True]
        status, message = await server.refusal("DELETE", "snapshots", first, path="train.ipynb")
        assert (status, "is pinned" in message) == (409, True)

        for _ in range(2):
            assert await server.ask("DELETE", "ipyrescue", "snapshots", first, "pin", path="train.ipynb") is None
        assert [s["pinned"] for s in await snapshots(server)] == [False, False]
        assert await server.ask("DELETE", "ipyrescue", "snapshots", first, path="train.ipynb") is None
        assert (await server.refusal("DELETE", "snapshots", first, path="train.ipynb"))[0] == 404
        (left,) = await snapshots(server)
        assert left["id"] != first

        await server.ask("DELETE", "ipyrescue", "snapshots", left["id"], path="train.ipynb")

        assert await snapshots(server) == []
        assert list(layout.packs(server.root / ".ipyrescue").iterdir()) == []

    async def test_of_another_notebook_in_the_same_store_are_not_reached(self, server, opened):
        """Else the name of one notebook would open all."""
        server.write_notebook("other.ipynb")
        first = (await snapshots(server))[-1]["id"]

        assert await snapshots(server, "other.ipynb") == []
        for method, *parts in (
            ("GET", "snapshots", first),
            ("DELETE", "snapshots", first),
            ("PUT", "snapshots", first, "pin"),
            ("GET", "snapshots", first, "diff", first),
        ):
            assert (await server.refusal(method, *parts, path="other.ipynb"))[0] == 404
        assert len(await snapshots(server)) == 2

    async def test_that_are_damaged_or_foreign_are_marked_and_can_be_forgotten(self, server, opened):
        store = store_of(server)
        damaged, foreign = store.catalog.names()
        with store.catalog.path(damaged).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        theirs = Snapshot.from_bytes(store.catalog.body(foreign)[0].body)
        framed = signing.frame(signing.Key(b"theirs" * 6), store.id, foreign, theirs.to_bytes())
        store.catalog.path(foreign).write_bytes(framed)

        found = await snapshots(server)

        assert [(s["id"], s["mark"]) for s in found] == [(foreign[11:27], "foreign"), (damaged[11:27], "damaged")]
        assert {value for s in found for key, value in s.items() if key not in ("id", "mark")} == {None}
        for name in (damaged, foreign):
            status, message = await server.refusal("GET", "snapshots", name[11:27], path="train.ipynb")
            assert status == 409
            assert str(server.root) not in message
            assert "Nothing" in message
        assert await server.get("offers", path="train.ipynb") == {"offers": []}

        await server.ask("DELETE", "ipyrescue", "snapshots", damaged[11:27], path="train.ipynb")

        assert [s["id"] for s in await snapshots(server)] == [foreign[11:27]]

    async def test_whose_key_is_lost_are_all_foreign(self, server, opened):
        signing.key_path().rename(signing.key_path().with_name("elsewhere"))

        assert [s["mark"] for s in await snapshots(server)] == ["foreign", "foreign"]
        assert not signing.key_path().exists()

    async def test_in_a_store_that_is_damaged_are_answered_with_a_sentence(self, server, opened):
        (server.root / ".ipyrescue" / "format.json").write_text("{}")

        for name in ("offers", "status", "snapshots", "deaths"):
            status, message = await server.refusal("GET", name, path="train.ipynb")
            assert status == 409
            assert "format.json" in message
            assert str(server.root) not in message
        assert await server.get("offers") == {"offers": []}


class TestRefusals:
    """Sentences, and no word of where the server keeps its files."""

    async def test_of_a_server_whose_settings_are_wrong(self, server, monkeypatch):
        monkeypatch.setenv("IPYRESCUE_KEEP", "many")

        status, message = await server.refusal("GET", "offers", path="train.ipynb")

        assert (status, "IPYRESCUE_KEEP cannot be used" in message) == (409, True)
        assert await server.get("offers") == {"offers": []}

    async def test_of_what_was_not_expected(self, server, monkeypatch):
        monkeypatch.setattr("ipyrescue.server.handlers.status", None)

        assert await server.refusal("GET", "status", path="train.ipynb") == (
            500,
            "This was not expected and is a defect of ipyrescue; the log of the server says more.",
        )

    def test_name_files_by_their_last_part(self):
        root = Path("/home/ann smith/work/.ipyrescue")
        said = f"{root}/packs/0.pack is gone, {root} is not; see /var/lib/x.json, the key {signing.key_path()} or a/b."

        assert without_folders(said, root) == (
            ".ipyrescue/packs/0.pack is gone, .ipyrescue is not; see x.json, the key the key file or a/b."
        )


class TestDeaths:
    async def test_are_listed_newest_first_with_what_they_left(self, server):
        opened = await server.open()
        await opened.run(*ARMED)
        opened.kill(signal.SIGKILL)
        first = await server.announced()
        await opened.run("%load_ext ipyrescue")
        await opened.begin("import os\nos._exit(3)")
        second = await server.announced()

        newest, oldest = (await server.get("deaths", path="train.ipynb"))["deaths"]

        assert (newest["id"], oldest["id"]) == (second["id"], first["id"])
        assert (newest["cause"]["kind"], oldest["cause"]["kind"]) == ("exited", "killed")
        assert (newest["cell"], newest["cell_source"], newest["snapshot"]) == (2, "import os", None)
        assert oldest["snapshot"] == first["snapshot"]
        assert oldest["died_at"] == first["died_at"]
        assert oldest["peak_rss_bytes"] > 0
        assert newest.keys() == {
            "id", "died_at", "cell", "cell_source", "cause", "peak_rss_bytes", "limit_bytes", "snapshot",
        }  # fmt: skip


class TestWhoMayAsk:
    async def test_nobody_without_a_token(self, server, http_server_client, jp_base_url):
        for method, *parts in EVERY_VERB:
            url = f"{jp_base_url}ipyrescue/{'/'.join(parts)}?path=train.ipynb"
            with pytest.raises(HTTPClientError) as refused:
                await http_server_client.fetch(url, method=method, allow_nonstandard_methods=True)
            assert refused.value.code == 403

    async def test_nobody_whom_the_authorizer_forbids_it(self, server):
        asked = []

        class Nobody(Authorizer):
            def is_authorized(self, handler, user, action, resource):
                asked.append((action, resource))
                return False

        server.app.web_app.settings["authorizer"] = Nobody(parent=server.app)

        for method, *parts in EVERY_VERB:
            assert (await server.refusal(method, *parts, path="train.ipynb"))[0] == 403
        actions = ["read" if method == "GET" else "write" for method, *_ in EVERY_VERB]
        assert asked == [(action, "ipyrescue") for action in actions]

    async def test_no_other_site_in_the_name_of_a_browser_that_is_logged_in(
        self, server, http_server_client, jp_base_url, jp_auth_header
    ):
        token = jp_auth_header["Authorization"].partition(" ")[2]
        cookies = {}
        for page in (f"{jp_base_url}login", f"{jp_base_url}login?token={token}"):
            answer = await http_server_client.fetch(page, follow_redirects=False, raise_error=False)
            for cookie in answer.headers.get_list("Set-Cookie"):
                name, _, value = cookie.partition(";")[0].partition("=")
                cookies[name] = value

        async def ask(method, *parts, **headers):
            url = f"{jp_base_url}ipyrescue/{'/'.join(parts)}?path=train.ipynb"
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
            return await http_server_client.fetch(
                url, method=method, headers=headers, allow_nonstandard_methods=True, raise_error=False
            )

        for request in EVERY_VERB:
            if request[0] != "GET":
                forged = await ask(*request)
                assert (forged.code, b"_xsrf" in forged.body) == (403, True)
            assert (await ask(*request, **{"X-XSRFToken": cookies["_xsrf"]})).code in (200, 404)

    async def test_and_no_answer_is_kept(self, server, jp_fetch):
        answer = await jp_fetch("ipyrescue", "offers")

        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"].startswith("application/json")


class TestPaths:
    @pytest.fixture
    def outside(self, server, tmp_path):
        """A notebook and a store beside the server's root, and hidden ones within."""
        for folder in (tmp_path, server.root / ".hidden"):
            folder.mkdir(exist_ok=True)
            (folder / "train.ipynb").write_text((server.root / "train.ipynb").read_text())
            Store.open(folder / ".ipyrescue", signing.load_key(create=True), create=True)
        (server.root / "folder.ipynb").mkdir()

    @pytest.mark.parametrize(
        "path",
        [
            "../train.ipynb", "sub/../../train.ipynb", "/../train.ipynb", "..%2ftrain.ipynb", "/etc/passwd",
            ".hidden/train.ipynb", ".ipyrescue/format.json", "missing.ipynb", "folder.ipynb",
            "C:/train.ipynb", "x" * 5000,
        ],
    )  # fmt: skip
    async def test_that_are_not_the_users_to_see_are_not_found(self, server, outside, path):
        for method, *parts in EVERY_VERB:
            status, message = await server.refusal(method, *parts, path=path)
            assert (status, message) in [
                (404, "There is no notebook of this path here. It may have been renamed, moved or deleted."),
                (400, message),
            ]

    @pytest.mark.parametrize("request_", EVERY_VERB, ids=" ".join)
    async def test_must_be_named(self, server, request_):
        if request_ == ("GET", "offers"):
            return
        assert await server.refusal(*request_) == (400, "Say which notebook is meant: ?path=folder/name.ipynb")

    async def test_with_blanks_and_umlauts_are_found(self, server):
        server.write_notebook("über uns/mein träning.ipynb")
        opened = await server.open("über uns/mein träning.ipynb")
        await opened.run(*ARMED)
        opened.kill(signal.SIGKILL)

        offer = await server.announced()

        assert offer["path"] == "über uns/mein träning.ipynb"
        assert [o["id"] for o in await server.offers(offer["path"])] == [offer["id"]]

    @pytest.mark.parametrize(
        "identifier",
        [
            "0" * 15,
            "0" * 17,
            "0" * 15 + "G",
            "0" * 15 + "A",
            "latest",
            "../../format",
            "0" * 16 + "%0a",
            "..%2f" + NOWHERE,
        ],
    )
    async def test_of_ids_are_exact(self, server, jp_base_url, jp_auth_header, http_server_client, identifier):
        for parts in (("snapshots",), ("offers",)):
            url = f"{jp_base_url}ipyrescue/{'/'.join(parts)}/{identifier}?path=train.ipynb"
            answer = await http_server_client.fetch(
                url, method="DELETE", headers=jp_auth_header, raise_error=False, follow_redirects=False
            )
            assert answer.code == 404
            assert b"There is" not in answer.body


class TestContentsThatAreNoFiles:
    """A contents manager over a database or a bucket: there is no folder in which a store could be."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        jp_server_config["ServerApp"]["contents_manager_class"] = Elsewhere
        return jp_server_config

    async def test_get_empty_answers(self, server):
        opened = await server.open()

        assert await server.get("offers", path="train.ipynb") == {"offers": []}
        assert await server.get("snapshots", path="train.ipynb") == {"path": "train.ipynb", "snapshots": []}
        assert await server.get("deaths", path="train.ipynb") == {"deaths": []}
        status = await server.get("status", path="train.ipynb")
        assert (status["kernel_id"], status["protection"]["state"]) == (opened.kernel_id, "not_loaded")
        for request in WITH_AN_ID:
            status, message = await server.refusal(*request, path="train.ipynb")
            assert (status, "elsewhere than on disk" in message) == (404, True)

    async def test_get_no_offers_and_their_kernels_restart(self, server):
        opened = await server.open()
        await opened.run("1")
        opened.kill(signal.SIGKILL)
        await server.action("restart")

        assert await opened.run("1 + 1") == "2"
        assert await server.get("offers") == {"offers": []}


class Elsewhere(AsyncContentsManager):
    async def file_exists(self, path=""):
        return path == "train.ipynb"

    async def dir_exists(self, path):
        return path == ""

    async def is_hidden(self, path):
        return False

    async def get(self, path, content=True, type=None, format=None):
        raise NotImplementedError

    async def save(self, model, path):
        raise NotImplementedError

    async def delete_file(self, path):
        raise NotImplementedError

    async def rename_file(self, old_path, new_path):
        raise NotImplementedError
