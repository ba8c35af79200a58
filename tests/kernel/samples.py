"""A snapshot's manifest that was never on a disk, for reports."""

from datetime import datetime, timezone

from ipyrescue import manifest
from ipyrescue.manifest import BlobRef, Settings, Skipped, Snapshot, Variable

NOW = 1_700_000_000.0


def iso(seconds_ago):
    return datetime.fromtimestamp(NOW - seconds_ago, timezone.utc).isoformat()


def snapshot(**fields):
    """A snapshot of two variables, 1.3 GB, three minutes old; *fields* replace what they name."""
    blobs = tuple(BlobRef(f"{i:064x}", "e" * 16, i << 20, 1 << 20) for i in range(1240))
    known = {
        "format": manifest.FORMAT_VERSION,
        "id": "3f9c12ab" + "0" * 8,
        "sequence": 7,
        "notebook": "train.ipynb",
        "incarnation": "b" * 16,
        "created": iso(200),
        "label": None,
        "trigger": "command",
        "cut": "cell_end",
        "reason": None,
        "cell": 7,
        "host": "lab",
        "settings": Settings(),
        "environment": {},
        "imports": (),
        "variables": (
            Variable("model", "Net", 1_299_000_000, 3, "model = Net()"),
            Variable("x", "int", 28, None, None),
        ),
        "skipped": (),
        "warnings": (),
        "groups": (),
        "blobs": blobs,
        "new_bytes": 41_000_000,
        "pause_seconds": 0.21,
    }
    return Snapshot(**(known | fields))


GENERATOR = Skipped("gen", "generator", "generator", 4)
