"""The extension of a Jupyter server: its watch over kernels, its endpoints and its event, put in their places."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from jupyter_events.schema_registry import SchemaRegistryException
from jupyter_server import DEFAULT_EVENTS_SCHEMA_PATH
from jupyter_server.extension.application import ExtensionApp

from ipyrescue.server.handlers import HANDLERS
from ipyrescue.server.offers import SCHEMA, SCHEMA_ID, Announcement, Board
from ipyrescue.server.restarts import KERNEL_ACTIONS, Watch
from ipyrescue.server.sessions import Sessions
from ipyrescue.server.stores import Stores

if TYPE_CHECKING:
    from jupyter_events import EventLogger
    from jupyter_server.serverapp import ServerApp


class RescueApp(ExtensionApp):
    """Tells the users of a server which kernel died, why, and what of it is saved."""

    name = "ipyrescue"

    def initialize_settings(self) -> None:
        """Begin to watch; handlers find this object in the settings."""
        server = self._server
        self.stores = Stores()
        self.board = Board(self.stores)
        self.sessions = Sessions(server.session_manager, server.kernel_manager)
        self.watch = Watch(
            server.kernel_manager,
            server.contents_manager,
            self.sessions,
            self.stores,
            self.board,
            self._tell,
            self.log,
        )
        # The server registers its own schema with the first kernel, and we listen from before that.
        for schema in (DEFAULT_EVENTS_SCHEMA_PATH / "kernel_actions" / "v1.yaml", SCHEMA):
            with contextlib.suppress(SchemaRegistryException):
                self._events.register_event_schema(schema)
        self._events.add_listener(schema_id=KERNEL_ACTIONS, listener=self.watch.on_kernel_action)

    def initialize_handlers(self) -> None:
        """Add the endpoints."""
        self.handlers.extend(HANDLERS)

    async def stop_extension(self) -> None:
        """Let go of what would outlive the server."""
        watch = getattr(self, "watch", None)  # a server that fails to start stops its extensions, too
        if watch is not None:
            watch.stop()

    def _tell(self, announcement: Announcement) -> None:
        data = announcement.as_json(time.time())
        self.log.info("ipyrescue: %s", data["toast"].replace("\n", " "))
        self._events.emit(schema_id=SCHEMA_ID, data=data)

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None, "a server makes its extensions"
        return self.serverapp

    @property
    def _events(self) -> EventLogger:
        assert self._server.event_logger is not None, "a server has its event bus before its extensions"
        return self._server.event_logger
