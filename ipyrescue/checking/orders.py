"""What the kernel tells the fresh process, and how what that answers is read: JSON, without a value or a secret.

Of the live variables it holds digests only. The key stands in it by its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ipyrescue.pickling.anatomy import Anatomy, cell_classes
from ipyrescue.pickling.digests import Digest, Token

Expected = Mapping[str, Digest]


@dataclass(frozen=True)
class Order:
    """Which snapshot to restore, what to expect of it, and what to leave out.

    *expected* has the digests of the names of each group, by its position; *checked* are the groups that were compared
    before and are loaded only; *lost* and *lost_imports* are what another process died of.
    """

    store: str
    key_path: str
    snapshot: str
    report: int
    path: tuple[str, ...]
    expected: Mapping[int, Expected]
    checked: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    lost_imports: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Write it as one JSON object."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Order:
        """Read what `to_bytes` wrote."""
        said: dict[str, Any] = json.loads(text)
        expected = {
            int(position): {name: Digest(tuple(d["chunks"]), d["incomparable"]) for name, d in names.items()}
            for position, names in said.pop("expected").items()
        }
        rest: Any = {name: tuple(held) if type(held) is list else held for name, held in said.items()}
        return cls(expected=expected, **rest)


@dataclass(frozen=True)
class Found:
    """What the fresh process found of one name: with *chunk*, its *tokens* are of the first that differs."""

    chunk: int | None = None
    tokens: tuple[Token, ...] = ()
    incomparable: str | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Found:
        """Read one from JSON."""
        tokens = tuple(Token(path, label, content, tuple(names)) for path, label, content, names in said["tokens"])
        return cls(said["chunk"], tokens, said["incomparable"])


@dataclass
class Namespace:
    """The names of a snapshot in one of the two processes, as the digests see them."""

    values: dict[str, Any]
    classes: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.anatomy = Anatomy(self.values, self.classes)

    def know_classes(self, names: Iterable[str]) -> None:
        """Let the classes of cells that *names* are bound to stand for themselves, wherever they are met."""
        for key, name in cell_classes(self.values, names).items():
            self.classes.setdefault(key, name)

    def of_group(self, names: Iterable[str]) -> Anatomy:
        """How the values of a group come apart: its own classes are looked into."""
        return self.anatomy.beside(cell_classes(self.values, names))
