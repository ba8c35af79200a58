"""A file or folder that appears under its name whole, and never in the place of another."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic


def refuse_taken(final: Path) -> None:
    """Raises StoreError where there is something already, or no folder to put it into."""
    if os.path.lexists(final):
        raise StoreError(f"Nothing was exported: {final} is there already. Remove it, or say another -o.")
    if not final.parent.is_dir():
        raise StoreError(
            f"Nothing was exported: there is no folder {final.parent}. Make it first: mkdir -p {final.parent}"
        )


@contextlib.contextmanager
def file(final: Path) -> Iterator[Path]:
    """Where to write; published as *final*, durably, when the block ends well, gone otherwise. Raises StoreError."""
    refuse_taken(final)
    with atomic.explained("export to", final), atomic.Draft(final.parent) as draft:
        yield draft.path
        try:
            draft.publish(final, mode=0o666 & ~_umask())
        except FileExistsError:
            refuse_taken(final)
            raise


@contextlib.contextmanager
def folder(final: Path) -> Iterator[Path]:
    """The same for a folder. Raises StoreError."""
    refuse_taken(final)
    draft = final.parent / f".{final.name}.{secrets.token_hex(4)}"
    with atomic.explained("export to", final):
        draft.mkdir()
        try:
            yield draft
            for path in (*draft.rglob("*"), draft):
                _sync(path)
            refuse_taken(final)
            draft.rename(final)
            atomic.sync_folder(final.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _sync(path: Path) -> None:
    if path.is_dir():
        atomic.sync_folder(path)
        return
    fd = os.open(path, os.O_RDWR)
    try:
        atomic.sync_file(fd)
    finally:
        os.close(fd)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
