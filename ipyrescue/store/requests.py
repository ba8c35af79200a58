"""What a terminal asks of a living kernel, and what the kernel answers: two small files beside its life record.

Never trusted: a request can make a snapshot of a kernel's own variables early, and nothing else. One request at a time
waits for a kernel; who asks meanwhile waits for the same answer.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, layout

REQUEST_LIMIT_BYTES = 4096
OLD_SECONDS = 3600.0
"""A request of this age is nobody's any more, whatever it says."""

_LONGEST_REFUSAL = 1000
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Request:
    """Somebody wants a snapshot: *at* is when, in seconds since the epoch; after *until* nobody waits for it."""

    id: str
    at: float
    until: float

    @classmethod
    def new(cls, *, patience_seconds: float, now: float | None = None) -> Request:
        """One of now, that waits so long."""
        moment = time.time() if now is None else now
        return cls(secrets.token_hex(8), moment, moment + patience_seconds)


@dataclass(frozen=True)
class Answer:
    """What the kernel says to the request with this id: that it was *seen*, the snapshot, or why there is none."""

    id: str
    snapshot_id: str | None = None
    refusal: str | None = None

    @property
    def final(self) -> bool:
        """Whether no other answer will come."""
        return self.snapshot_id is not None or self.refusal is not None


# The kernel's side.


def pending(root: Path, incarnation: str, *, now: float | None = None) -> Request | None:
    """The request that waits for an answer, noting that it was seen. Costs one failed open(2) where there is none.

    One that nobody waits for any more is removed. Never raises: what cannot be read is no request.
    """
    path = layout.request_path(root, incarnation)
    request = _read_request(path)
    if request is None:
        return None
    moment = time.time() if now is None else now
    if moment > request.until or abs(moment - request.at) > OLD_SECONDS:
        _remove(root, path)
        return None
    told = answered(root, incarnation)
    if told is not None and told.id == request.id and told.final:
        withdraw(root, incarnation, request)  # it was answered, and this file outlived that
        return None
    if told is None or told.id != request.id:
        with contextlib.suppress(OSError, StoreError):
            layout.check_folder_writable(layout.kernels(root))
            _write(layout.answer_path(root, incarnation), asdict(Answer(request.id)))
    return request


def answer(
    root: Path, incarnation: str, request: Request, *, snapshot_id: str | None = None, refusal: str | None = None
) -> None:
    """Say which snapshot was made, or why none was. Raises StoreError."""
    layout.check_folder_writable(layout.kernels(root))
    path = layout.answer_path(root, incarnation)
    said = Answer(request.id, snapshot_id, refusal[:_LONGEST_REFUSAL] if refusal is not None else None)
    with atomic.explained("answer in", path):
        _write(path, asdict(said))
    withdraw(root, incarnation, request)


def clear(root: Path, incarnation: str) -> None:
    """Remove what is left of requests to a kernel that ends or begins. Raises nothing."""
    for path in (layout.request_path(root, incarnation), layout.answer_path(root, incarnation)):
        _remove(root, path)


# The side of who asks.


def ask(root: Path, incarnation: str, wanted: Request) -> Request:
    """Leave a request, or join the one that waits already; return the one that waits. Raises StoreError."""
    layout.check_writable(root)
    path = layout.request_path(root, incarnation)
    with atomic.explained("leave a request at", path):
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                atomic.publish(layout.temporary(root), path, _encoded(asdict(wanted)), mode=0o600)
                return wanted
            there = _read_request(path)
            if there is not None and wanted.at < there.until:
                return there
            atomic.unlink_below(root, path)
    raise StoreError(f"Could not leave a request at {path}: somebody else leaves one all the time. Try again.")


def answered(root: Path, incarnation: str) -> Answer | None:
    """What the kernel said last; None where it has said nothing that can be read."""
    fields = _read(layout.answer_path(root, incarnation))
    with contextlib.suppress(TypeError, ValueError):
        return _answer(**fields)
    return None


def waits(root: Path, incarnation: str, request: Request) -> bool:
    """Whether the request still waits for an answer."""
    there = _read_request(layout.request_path(root, incarnation))
    return there is not None and there.id == request.id


def withdraw(root: Path, incarnation: str, request: Request) -> None:
    """Take the request back, if it is still that one. Raises nothing."""
    if waits(root, incarnation, request):
        _remove(root, layout.request_path(root, incarnation))


def _read_request(path: Path) -> Request | None:
    fields = _read(path)
    with contextlib.suppress(TypeError, ValueError):
        return _request(**fields)
    return None


def _request(*, id: Any, at: Any, until: Any) -> Request:
    times = all(type(moment) is float and math.isfinite(moment) for moment in (at, until))
    if not (times and type(id) is str and _ID.fullmatch(id)):
        raise ValueError("not a request")
    return Request(id, at, until)


def _answer(*, id: Any, snapshot_id: Any, refusal: Any) -> Answer:
    hexadecimal = [id] if snapshot_id is None else [id, snapshot_id]
    if not all(type(text) is str and _ID.fullmatch(text) for text in hexadecimal):
        raise ValueError("not an answer")
    if refusal is not None and (type(refusal) is not str or len(refusal) > _LONGEST_REFUSAL):
        raise ValueError("not an answer")
    return Answer(id, snapshot_id, refusal)


def _read(path: Path) -> dict[str, Any]:
    """The fields of a small JSON object; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError, StoreError):
        fields = json.loads(atomic.read_file(path, REQUEST_LIMIT_BYTES))
        if type(fields) is dict:
            return fields
    return {}


def _remove(root: Path, path: Path) -> None:
    """Unlink what stands in kernels/, where that may be written to. Raises nothing."""
    with contextlib.suppress(OSError, StoreError):
        layout.check_folder_writable(layout.kernels(root))
        atomic.unlink_below(root, path)


def _write(path: Path, fields: dict[str, Any]) -> None:
    atomic.replace(path, _encoded(fields))


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode("ascii")
