"""The endpoints under `ipyrescue/`: requests into what the stores say, as JSON; every refusal is a sentence.

All of them want an authenticated user whom the server's authorizer lets at the resource `ipyrescue`. Ids come from
URLs in exactly their form, paths go through the contents manager, and work on disk is done off the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from http.client import responses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.web import HTTPError

from ipyrescue.comparing import compare, in_order
from ipyrescue.errors import RescueError, SnapshotNotFoundError
from ipyrescue.manifest import Snapshot
from ipyrescue.server import contents, notebooks
from ipyrescue.server.notebooks import Notebook
from ipyrescue.server.offers import Announcement
from ipyrescue.server.status import living, status
from ipyrescue.server.stores import key_path
from ipyrescue.store import Store
from ipyrescue.store.prune import prune

if TYPE_CHECKING:
    from ipyrescue.server.extension import RescueApp

Answer = TypeVar("Answer")

_ID = r"([0-9a-f]{16})"
_PATH = re.compile(r"(?<![\w.])/[^\s,;:'`\"]+/([^\s/,;:'`\"]+)")


class RescueHandler(APIHandler):
    """What all endpoints share: who may ask, which notebook is meant, and how a refusal is said."""

    auth_resource = "ipyrescue"

    @property
    def rescue(self) -> RescueApp:
        """The extension, with its watch, its board and its stores."""
        found: RescueApp = self.settings["ipyrescue"]
        return found

    def set_default_headers(self) -> None:
        """Let nobody keep an answer: it names variables, and is old in a second."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say it in a sentence, as JSON."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, HTTPError):
            # tornado doubles each % of a message without arguments.
            message = (error.log_message or responses.get(status_code, "Refused")).replace("%%", "%")
        else:
            message = "This was not expected and is a defect of ipyrescue; the log of the server says more."
        self.log.warning("ipyrescue answered %s: %s", status_code, message)
        self.finish(json.dumps({"message": message}))

    async def notebook(self) -> Notebook | None:
        """The notebook that the query names; None if its file is on no disk of this server."""
        return await self.find(self.path_argument())

    async def find(self, path: str) -> Notebook | None:
        """The notebook at a contents path. Refuses what is not the user's to see."""
        try:
            return await notebooks.find(self.contents_manager, path)
        except RescueError as error:
            raise HTTPError(409, str(error)) from error

    async def notebook_on_disk(self) -> Notebook:
        """The same, refusing what is on no disk."""
        found = await self.notebook()
        if found is None:
            raise HTTPError(404, "This server keeps its notebooks elsewhere than on disk, so no snapshot is here.")
        return found

    def path_argument(self) -> str:
        """The contents path in the query, without slashes around it."""
        path = self.get_query_argument("path", "").strip("/")
        if not path:
            raise HTTPError(400, "Say which notebook is meant: ?path=folder/name.ipynb")
        return path

    async def on_disk(self, notebook: Notebook, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do *work* for a notebook in a thread; what it raises becomes a refusal."""
        try:
            return await asyncio.to_thread(work, notebook, *arguments)
        except SnapshotNotFoundError as error:
            raise HTTPError(404, without_folders(str(error), notebook.store_root)) from error
        except RescueError as error:
            raise HTTPError(409, without_folders(str(error), notebook.store_root)) from error
        except OSError as error:
            raise HTTPError(500, f"The disk of the snapshots does not answer: {error.strerror}") from error

    def store(self, notebook: Notebook) -> Store:
        """The notebook's store. Raises `SnapshotNotFoundError` where there is none."""
        store = self.rescue.stores.open(notebook.store_root)
        if store is None:
            raise SnapshotNotFoundError("There are no snapshots of this notebook. To make one: %checkpoint_vars")
        return store

    def done(self) -> None:
        """Answer that it is done."""
        self.set_status(204)
        self.finish()


class OffersHandler(RescueHandler):
    """What died and what is proposed, for one notebook or for all that are in use."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the offers."""
        if self.get_query_argument("path", None) is not None:
            offers = await self._offers(self.path_argument())
        else:
            paths = sorted({*self.rescue.board.paths(), *self.rescue.sessions.notebooks()})
            offers = [offer for path in paths for offer in await self._offers_if_there(path)]
        now = time.time()
        self.finish({"offers": [offer.as_json(now) for offer in offers]})

    async def _offers(self, path: str) -> list[Announcement]:
        notebook = await self.find(path)
        if notebook is None:
            return []
        kernel_id = self.rescue.sessions.kernel_of(path)
        found = await self.on_disk(notebook, self.rescue.board.current, kernel_id)
        return [found] if found is not None else []

    async def _offers_if_there(self, path: str) -> list[Announcement]:
        """One notebook that is gone or whose store is damaged does not hide the others' offers."""
        with contextlib.suppress(HTTPError):
            return await self._offers(path)
        return []


class OfferHandler(RescueHandler):
    """One offer."""

    @web.authenticated
    @authorized
    async def delete(self, identifier: str) -> None:
        """Dismiss it."""
        notebook = await self.notebook_on_disk()
        kernel_id = self.rescue.sessions.kernel_of(notebook.path)
        if not await self.on_disk(notebook, self.rescue.board.dismiss, kernel_id, identifier):
            raise HTTPError(404, f"Nothing is offered to this notebook under {identifier[:8]} any more.")
        self.done()


class StatusHandler(RescueHandler):
    """How well a notebook is protected now."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Judge it."""
        path, notebook = self.path_argument(), await self.notebook()
        kernel_id = self.rescue.sessions.kernel_of(path)
        if notebook is None:
            self.finish(status(path, kernel_id, None, [], time.time()))
            return
        self.finish(await self.on_disk(notebook, self._status, kernel_id))

    def _status(self, notebook: Notebook, kernel_id: str | None) -> dict[str, Any]:
        process = self.rescue.watch.process(kernel_id) if kernel_id is not None else None
        life = living(notebook.store_root, process) if process is not None else None
        snapshots = _own(self.rescue.stores.snapshots(notebook.store_root), notebook)
        return status(notebook.path, kernel_id, life, snapshots, time.time())


class SnapshotsHandler(RescueHandler):
    """The snapshots of a notebook."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List them."""
        path, notebook = self.path_argument(), await self.notebook()
        found = await self.on_disk(notebook, self._listed) if notebook is not None else []
        self.finish({"path": path, "snapshots": found})

    def _listed(self, notebook: Notebook) -> list[dict[str, Any]]:
        store = self.rescue.stores.open(notebook.store_root)
        return contents.listed(store, notebook.keys) if store is not None else []


class SnapshotHandler(RescueHandler):
    """One snapshot."""

    @web.authenticated
    @authorized
    async def get(self, identifier: str) -> None:
        """Describe it: names, types and sizes."""
        notebook = await self.notebook_on_disk()
        self.finish(await self.on_disk(notebook, self._described, identifier))

    @web.authenticated
    @authorized
    async def delete(self, identifier: str) -> None:
        """Forget it."""
        notebook = await self.notebook_on_disk()
        await self.on_disk(notebook, self._forget, identifier)
        self.done()

    def _described(self, notebook: Notebook, identifier: str) -> dict[str, Any]:
        store = self.store(notebook)
        return contents.described(contents.snapshot_of(store, notebook.keys, identifier), store.pins())

    def _forget(self, notebook: Notebook, identifier: str) -> None:
        store = self.store(notebook)
        contents.require(store, notebook.keys, identifier)
        store.forget(identifier)
        with contextlib.suppress(RescueError):  # forgotten it is; the next snapshot frees what this could not
            prune(store)


class PinHandler(RescueHandler):
    """Whether a snapshot stays whatever retention says."""

    @web.authenticated
    @authorized
    async def put(self, identifier: str) -> None:
        """Keep it."""
        await self._set(Store.pin, identifier)

    @web.authenticated
    @authorized
    async def delete(self, identifier: str) -> None:
        """Let retention decide again."""
        await self._set(Store.unpin, identifier)

    async def _set(self, verb: Callable[[Store, str], None], identifier: str) -> None:
        notebook = await self.notebook_on_disk()
        await self.on_disk(notebook, self._change, verb, identifier)
        self.done()

    def _change(self, notebook: Notebook, verb: Callable[[Store, str], None], identifier: str) -> None:
        store = self.store(notebook)
        contents.require(store, notebook.keys, identifier)
        verb(store, identifier)


class DifferenceHandler(RescueHandler):
    """Two snapshots, compared."""

    @web.authenticated
    @authorized
    async def get(self, identifier: str, other: str) -> None:
        """Say what changed from the older to the newer, in whichever order they are named."""
        notebook = await self.notebook_on_disk()
        self.finish(await self.on_disk(notebook, self._difference, identifier, other))

    def _difference(self, notebook: Notebook, *identifiers: str) -> dict[str, Any]:
        store, keys = self.store(notebook), notebook.keys
        first, second = (contents.snapshot_of(store, keys, identifier) for identifier in identifiers)
        older, newer = in_order(first, second)
        return {"older": older.id, "newer": newer.id, **compare(older, newer).as_json()}


class DeathsHandler(RescueHandler):
    """How the kernels of a notebook died."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the last of them."""
        self.path_argument()
        notebook = await self.notebook()
        found = await self.on_disk(notebook, self._deaths) if notebook is not None else []
        self.finish({"deaths": found})

    def _deaths(self, notebook: Notebook) -> list[dict[str, Any]]:
        snapshots = self.rescue.stores.snapshots(notebook.store_root)
        return contents.last_deaths(notebook.store_root, notebook.keys, snapshots)


def _own(snapshots: list[Snapshot], notebook: Notebook) -> list[Snapshot]:
    keys = notebook.keys
    return [snapshot for snapshot in snapshots if snapshot.notebook in keys]


def without_folders(message: str, store_root: Path) -> str:
    """A message that names files by their last part only: where the server keeps them is not the browser's business."""
    said = message.replace(str(key_path()), "the key file").replace(f"{store_root.parent}{os.sep}", "")
    return _PATH.sub(lambda match: match[1], said)


HANDLERS: list[tuple[str, type[RescueHandler]]] = [
    (r"/ipyrescue/offers", OffersHandler),
    (rf"/ipyrescue/offers/{_ID}", OfferHandler),
    (r"/ipyrescue/status", StatusHandler),
    (r"/ipyrescue/snapshots", SnapshotsHandler),
    (rf"/ipyrescue/snapshots/{_ID}", SnapshotHandler),
    (rf"/ipyrescue/snapshots/{_ID}/pin", PinHandler),
    (rf"/ipyrescue/snapshots/{_ID}/diff/{_ID}", DifferenceHandler),
    (r"/ipyrescue/deaths", DeathsHandler),
]
