"""What a list says of a snapshot, as a Snapshot that reads its manifest when it is asked for more.

A `Brief` knows the few fields and sums by which snapshots are listed, found and forgotten. Any other field is had from
the manifest, whose MAC is checked then: what a Brief says of itself may be remembered (see `ipyrescue.store.index`),
what is restored never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from ipyrescue.manifest import Snapshot

Said = dict[str, Any]
"""What a Brief says, as plain JSON: `FIELDS` of the snapshot, and the sums of it that are in `said_of`."""

FIELDS = (
    "format", "id", "sequence", "notebook", "incarnation", "created", "label", "trigger", "cut", "reason", "cell",
    "host", "new_bytes", "pause_seconds",
)  # fmt: skip
_SUMS = ("size_bytes", "variable_count", "import_count", "skipped_count")
_PACK_DIGITS = 16
_PLACE_DIGITS = 2 * _PACK_DIGITS


def said_of(snapshot: Snapshot) -> Said:
    """What a list says of *snapshot*. Hundreds of packs are one text, since most lists ask for none of them."""
    return {
        **{name: getattr(snapshot, name) for name in (*FIELDS, *_SUMS)},
        "devices": sorted(snapshot.devices),
        "packs": "".join(f"{pack}{end:0{_PACK_DIGITS}x}" for pack, end in snapshot.packs.items()),
    }


def packs_of(text: str) -> dict[str, int]:
    """The packs that a snapshot needs, and the length of each, from what a list says of them."""
    places = (text[start : start + _PLACE_DIGITS] for start in range(0, len(text), _PLACE_DIGITS))
    return {place[:_PACK_DIGITS]: int(place[_PACK_DIGITS:], 16) for place in places}


def brief(said: Said, read: Callable[[], Snapshot]) -> Snapshot:
    """The snapshot of which a list says *said*; *read* reads its manifest, and may raise StoreError."""
    made = object.__new__(Brief)
    vars(made).update(said, _read=read)
    return made


class Brief(Snapshot):
    """A snapshot that reads its manifest when it is asked for more than *said*: any access to a field may raise
    StoreError, where the manifest was damaged or removed meanwhile.

    It is a Snapshot to whoever compares or replaces it. Equal to one that is read whole, and not hashable, as that.
    """  # noqa: D205 - the warning is one sentence

    _read: Callable[[], Snapshot]

    __class__ = property(lambda self: Snapshot)
    """What `dataclasses.replace` makes of it."""

    def __eq__(self, other: object) -> bool:
        """Whether *other* is the same snapshot: an id is of one only, and manifests never change."""
        return isinstance(other, Snapshot) and all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    def __getattr__(self, name: str) -> Any:
        """A field that no list says. It is not kept: thousands of manifests would not fit into memory."""
        if name not in Snapshot.__dataclass_fields__:
            raise AttributeError(name)
        return getattr(self._read(), name)

    def to_bytes(self) -> bytes:
        """Canonical JSON, as the manifest has it."""
        return self._read().to_bytes()

    @property
    def size_bytes(self) -> int:
        """As in a Snapshot."""
        return int(vars(self)["size_bytes"])

    @property
    def packs(self) -> dict[str, int]:
        """As in a Snapshot."""
        return packs_of(vars(self)["packs"])

    @property
    def devices(self) -> frozenset[str]:
        """As in a Snapshot."""
        return frozenset(vars(self)["devices"])

    @property
    def variable_count(self) -> int:
        """As in a Snapshot."""
        return int(vars(self)["variable_count"])

    @property
    def import_count(self) -> int:
        """As in a Snapshot."""
        return int(vars(self)["import_count"])

    @property
    def skipped_count(self) -> int:
        """As in a Snapshot."""
        return int(vars(self)["skipped_count"])


def _from_the_manifest(name: str) -> property:
    return property(lambda brief: brief.__getattr__(name))


for _field in fields(Snapshot):
    if _field.default is not MISSING:
        # A default stands at the class, where it would be found before `__getattr__` is asked.
        setattr(Brief, _field.name, _from_the_manifest(_field.name))
