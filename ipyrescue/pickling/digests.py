"""Values to digests that two processes can compare, and two values to the place where they begin to differ.

A value is walked in an order of its own making: its kind, what it holds, then its parts, each object once. What is met
again is told by the path where it stood first, so that sharing counts; memory counts byte for byte, and once, however
many arrays lie on it. Sets have no order. What a value consists of is the business of `anatomy`; nothing of the user's
is called. The walk goes by a stack of its own, so that depth costs nothing, and has an end: who has more than
`MOST_TOKENS` parts is not compared.

A walk is told as tokens. They are hashed in chunks, which are few enough to be handed to another process; of the one
chunk in which two walks differ the tokens themselves are shown: paths and types, never values.
"""

from __future__ import annotations

import bisect
import hashlib
import warnings
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from ipyrescue.pickling import collector
from ipyrescue.pickling.anatomy import Anatomy
from ipyrescue.pickling.array_parts import Memory
from ipyrescue.pickling.parts import ATOMS, Incomparable, Parts, hashed, text

CHUNK_TOKENS = 256
MOST_TOKENS = 10_000_000
_SHOWN_NAMES = 200
_SHOWN_CHARACTERS = 120

Path = tuple[Any, str, Any]
"""Where a part stands: the path of what holds it, the kind of step, and the name, key or number of the step."""


class Token(NamedTuple):
    """One step of a walk as it may be shown: where, what kind of thing, a hash of its value, and its names."""

    path: str
    label: str
    content: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Digest:
    """What the walk over one named value came to: the hash of each chunk, or why it has none."""

    chunks: tuple[str, ...] = ()
    incomparable: str | None = None


@dataclass(frozen=True)
class Difference:
    """The first place at which two values differ, from their name on, and how, in words."""

    where: str
    what: str


def digests(values: Mapping[str, Any], anatomy: Anatomy) -> dict[str, Digest]:
    """Digest values that may share objects, in their order."""
    walk = _Walk(anatomy)
    with _in_peace():
        return {name: walk.over(name, value) for name, value in values.items()}


def tokens(values: Mapping[str, Any], anatomy: Anatomy, wanted: Mapping[str, int]) -> dict[str, list[Token]]:
    """Walk again, and return for each *wanted* name the tokens of one chunk."""
    walk = _Walk(anatomy, wanted)
    with _in_peace():
        for name, value in values.items():
            walk.over(name, value)
    return walk.seen


