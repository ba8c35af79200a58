"""BYTES. One directory on disk: packs of blobs, signed manifests, life records. Knows no Python objects."""

from __future__ import annotations

from ipyrescue.store.store import Store

__all__ = ["Store"]
