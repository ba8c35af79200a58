"""A snapshot inside a running cell, on request: what a runner asks of its kernel before it ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.store import requests
from ipyrescue.store.requests import Request

_LOOK_SECONDS = 0.1


async def snapshot(
    root: Path, incarnation: str, patience_seconds: float, *, until: Callable[[], bool]
) -> tuple[str | None, str | None]:
    """The id of the snapshot that was made, or why there is none; neither, if nothing was heard in time.

    It is waited for no longer once *until* says so.
    """
    wanted, deadline = Request.new(patience_seconds=patience_seconds), time.monotonic() + patience_seconds
    try:
        waiting = requests.ask(root, incarnation, wanted)
        while time.monotonic() < deadline and not until():
            answer = requests.answered(root, incarnation)
            if answer is not None and answer.id == waiting.id and answer.final:
                return answer.snapshot_id, answer.refusal
            await asyncio.sleep(_LOOK_SECONDS)
    except StoreError as error:
        return None, str(error)
    finally:
        requests.withdraw(root, incarnation, wanted)
    return None, None