@contextmanager
def _in_peace() -> Iterator[None]:
    """Without the garbage collector, and without what libraries warn of when they are asked how they pickle."""
    with collector.held_off(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_different_chunk(one: Digest, other: Digest) -> int | None:
    """The number of the first chunk in which two walks differ; None where they do not."""
    pairs = enumerate(zip_longest(one.chunks, other.chunks))
    return next((number for number, (mine, theirs) in pairs if mine != theirs), None)


def first_difference(live: Sequence[Token], loaded: Sequence[Token]) -> Difference | None:
    """Where the tokens of one chunk begin to differ, and how."""
    for mine, theirs in zip_longest(live, loaded):
        if mine != theirs:
            return _explained(mine, theirs)
    return None


def _explained(live: Token | None, loaded: Token | None) -> Difference:
    if loaded is None or live is None:
        gone = live or loaded
        assert gone is not None
        return Difference(gone.path, "only there before it was saved" if loaded is None else "only there once loaded")
    if live.path != loaded.path:
        return Difference(live.path, f"{loaded.path} stands in its place once loaded")
    if live.label.partition(" of ")[0] != loaded.label.partition(" of ")[0]:
        return Difference(live.path, f"{live.label} comes back as {loaded.label}")
    lost = [name for name in live.names if name not in loaded.names]
    new = [name for name in loaded.names if name not in live.names]
    if lost:
        return Difference(f"{live.path}{lost[0]}", "lost")
    if new:
        return Difference(f"{live.path}{new[0]}", "only there once loaded")
    if live.names != loaded.names:
        return Difference(live.path, "another order")
    if live.label != loaded.label:
        return Difference(live.path, f"{live.label} comes back as {loaded.label}")
    return Difference(live.path, f"{live.label} with another value")


def shown(path: Path) -> str:
    """A path as Python would say it: `model.cache['x'][3]`."""
    steps: list[str] = []
    at: Any = path
    while at is not None:
        at, kind, key = at
        steps.append(_STEPS[kind](key))
    return "".join(reversed(steps))


_STEPS: dict[str, Callable[[Any], str]] = {
    "": str,
    ".": lambda name: f".{name}",
    "[": lambda key: f"[{key!r}]" if type(key) in (str, int) and len(str(key)) < _SHOWN_CHARACTERS else "[...]",
    ":": lambda span: f"[{span}]",
    "key": lambda number: f" key {number}",
    "{": lambda _: "{...}",
    " ": lambda words: f" {words}",
}


@dataclass
class _Chunks:
    """The hashes of one name's tokens; with *wanted*, the tokens of that chunk too."""

    wanted: int | None = None
    done: list[str] = field(default_factory=list)
    seen: list[Token] = field(default_factory=list)
    _count: int = 0
    _hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    def add(self, path: Path, label: str, content: bytes, names: tuple[str, ...]) -> None:
        self._hash.update(text(f"{len(label)} {len(content)} {len(names)} {label}") + content)
        if names:
            self._hash.update(text(repr(names)))
        if self.wanted == len(self.done):
            few = names if len(names) <= _SHOWN_NAMES else ()
            self.seen.append(Token(shown(path), label, hashed(content + text(repr(names))).hex(), few))
        self._count += 1
        if self._count % CHUNK_TOKENS == 0:
            self._close()

    def _close(self) -> None:
        self.done.append(self._hash.hexdigest())
        self._hash = hashlib.blake2b(digest_size=8)

    def finished(self) -> tuple[str, ...]:
        if self._count % CHUNK_TOKENS:
            self._close()
        return tuple(self.done)


class _Walk:
    """Walks over values one after the other, remembering what it has met."""

    def __init__(self, anatomy: Anatomy, wanted: Mapping[str, int] | None = None) -> None:
        self.seen: dict[str, list[Token]] = {}
        self._anatomy = anatomy
        self._wanted = wanted or {}
        self._met: MutableMapping[int, Path] = {}
        self._alive: list[Any] = []
        self._ranges = _Ranges()
        self._chunks = _Chunks()
        self._left = [MOST_TOKENS]

    def over(self, name: str, value: Any) -> Digest:
        """Walk over one named value."""
        self._chunks = _Chunks(self._wanted.get(name))
        try:
            self._walk((None, "", name), value)
        except Incomparable as error:
            return Digest(incomparable=str(error))
        finally:
            if name in self._wanted:
                self.seen[name] = self._chunks.seen
        return Digest(self._chunks.finished())

    def _inside(self) -> _Walk:
        """A walk that knows what this one has met, and of which this one learns nothing."""
        walk = _Walk(self._anatomy)
        walk._met = ChainMap({}, self._met)
        walk._alive, walk._left = self._alive, self._left
        return walk

    def _walk(self, path: Path, value: Any) -> None:
        stack: list[tuple[Path, Any]] = [(path, value)]
        while stack:
            path, value = stack.pop()
            atom = ATOMS.get(type(value))
            if atom is not None:
                self._emit(path, type(value).__name__, atom(value))
            elif (met := self._met.get(id(value))) is not None:
                self._emit(path, f"the same object as {shown(met)}")
            else:
                parts = self._visit(path, value)
                parts.reverse()
                stack += parts

    def _visit(self, path: Path, value: Any) -> list[tuple[Path, Any]]:
        """Tell of one object; return its parts, which are walked next."""
        try:
            parts = self._anatomy.parts(value)
        except Incomparable as error:
            raise Incomparable(f"{shown(path)}: {error}") from error
        except Exception as error:  # a half-made object of a library may raise anything
            kind = self._anatomy.label(type(value))
            raise Incomparable(f"{shown(path)}: {kind} cannot be looked at ({type(error).__name__})") from error
        if not parts.alike:
            self._met[id(value)] = path
        self._alive.append(value)
        self._emit(path, parts.label, parts.content, parts.names)
        if parts.memory is not None:
            self._tell_memory((path, " ", "memory"), parts.memory)
        for span, label, content in parts.runs:
            self._emit((path, ":", span), label, content)
        children = [((path, kind, key), part) for kind, key, part in parts.children]
        return [*self._elements(path, parts), *children] if parts.unordered else children

    def _elements(self, path: Path, parts: Parts) -> Iterator[tuple[Path, Any]]:
        """Tell of the elements of a set in the order of their own digests.

        Those that are alike in all that they hold are told only, as nothing says which is which.
        """
        alone = sorted(((self._digest(element), element) for element in parts.unordered), key=lambda pair: pair[0])
        alike = Counter(digest for digest, _ in alone)
        self._emit((path, " ", "elements"), "elements", "".join(digest for digest, _ in alone).encode())
        for digest, element in alone:
            if type(element) not in ATOMS and alike[digest] == 1:
                yield (path, "{", digest), element

    def _digest(self, element: Any) -> str:
        atom = ATOMS.get(type(element))
        if atom is not None:
            content = f"{type(element).__name__} ".encode() + atom(element)
            return hashlib.blake2b(content, digest_size=8).hexdigest()
        walk = self._inside()
        walk._walk((None, "{", ""), element)
        return "".join(walk._chunks.finished())

    def _tell_memory(self, path: Path, memory: Memory) -> None:
        for kind, where, words in self._ranges.meet(memory, path):
            if kind == "new":
                self._emit(path, f"memory of {memory.size_bytes} bytes", memory.digest())
            else:
                self._emit(path, f"{words} {shown(where)}")

    def _emit(self, path: Path, label: str, content: bytes = b"", names: tuple[str, ...] = ()) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise Incomparable(f"it has more than {MOST_TOKENS:,} parts")
        self._chunks.add(path, label, content, names)


class _Ranges:
    """The memory that a walk has met: told once, and how ranges that are not the same overlap."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, int, int], Path] = {}
        self._spans: list[tuple[str, int, int, int, Path]] = []

    def meet(self, memory: Memory, path: Path) -> Iterator[tuple[str, Path, str]]:
        """Say of a range that it is new, the same as another, or where it begins in those that it overlaps."""
        if not memory.size_bytes:
            return
        known = self._exact.get(memory.where)
        if known is not None:
            yield "same", known, "the same bytes as"
            return
        self._exact[memory.where] = path
        device, start, size_bytes = memory.where
        end, first, home = start + size_bytes, start, path
        at = bisect.bisect_left(self._spans, (device, start))
        at -= at > 0 and self._spans[at - 1][0] == device and self._spans[at - 1][2] > start
        while at < len(self._spans) and self._spans[at][0] == device and self._spans[at][1] < end:
            _, low, high, origin, other = self._spans.pop(at)
            yield "overlap", other, f"at {memory.where[1] - origin} bytes in"
            start, end, first, home = min(start, low), max(end, high), origin, other
        bisect.insort(self._spans, (device, start, end, first, home), key=lambda span: span[:2])
        yield "new", path, ""
